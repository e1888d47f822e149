"""The progress of a run: a live view on a terminal, plain lines elsewhere, and its summary."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from orchestration.chat.view import plain
from orchestration.kinds import kind_named
from orchestration.runs.result import OUTCOMES
from orchestration.runs.status import EndpointState, Summary

_FIRST_LINE = 1.0  # seconds until the first plain line
_LINE_EVERY = 10.0  # seconds between plain lines
_REDRAW_EVERY = 0.5


@asynccontextmanager
async def show_progress(console: Console, look: Callable[[], Summary]) -> AsyncIterator[None]:
    """Shows the progress of a run while it runs.

    Args:
        console: Where to show it; plain lines if it is no terminal.
        look: Gives the present summary.
    """
    live = Live(console=console, auto_refresh=False, transient=True)

    async def show() -> None:
        if not console.is_terminal:
            await asyncio.sleep(_FIRST_LINE)
        while True:
            if console.is_terminal:
                live.update(panel(look()), refresh=True)
            else:
                console.print(plain(log_line(look())))
            await asyncio.sleep(_REDRAW_EVERY if console.is_terminal else _LINE_EVERY)

    if console.is_terminal:
        live.start()
    task = asyncio.create_task(show())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, OSError, ValueError):
            await task
        with suppress(OSError, ValueError):  # the terminal was closed
            live.stop()


def log_line(summary: Summary) -> str:
    """The progress in one line."""
    failed = _failed_requests(summary)
    facts = [
        f"{summary.seconds:6.0f} s  {_done(summary)}",
        _outcomes(summary),
        *(f"{title}: {text}" for title, text in _tallies(summary)[:1]),
        f"{summary.active} chats, {_calls(summary)}",
        _cost(summary),
        f"failed requests: {failed}" if failed else "",
    ]
    return "; ".join(filter(None, facts))


def panel(summary: Summary) -> RenderableType:
    """The progress as a table of facts."""
    replayed = f"{summary.replayed:,} replies taken from the journal" if summary.replayed else ""
    active = summary.endpoints if summary.phase in ("running", "stopping") else []
    grid = _grid(
        [
            ("prompts", _done(summary)),
            ("outcomes", _outcomes(summary) or "none yet"),
            *_tallies(summary),
            ("calls", _calls(summary)),
            ("cost", _cost(summary)),
            ("replayed", replayed),
            *((endpoint.endpoint, _in_flight(endpoint)) for endpoint in active),
            ("failed requests", _failed_requests(summary)),
            *(
                (e.at[11:19], e.cause + (f" ({e.times:,} times)" if e.times > 1 else ""))
                for e in summary.last_errors
            ),
        ]
    )
    if summary.all_read and summary.prompts and summary.phase == "running":
        done = summary.prompts - summary.pending
        grid.add_row("", ProgressBar(total=summary.prompts, completed=done, width=50))
    return grid


def print_summary(console: Console, folder: Path, summary: Summary) -> None:
    """Prints what a session did, and what to type next."""
    console.print(panel(summary))
    facts = [("time", duration(summary.seconds))]
    if summary.done_before:
        facts.append(("done before", f"{summary.done_before:,} prompts"))
    if summary.duplicates or summary.empty:
        rows = "; ".join(f"row {row} ({reason})" for row, reason in summary.left_out[:3])
        skipped = f"{summary.duplicates:,} duplicate and {summary.empty:,} empty prompts"
        facts.append(("left out", f"{skipped}, such as {rows}"))
    console.print(_grid(facts))
    name = shlex.quote(str(folder))
    # `aidsafe run` itself resumes the chats that a limit interrupted.
    failed = [o for o in OUTCOMES if o in {*summary.outcomes} - {"completed", "over_budget"}]
    retry = " ".join(f"--outcome {outcome}" for outcome in failed)
    steps = [("Retry", f"aidsafe retry {name} {retry}")] if failed else []
    steps.append(("Read", f"aidsafe show {name}"))
    kind = kind_named(summary.kind)
    steps += kind.next_steps(name, summary.tallies) if kind is not None else []
    console.print()
    for label, command in steps:
        console.print(plain(f"{label + ':':10}{command}", "dim"))


def _grid(facts: list[tuple[str, str]]) -> Table:
    """A table of the facts that are not empty."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", overflow="fold", min_width=18, max_width=30)
    grid.add_column(overflow="fold")
    for name, text in facts:
        if text:
            grid.add_row(plain(name), plain(text))
    return grid


def _done(summary: Summary) -> str:
    known = f"{summary.prompts:,}" + ("" if summary.all_read else " and more")
    phases = {"stopping": ", stopping: calls in flight are finished", "stopped": ", stopped"}
    text = f"{summary.prompts - summary.pending:,} of {known}{phases.get(summary.phase, '')}"
    if summary.per_minute is None or summary.phase in ("finished", "stopped"):
        return text
    left = f", {duration(summary.seconds_left)} left" if summary.seconds_left is not None else ""
    return f"{text} ({summary.per_minute:.1f} a minute{left})"


def _outcomes(summary: Summary) -> str:
    return _counts({o: summary.outcomes[o] for o in OUTCOMES if o in summary.outcomes})


def _failed_requests(summary: Summary) -> str:
    return _counts({kind: n for kind, n in summary.attempts.items() if kind != "answered"})


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _in_flight(state: EndpointState) -> str:
    limit = f" of {state.limit:.0f}" if state.limit is not None else ""
    waiting = f", {state.waiting} waiting" if state.waiting else ""
    pace = f", at most {state.pace:.1f} a second" if state.pace is not None else ""
    timeout = f", time-out {state.timeout:.3g} s" if state.timeout else ""
    return f"{state.in_flight}{limit} calls in flight{waiting}{pace}{timeout}"


def _tallies(summary: Summary) -> list[tuple[str, str]]:
    """Titles and texts of the tallies that are not empty."""
    return [
        # A value that is a number, such as that of a round, needs a colon.
        (name.replace("_", " "), ", ".join(f"{v}{':' * v.isdigit()} {n:,}" for v, n in of.items()))
        for name, of in summary.tallies.items()
        if of
    ]


def _calls(summary: Summary) -> str:
    usage = summary.usage
    share = usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0
    notes = [
        f"{short(usage.estimated_tokens)} of them estimated" if usage.estimated_tokens else "",
        f"{summary.unusable_calls:,} calls unusable" if summary.unusable_calls else "",
        f"{summary.abandoned_calls:,} more timed out" if summary.abandoned_calls else "",
    ]
    calls = (
        f"{summary.calls:,} calls, {short(usage.prompt_tokens)} tokens in ({share:.0%} cached), "
        f"{short(usage.completion_tokens)} out"
    )
    return ", ".join(filter(None, [calls, *notes]))


def _cost(summary: Summary) -> str:
    """What all sessions cost; empty if no call had a price."""
    if not summary.cost and summary.unpriced_calls == summary.calls:
        return ""
    cost = ", ".join(f"{amount:,.4g} {name}" for name, amount in summary.cost.items()) or "0"
    unpriced = f" and {summary.unpriced_calls:,} calls without a price"
    return cost + (unpriced if summary.unpriced_calls else "")


def short(number: float) -> str:
    """A number in three or four digits: 950, 12.3k, 4.56M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in its two largest units: 45 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
