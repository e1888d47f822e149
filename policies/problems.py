"""What is wrong in a YAML file: where it is, what it is, and what its writer can do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from policies.errors import Explained, InputError

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


def suggest(word: str, known: Iterable[str]) -> str:
    """Asks whether the nearest known word was meant, or lists the known ones."""
    options = list(known)
    near = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {quote(near[0])}?"
    return f"Known here: {', '.join(options)}." if options else ""
