"""Where a row of a source is, for messages."""

from __future__ import annotations

from typing import NamedTuple

from policies.errors import InputError

ROW_MARK = ", row "
"""Stands between a source and the number of a row, where rows have no lines."""


class LeftOut(NamedTuple):
    """A row that was read and left out."""

    row: int
    """Its first line, or its number (from 1) if rows have no lines."""
    reason: str


class RowLocation(NamedTuple):
    """Where a row is: `file:line`, or `source, row number` where rows have no lines."""

    source: str
    mark: str = ":"
    is_part: bool = False
    """Whether the source is one of several files that are read together."""

    def at(self, number: int) -> str:
        """The location of a row, or of the whole source for 0."""
        return f"{self.source}{self.mark}{number}" if number else self.source

    def error(self, number: int, what: str, remedy: str) -> InputError:
        """The error for what is wrong at a row."""
        return InputError(f"{self.at(number)}: {what}.", remedy)

    def left_out(self, number: int, reason: str) -> LeftOut:
        """The note of a row that is left out; it names the file if there are several."""
        return LeftOut(number, f"{reason} in {self.source}" if self.is_part else reason)


def missing_package(what: str, package: str) -> InputError:
    """The error for a kind of source whose package is not installed."""
    return InputError(
        f"Reading {what} needs {package}, which is not installed.",
        "Install it with: pip install 'aidsafe[data]'",
    )


def first_line(error: BaseException) -> str:
    """The first line of what a library's exception says, without its full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
