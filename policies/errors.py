"""The errors of aidsafe: each says what is wrong and what to do about it, in two sentences.

A YAML file has many problems at once, each with the line where it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self


class Explained(Exception):
    """What errors of aidsafe and of its validators have in common.

    Args:
        cause: One sentence: what is wrong, and where.
        remedy: One sentence: what to do about it.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


class AidsafeError(Explained):
    """Something a user can understand and mend; shown without a traceback."""


class InputError(AidsafeError):
    """A file, a column, a name or a YAML that the user gave cannot be used."""


Loc = tuple[str | int, ...]
"""Where a value stands in a file: keys and list indices from the top, e.g. `("rules", 0, "id")`."""

Finding = tuple[Loc, str, str]
"""One thing wrong with data: where, cause, remedy."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file."""

    path: str
    line: int | None
    """Counted from 1; None where a line means nothing (a missing file)."""
    cause: str
    remedy: str

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        said = f"{place}: {self.cause} {self.remedy}".rstrip()
        # What a file holds is quoted here; it must neither break the line nor steer a terminal.
        return "".join(character if character.isprintable() else "?" for character in said)


class YamlError(InputError):
    """A YAML file that cannot be used; its message lists every problem, one a line.

    Args:
        problems: At least one, in the order of the file.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        # Exceptions are copied and pickled by calling the class with `args`.
        self.args = (self.problems,)

    @classmethod
    def at(cls, path: str, line: int | None, cause: str, remedy: str) -> Self:
        """The error of one problem."""
        return cls([Problem(path, line, cause, remedy)])


class FieldError(Explained, ValueError):
    """Raised by a pydantic validator that can say how to mend what it refuses.

    The YAML reader shows both sentences, cause and remedy, as they are.
    """


def shorten(value: object) -> str:
    """Cuts what a file holds to a length that leaves a message readable."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def quote(value: object) -> str:
    """Puts what a file holds, cut likewise, in quotes."""
    return f'"{shorten(value)}"'


def closest(word: str, known: Iterable[str]) -> str:
    """Asks whether the known word nearest to a word was meant; empty if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {quote(near[0])}?" if near else ""


def suggest(word: str, known: Iterable[str]) -> str:
    """Asks whether the nearest known word was meant, or lists the known ones."""
    options = list(known)
    return closest(word, options) or (f"Known here: {', '.join(options)}." if options else "")
