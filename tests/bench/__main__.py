"""Measures what aidsafe costs: `python -m tests.bench [NAME …]`, or `make bench` for everything.

Every number in the table is measured in this run; where two things are compared, they take turns
in it. Models are scripted, and served over sockets by an endpoint in a process of its own, except
for `chat`, which calls none. Exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType

from tests.bench.table import BenchError, Row, as_markdown, as_text

NAMES = ("chat", "efficiency", "pairs", "saturation", "throttling", "memory", "resume")
"""The measurements: modules beside this one with a function `measure(quick) -> list[Row]`."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _build_parser().parse_args(arguments)
    if options.list:
        for name in NAMES:
            print(f"{name:<12}{(_module(name).__doc__ or '').splitlines()[0]}")
        return 0
    rows: list[Row] = []
    for name in options.names or NAMES:
        rows += _measure(name, options.quick)
    if options.quick:
        rows = [replace(row, met=None) for row in rows]
    print(as_markdown(rows) if options.markdown else as_text(rows))
    if options.quick:
        print("Quick: everything is smaller than it should be, so the targets are not judged.")
    return int(any(row.met is False for row in rows))


def _measure(name: str, quick: bool) -> list[Row]:
    started = time.monotonic()
    print(f"{name} … ", end="", file=sys.stderr, flush=True)
    try:
        rows: list[Row] = _module(name).measure(quick)
    except BenchError as error:
        rows = [Row(f"{name} could not be measured: {error}", "", met=False)]
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return rows


def _module(name: str) -> ModuleType:
    # Not all at the top: an import of AutoGen takes seconds, and not every measurement needs it.
    return importlib.import_module(f"tests.bench.{name}")


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES)
    )
    parser.add_argument("--list", action="store_true", help="say what is measured, and do nothing")
    parser.add_argument("--quick", action="store_true", help="small sizes, for trying it out")
    parser.add_argument("--markdown", action="store_true", help="the table as a README has it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
