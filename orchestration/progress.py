"""How far a run is: a live line on a terminal, plain lines elsewhere; and its summary."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from orchestration.prompts import PromptReader
from orchestration.record import OUTCOMES, CoTRecord
from orchestration.run import Summary
from orchestration.view import plain, table

_LOG_EVERY = 10.0  # seconds between plain lines


class Progress:
    """Counts records as they come. A context manager.

    Args:
        console: Where to show it; plain lines if it is no terminal.
        total: Prompts in all; None if that is not known.
    """

    def __init__(self, console: Console, total: int | None) -> None:
        self._console = console
        self._counts: Counter[str] = Counter()
        self._passed = 0
        self._logged = self._started = time.monotonic()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bar = Bar(
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def pass_over(self) -> None:
        """One prompt more had its outcome before."""
        self._passed += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=self._text())

    def advance(self, record: CoTRecord) -> None:
        """One prompt more has its outcome."""
        self._counts[record.outcome] += 1
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=self._text())
            return
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY or self._counts.total() == 1:
            self._logged = now
            self._console.print(f"{now - self._started:6.0f} s  {self._text()}")

    def _text(self) -> str:
        parts = [f"{self._counts[o]} {o}" for o in OUTCOMES if self._counts[o]]
        return ", ".join(parts + ([f"{self._passed} done before"] if self._passed else []))


def print_summary(console: Console, folder: Path, summary: Summary, reader: PromptReader) -> None:
    """What the run did, as tables, and what to type next."""
    rows = [(o, str(summary.outcomes[o])) for o in OUTCOMES if summary.outcomes[o]]
    console.print(table(("outcome", "prompts"), rows))
    if summary.stop_reasons:
        reasons = [(reason, str(n)) for reason, n in summary.stop_reasons.most_common()]
        console.print()
        console.print(table(("stopped by", "chats"), reasons))
    console.print()
    usage = summary.usage
    console.print(
        f"{summary.seconds:.0f} s, {usage.prompt_tokens} prompt tokens "
        f"({usage.cached_tokens} cached), {usage.completion_tokens} completion tokens"
    )
    if summary.done_before:
        console.print(f"{summary.done_before} prompts were done before.")
    if reader.duplicates or reader.empty:
        console.print(
            f"Left out: {reader.duplicates} duplicate and {reader.empty} empty prompts, such as "
            + "; ".join(f"row {row} ({reason})" for row, reason in reader.left_out[:3])
            + "."
        )
    name = shlex.quote(str(folder))
    if summary.outcomes["failed"]:
        console.print(plain("Try again:  the same command with --retry failed", style="dim"))
    console.print(plain(f"Read them:  aidsafe show {name}", style="dim"))
    if summary.outcomes["completed"]:
        console.print(plain(f"Export:     aidsafe export {name} --format sft", style="dim"))
