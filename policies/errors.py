"""The errors of aidsafe: each says what is wrong and what to do about it, in two sentences."""

from __future__ import annotations

from typing import ClassVar


class AidsafeError(Exception):
    """Something a user can understand and mend; shown without a traceback.

    Args:
        cause: One sentence: what is wrong, and where.
        remedy: One sentence: what to do about it.
    """

    exit_code: ClassVar[int] = 1
    """What the command line exits with; the table is in the README."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


class InputError(AidsafeError):
    """A file, a column, a name or a YAML that the user gave cannot be used."""

    exit_code = 3
