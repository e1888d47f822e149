"""Turns and tables as people read them, on a terminal or in a pipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.turns import Turn

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
# C0 and C1 control characters, further line ends, those that turn the direction of writing, and
# tags, which smuggle invisible text; not tab and newline.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """Text without control characters: a reply must not control the reader's terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def plain(text: str, style: str = "") -> Text:
    """Text without control characters, and without interpreting markup."""
    return Text(clean(text), style=style)


class TurnTexts:
    """Turns as texts, each agent in its colour.

    Args:
        instructions: Whether to include each agent's instruction.
        hide: What to show instead of a turn that must not be shown; None for other turns.
    """

    def __init__(
        self,
        instructions: bool = False,
        hide: Callable[[Turn], str | None] = lambda _: None,
    ) -> None:
        self._instructions = instructions
        self._hide = hide
        self._styles: dict[str, str] = {}

    def _style(self, turn: Turn) -> str:
        if turn.agent not in self._styles:
            colours = _COLOURS.get(turn.role, ("white",))
            taken = sum(style in colours for style in self._styles.values())
            self._styles[turn.agent] = colours[taken % len(colours)]
        return self._styles[turn.agent]

    def text(self, turn: Turn) -> Text:
        """One turn: the agent, its round, its tokens, and what it said."""
        style = self._style(turn)
        head = plain(turn.agent, style=f"bold {style}")
        if turn.round:
            head.append(f"  round {turn.round}", style="not bold dim")
        head.append(
            f"  {turn.latency:.1f} s, {turn.usage.prompt_tokens} + "
            f"{turn.usage.completion_tokens} tokens, {turn.usage.cached_tokens} cached",
            style="not bold dim",
        )
        lines = [head]
        hidden = self._hide(turn)
        if hidden is not None:
            lines.append(plain(hidden, style="dim"))
        else:
            if self._instructions:
                lines.append(plain(turn.instruction, style="dim italic"))
            calls = (plain(f"(called again: {c.problem or ''})", "dim") for c in turn.discarded)
            lines += [*calls, plain(turn.describe(), style=style)]
        return Text("\n").join(lines)

    def print(self, console: Console, turns: Iterable[Turn]) -> None:
        """Prints turns, each with an empty line after it."""
        for turn in turns:
            console.print(self.text(turn), end="\n\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], one_line: bool = False) -> Table:
    """A table; if the terminal is too narrow, the last column shrinks.

    Args:
        columns: Column names.
        rows: Cells, as many as there are columns.
        one_line: Whether the last column is cut if it does not fit, instead of wrapped.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns[:-1]:
        made.add_column(column, overflow="fold", no_wrap=True)
    # Not `no_wrap`, even if it is: Rich first shrinks the columns that may wrap.
    made.add_column(columns[-1], overflow="ellipsis" if one_line else "fold")
    for row in rows:
        *cells, last = (plain(" ".join(cell.split())) for cell in row)
        last.no_wrap = one_line
        made.add_row(*cells, last)
    return made


def narrowed(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> tuple[list[str], list[list[str]]]:
    """Columns and rows without the columns that do not fit into a terminal.

    The column before the last is left out first; the first, which names the row, never.
    """
    lines = zip(columns, *rows, strict=True)
    widths = [max(cell_len(clean(cell)) for cell in line) for line in lines]
    widths[-1] = min(widths[-1], 10)  # the last may be cut, but not to nothing
    kept = list(range(len(columns)))
    while len(kept) > 1 and sum(widths[i] + 2 for i in kept) - 2 > width:
        kept.pop(-2 if len(kept) > 2 else -1)
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def count(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
