"""How far a run is: a live view on a terminal, plain lines elsewhere; and its summary."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestration.pairs.pair import SET_ASIDE
from orchestration.record import OUTCOMES
from orchestration.runs.state import Summary
from orchestration.view import plain, table

_LOG_AFTER = 1.0  # seconds until the first plain line
_LOG_EVERY = 10.0  # seconds between plain lines
_REDRAW_EVERY = 0.5


class Progress:
    """Shows how far a run is while it runs. An asynchronous context manager.

    Args:
        console: Where to show it; plain lines if it is no terminal.
        look: Gives how things stand.
    """

    def __init__(self, console: Console, look: Callable[[], Summary]) -> None:
        self._console = console
        self._look = look
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._showing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        self._showing = asyncio.create_task(self._show())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._showing is not None:
            self._showing.cancel()
            with suppress(asyncio.CancelledError, OSError, ValueError):
                await self._showing
        if self._console.is_terminal:
            with suppress(OSError, ValueError):  # the terminal is gone
                self._live.stop()

    async def _show(self) -> None:
        if not self._console.is_terminal:
            await asyncio.sleep(_LOG_AFTER)  # nothing is known yet
        while True:
            summary = self._look()
            if self._console.is_terminal:
                self._live.update(panel(summary), refresh=True)
                await asyncio.sleep(_REDRAW_EVERY)
            else:
                self._console.print(plain(log_line(summary)))
                await asyncio.sleep(_LOG_EVERY)


def log_line(summary: Summary) -> str:
    """How things stand, in one line."""
    parts = [f"{summary.seconds:6.0f} s  {_done(summary)}{_pace(summary)}"]
    parts += [_counts(summary)] if summary.outcomes else []
    parts += [_pairs(summary)] if summary.kind == "pairs" and summary.outcomes else []
    parts.append(f"{summary.active} chats, {_calls(summary)}")
    if summary.cost:
        parts.append(_cost(summary))
    trouble = {kind: n for kind, n in summary.attempts.items() if kind != "answered"}
    if trouble:
        parts.append("not answered: " + _list(trouble))
    return "; ".join(parts)


def panel(summary: Summary) -> RenderableType:
    """How things stand, for the eye."""
    rows: list[tuple[str, str]] = [("prompts", f"{_done(summary)}{_pace(summary)}")]
    rows.append(("outcomes", _counts(summary) or "none yet"))
    if summary.stop_reasons:
        rows.append(("stopped by", _list(summary.stop_reasons)))
    if summary.kind == "pairs" and summary.outcomes.get("completed"):
        rows.append(("pairs", _pairs(summary)))
    if summary.attempts_to_kept:
        made = ", ".join(f"{n} in attempt {a}" for a, n in summary.attempts_to_kept.items())
        rows.append(("kept", made))
    if summary.rounds_to_consensus:
        agreed = ", ".join(f"{n} in round {r}" for r, n in summary.rounds_to_consensus.items())
        rows.append(("agreed", agreed))
    again = f", {summary.replayed:,} taken from the journal" if summary.replayed else ""
    rows.append(("calls", f"{_calls(summary)}{again}"))
    if summary.cost or summary.unpriced_calls < summary.calls:
        rows.append(("cost", _cost(summary)))
    at_work = summary.phase in ("running", "stopping")
    for endpoint in summary.endpoints if at_work else ():
        limit = f" of {endpoint.limit:.0f}" if endpoint.limit is not None else ""
        waiting = f", {endpoint.waiting} waiting" if endpoint.waiting else ""
        pace = f", at most {endpoint.pace:.1f} a second" if endpoint.pace is not None else ""
        flight = f"{endpoint.in_flight}{limit} calls under way{waiting}{pace}"
        rows.append((endpoint.endpoint, flight))
    trouble = {kind: n for kind, n in summary.attempts.items() if kind != "answered"}
    if trouble:
        rows.append(("not answered", _list(trouble)))
    for error in summary.last_errors:
        times = f" ({error.times:,} times)" if error.times > 1 else ""
        rows.append((error.at[11:19], f"{error.cause}{times}"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", overflow="fold", max_width=30)
    grid.add_column(overflow="fold")
    if summary.all_read and summary.prompts:
        done = summary.prompts - summary.waiting
        grid.add_row("", ProgressBar(total=summary.prompts, completed=done, width=50))
    for name, value in rows:
        grid.add_row(plain(name), plain(value))
    return grid


def _done(summary: Summary) -> str:
    known = f"{summary.prompts:,}" + ("" if summary.all_read else " and more")
    what = {"stopping": ", stopping: calls under way are finished", "stopped": ", stopped"}
    done = summary.prompts - summary.waiting
    return f"{done:,} of {known}{what.get(summary.phase, '')}"


def _pace(summary: Summary) -> str:
    if summary.per_minute is None or summary.phase in ("finished", "stopped"):
        return ""
    left = f", {duration(summary.seconds_left)} left" if summary.seconds_left is not None else ""
    return f" ({summary.per_minute:.1f} a minute{left})"


def _counts(summary: Summary) -> str:
    return _list({o: summary.outcomes[o] for o in OUTCOMES if summary.outcomes.get(o)})


def _pairs(summary: Summary) -> str:
    """What became of the completed pairs."""
    aside = sum(summary.set_aside.values())
    why = f" ({_list(summary.set_aside)})" if aside else ""
    return f"{summary.kept:,} kept, {aside:,} set aside{why}"


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in counts.items())


def _calls(summary: Summary) -> str:
    usage = summary.usage
    share = usage.cached_tokens / usage.prompt_tokens if usage.prompt_tokens else 0.0
    return (
        f"{summary.calls:,} calls, {short(usage.prompt_tokens)} tokens in ({share:.0%} cached), "
        f"{short(usage.completion_tokens)} out"
    )


def _cost(summary: Summary) -> str:
    cost = ", ".join(f"{amount:,.4g} {name}" for name, amount in summary.cost.items()) or "0"
    missing = f" and {summary.unpriced_calls:,} calls without a price"
    return cost + (missing if summary.unpriced_calls else "")


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


def print_summary(console: Console, folder: Path, summary: Summary) -> None:
    """What the run did, as tables, and what to type next."""
    counts = {str(o): summary.outcomes[o] for o in OUTCOMES if summary.outcomes.get(o)}
    counts |= {"none yet": summary.waiting} if summary.waiting else {}
    rows = [(outcome, f"{number:,}") for outcome, number in counts.items()]
    console.print(table(("outcome", "prompts"), rows))
    if summary.stop_reasons:
        reasons = sorted(summary.stop_reasons.items(), key=lambda item: -item[1])
        console.print()
        console.print(table(("stopped by", "chats"), [(reason, f"{n:,}") for reason, n in reasons]))
    if summary.kind == "pairs" and summary.outcomes.get("completed"):
        rows = [("kept", f"{summary.kept:,}")]
        rows += [
            (f"set aside: {reason}", f"{summary.set_aside[reason]:,}")
            for reason in SET_ASIDE
            if reason in summary.set_aside
        ]
        console.print()
        console.print(table(("completed", "pairs"), rows))
    console.print()
    console.print(plain(f"{duration(summary.seconds)}; in all sessions {_calls(summary)}"))
    if summary.replayed:
        console.print(plain(f"{summary.replayed:,} replies were taken from the journal."))
    if summary.cost:
        console.print(plain(f"Cost of the run so far: {_cost(summary)}"))
    trouble = {kind: n for kind, n in summary.attempts.items() if kind != "answered"}
    if trouble:
        console.print(plain(f"Requests that were not answered: {_list(trouble)}"))
    if summary.done_before:
        console.print(plain(f"{summary.done_before:,} prompts were done before."))
    if summary.duplicates or summary.empty:
        console.print(
            plain(
                f"Left out: {summary.duplicates:,} duplicate and {summary.empty:,} empty prompts, "
                "such as "
                + "; ".join(f"row {row} ({reason})" for row, reason in summary.left_out[:3])
                + "."
            )
        )
    name = shlex.quote(str(folder))
    # What a limit cut off is gone on with by the run's own command.
    others = [
        o for o in OUTCOMES if summary.outcomes.get(o) and o not in ("completed", "over_budget")
    ]
    if others:
        command = f"aidsafe retry {name}" + "".join(f" --outcome {o}" for o in others)
        console.print(Text(f"Try again:  {command}", style="dim"))
    console.print(plain(f"Read them:  aidsafe show {name}", style="dim"))
    if summary.kind == "pairs":
        console.print(plain(f"Report:     aidsafe pairs {name}", style="dim"))
        if summary.kept:
            console.print(
                plain(
                    f"Export:     aidsafe export {name} --format dpo --out dpo.jsonl", style="dim"
                )
            )
    elif summary.outcomes.get("completed"):
        console.print(
            plain(f"Export:     aidsafe export {name} --format sft --out sft.jsonl", style="dim")
        )
