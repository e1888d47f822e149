"""The errors of aidsafe: each says what is wrong and what to do about it, in two sentences."""

from __future__ import annotations


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
