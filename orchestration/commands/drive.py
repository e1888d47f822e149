"""What `run`, `retry` and `plan` share: a session of a run, watched and stopped in good order."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated

import typer
from rich.text import Text

from orchestration.casting import Casting
from orchestration.commands import options
from orchestration.commands.output import (
    Interrupted,
    Stopper,
    err,
    out,
    run_async,
    write_json,
)
from orchestration.progress import Progress, print_summary
from orchestration.runs import Run
from orchestration.runs.budget import Limits
from orchestration.runs.run import LimitReached
from orchestration.runs.state import Summary
from orchestration.telemetry import NO_TELEMETRY, Telemetry, opened
from orchestration.view import clean
from policies import AidsafeError, ExitCode, InputError

GO_ON = "Go on with the same command: what is done stays done."

Concurrency = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        min=1,
        metavar="N",
        help="Chats at the same time, at most: an endpoint that throttles gets fewer calls. "
        "[default: 16; the number of slots on the embedded model]",
        show_default=False,
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        min=0.0,
        metavar="AMOUNT",
        help="Stop when the run has cost that much, in all its sessions; needs prices.",
        show_default=False,
    ),
]
MaxTokens = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        min=1,
        metavar="N",
        help="Stop when the run has used so many tokens, in and out, in all its sessions.",
        show_default=False,
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Stop after that time, such as 90m, 8h or 2d; counts this session alone.",
        show_default=False,
    ),
]

Otel = Annotated[
    bool,
    typer.Option(
        "--otel",
        help="Send OpenTelemetry spans and metrics, without any text of prompts and replies, to "
        "where OTEL_EXPORTER_OTLP_ENDPOINT says; needs the extra otel.",
    ),
]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def limits(cost: float | None, tokens: int | None, time: str | None) -> Limits:
    """The limits that the options name.

    Raises:
        InputError: The time cannot be read.
    """
    if time is None:
        return Limits(cost, tokens, None)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", time.strip())
    if not found or float(found[1]) <= 0:
        raise InputError(f"--max-time {time} is no time.", "Write it as 90m, 8h or 2d.")
    return Limits(cost, tokens, float(found[1]) * _UNITS[found[2] or "s"])


def telemetry(otel: bool) -> AbstractContextManager[Telemetry]:
    """What a run tells of its chats, and to whom: nothing, unless that is asked for.

    Raises:
        InputError: It cannot be sent.
    """
    if not otel:
        return nullcontext(NO_TELEMETRY)
    return opened(lambda complaint: err().print(Text(complaint, style="yellow")))


_MORE = {
    "records": " (--dry-run says how many).",
    "pairs": ". With another audit alone none are, but for max_chosen, which ends chats; "
    "else the ear-whisperer learns from the beginning.",
}


def announce_changes(run: Run) -> None:
    """Says on standard error what of the run's settings has changed, and what that means."""
    changed = run.folder.changed
    if not changed:
        return
    what = "; ".join(f"{kind} ({', '.join(names)})" for kind, names in changed.items())
    err().print(
        Text(
            clean(
                f"The run in {run.folder.path} was last started with other {what}. Its prompts "
                "are taken up again: replies whose request is the same are used again, the others "
                f"are asked for anew{_MORE[run.job.kind]} Prompts that no command names wait, and "
                "are not exported; changing back brings all back for nothing."
            ),
            style="yellow",
        )
    )


def drive(
    run: Run,
    setup: options.Setup[Casting],
    work: Callable[[], Awaitable[object]],
    json: bool,
    report: Callable[[Summary], None] | None = None,
) -> None:
    """Runs a session to its end, shows how far it is, and says what came of it.

    Args:
        run: The run; closed at the end.
        setup: Its models are closed at the end.
        work: The session.
        json: Whether to print the summary as JSON, if there is no report.
        report: Says more of what came of it, after the summary.

    Raises:
        AidsafeError: What stopped the run.
        Interrupted: The user did.
        typer.Exit: It came to its end without a completed record.
    """
    _allow_connections()
    error: AidsafeError | None = None
    try:
        run_async(lambda: _watched(run, setup, work), GO_ON)
    except AidsafeError as problem:
        error = problem  # told last, below what was done all the same
    finally:
        summary = run.summary
        run.close()
    if json:
        if report is None and run.state is not None:
            write_json(summary.model_dump(mode="json"))
    elif summary.outcomes:
        print_summary(out(), run.folder.path, summary)
    if error is not None:
        raise error
    if summary.why_stopped:
        raise LimitReached(summary.why_stopped, f"Raise the limit. {GO_ON}")
    if summary.interrupted:
        raise Interrupted("Stopped.", GO_ON)
    if report is not None:
        report(summary)
    elif not summary.outcomes.get("completed"):
        raise typer.Exit(ExitCode.NOT_COMPLETED)


def _allow_connections() -> None:
    """As many open files as the system lets us have: each call in flight needs one.

    What a shell hands on is often 1,024, where the system would allow a million.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _watched(
    run: Run, setup: options.Setup[Casting], work: Callable[[], Awaitable[object]]
) -> None:
    notice = "Stopping: calls under way are finished first. Ctrl-C again stops now."
    console = err()
    with Stopper(run.stop, notice, console):
        async with Progress(console, lambda: run.summary):
            try:
                await work()
            finally:
                await setup.close()
