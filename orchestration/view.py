"""Turns and records as a person reads them, on a terminal or in a pipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.turns import Turn, describe_turn
from orchestration.record import CoTRecord

_COLOURS = {
    "intent_analyst": ("magenta",),
    "drafter": ("blue",),
    "deliberator": ("green", "yellow", "cyan", "bright_red", "bright_blue"),
    "refiner": ("bright_magenta",),
    "guest": ("white",),
    "ear_whisperer": ("red",),
    "generator": ("yellow",),
    "violation_judge": ("cyan", "bright_blue"),
    "violation_classifier": ("cyan", "bright_blue"),
}
# C0 and C1 control characters, and those that turn the direction of writing; not tab and newline.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text without control characters: a reply must not drive the reader's terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def plain(text: str, style: str = "") -> Text:
    """Text as it is: cleaned, and with no markup in it."""
    return Text(clean(text), style=style)


class TurnPrinter:
    """Prints turns, each agent in its colour.

    Args:
        console: Where to.
        instructions: Whether to print what each agent was told, too.
        veil: What to print instead of a turn that is not to be seen; None for one that is.
    """

    def __init__(
        self,
        console: Console,
        instructions: bool = False,
        veil: Callable[[Turn], str | None] = lambda _: None,
    ) -> None:
        self._console = console
        self._instructions = instructions
        self._veil = veil
        self._styles: dict[str, str] = {}

    def _style(self, turn: Turn) -> str:
        if turn.agent not in self._styles:
            colours = _COLOURS[turn.role]
            taken = sum(style in colours for style in self._styles.values())
            self._styles[turn.agent] = colours[taken % len(colours)]
        return self._styles[turn.agent]

    def print(self, turn: Turn) -> None:
        """One turn: who, where in the chat, what was said, and what it cost."""
        style = self._style(turn)
        head = plain(turn.agent, style=f"bold {style}")
        if turn.round:
            head.append(f"  round {turn.round}", style="dim")
        head.append(
            f"  {turn.latency:.1f} s, {turn.usage.prompt_tokens} + "
            f"{turn.usage.completion_tokens} tokens, {turn.usage.cached_tokens} cached",
            style="dim",
        )
        self._console.print(head)
        veiled = self._veil(turn)
        if veiled is not None:
            self._console.print(plain(f"{veiled}\n", style="dim"))
            return
        if self._instructions:
            self._console.print(plain(turn.instruction, style="dim italic"))
        for call in turn.discarded:
            self._console.print(plain(f"(asked again: {call.problem or ''})", style="dim"))
        self._console.print(plain(describe_turn(turn), style=style))
        self._console.print()


def print_record(console: Console, record: CoTRecord) -> None:
    """What came of the chat: outcome, final chain and response."""
    console.print(Text("record", style="bold underline"))
    end = f"stopped by {record.stop_reason} after {_count(record.rounds, 'round')}"
    if record.outcome != "completed":
        console.print(plain(f"{record.outcome}: {record.problem or ''}", style="bold red"))
    else:
        console.print(plain(f"{record.outcome}, {end}", style="bold"))
        for number, thought in enumerate(record.thoughts, 1):
            cited = ", ".join([*thought.policies, *thought.rules])
            line = plain(f"{number}. {thought.text} ")
            line.append(clean(f"[{cited}]"), style="cyan")
            line.append(clean(f" {thought.author}"), style="dim")
            console.print(line)
        console.print(plain(f"Response: {record.response or ''}", style="bold"))
    for removed in record.removed_thoughts:
        console.print(
            plain(
                f"removed {removed.thought.id} ({removed.reason}, by {removed.by}): "
                f"{removed.thought.text}" + (f" / {removed.why}" if removed.why else ""),
                style="dim",
            )
        )
    usage = record.usage
    console.print(
        Text(
            f"{_count(len(record.turns), 'turn')}, {usage.prompt_tokens} prompt tokens "
            f"({usage.cached_tokens} cached), {usage.completion_tokens} completion tokens, "
            f"{record.latency:.1f} s of model time",
            style="dim",
        )
    )


def print_transcript(console: Console, record: CoTRecord, instructions: bool = False) -> None:
    """A whole record, turn by turn."""
    console.print(plain(f"{record.id}  ", style="bold").append(clean(record.prompt)))
    origin = record.provenance
    console.print(
        plain(
            f"{origin.policy_set}, recipe {origin.recipe}, {origin.started_at}, "
            f"aidsafe {origin.aidsafe}",
            style="dim",
        )
    )
    console.print()
    printer = TurnPrinter(console, instructions)
    for turn in record.turns:
        printer.print(turn)
    print_record(console, record)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], one_line: bool = False) -> Table:
    """A table in the house style; where the terminal is too narrow, the last column gives way.

    Args:
        columns: Heads of the columns.
        rows: Cells, as many as there are columns.
        one_line: Whether the last column is cut where it does not fit, instead of wrapped.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        made.add_column(column, overflow="fold", no_wrap=True)
    # Not `no_wrap`, even if it is: Rich narrows the columns that may wrap first.
    made.add_column(columns[-1], overflow="ellipsis" if one_line else "fold")
    for row in rows:
        *cells, last = (plain(" ".join(cell.split())) for cell in row)
        last.no_wrap = one_line
        made.add_row(*cells, last)
    return made


def narrowed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows without those columns that a terminal is too narrow for.

    The column before the last goes first; the first, which names the row, stays whatever its width.
    """
    lines = zip(columns, *rows, strict=True)
    widths = [max(cell_len(clean(cell)) for cell in line) for line in lines]
    widths[-1] = min(widths[-1], 10)  # the last may be cut, but not to nothing
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(widths[i] + 2 for i in kept) - 2 > width:
        kept.pop(-2 if len(kept) > 2 else -1)
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
