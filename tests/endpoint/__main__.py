"""Serves the endpoint in a process of its own: `python -m tests.endpoint --help`."""

import argparse
import importlib
import json
import os
import signal
import stat
import threading
from collections.abc import Sequence

from tests.endpoint.faults import Fault
from tests.endpoint.server import Endpoint, Reply


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one JSON line with the base URL, then serve until told to stop."""
    options = _build_parser().parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    endpoint = Endpoint(
        port=options.port,
        seed=options.seed,
        reply=options.reply,
        latency=options.latency,
        fault_rates=dict(options.fault_rate),
        retry_after=options.retry_after,
        api_key=options.api_key,
        models=options.model,
        supports_schema=not options.no_schema,
        rate_limit=options.rate_limit,
        keep_bodies=False,
    )
    with endpoint:
        print(json.dumps({"base_url": endpoint.base_url}), flush=True)
        # Only a pipe can tell that the parent is gone: /dev/null is at its end from the start.
        if _is_pipe(0):
            threading.Thread(target=_await_end, args=(stop,), daemon=True).start()
        stop.wait()


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _await_end(stop: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    stop.set()


def _parse_latency(text: str) -> float | tuple[float, float]:
    low, colon, high = text.partition(":")
    return (float(low), float(high)) if colon else float(low)


def _parse_reply(text: str) -> Reply:
    module, _, name = text.partition(":")
    try:
        reply: Reply = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} cannot be loaded ({error})") from None
    return reply


def _parse_rate(text: str) -> tuple[Fault, float]:
    name, _, rate = text.partition("=")
    return Fault(name), float(rate)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.endpoint", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reply",
        type=_parse_reply,
        metavar="MODULE:FUNCTION",
        help="scripts the model; imported here (default: replies are drawn)",
    )
    parser.add_argument(
        "--latency", type=_parse_latency, default=0.0, metavar="S|LOW:HIGH", help="in seconds"
    )
    parser.add_argument(
        "--fault-rate",
        type=_parse_rate,
        action="append",
        default=[],
        metavar="FAULT=RATE",
        help=f"share of calls, may be repeated; faults: {', '.join(Fault)}",
    )
    parser.add_argument("--retry-after", type=float, default=1.0, metavar="S")
    parser.add_argument("--api-key", help="the only key let in (default: all)")
    parser.add_argument("--model", action="append", help="served, may be repeated (default: all)")
    parser.add_argument("--no-schema", action="store_true", help="refuse json_schema requests")
    parser.add_argument("--rate-limit", type=float, metavar="CALLS_PER_S")
    return parser


if __name__ == "__main__":
    main()
