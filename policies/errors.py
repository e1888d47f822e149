"""The errors of aidsafe: each says what is wrong and what to do about it, in two sentences."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the command `aidsafe` exits with. The README's table is this one."""

    meaning: str
    """As the README's table has it."""

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """A code and what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    GOOD = 0, "good"
    INTERNAL = 1, "an error inside aidsafe; please report it"
    USAGE = 2, "wrong usage"
    INPUT = 3, "something you gave cannot be used: a file, a column, a name, a YAML"
    ENDPOINT = 4, "the endpoint: no connection, wrong key, wrong model, or it kept failing"
    JOURNAL = 5, "the journal or the disk"
    NOT_COMPLETED = 6, "it ran to its end without a completed record"
    LIMIT = 7, "a limit was reached: --max-cost, --max-tokens or --max-time"
    INTERRUPTED = 130, "interrupted"


class AidsafeError(Exception):
    """Something a user can understand and mend; shown without a traceback.

    Args:
        cause: One sentence: what is wrong, and where.
        remedy: One sentence: what to do about it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    """What the command line exits with."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.cause} {self.remedy}".strip()


class InputError(AidsafeError):
    """A file, a column, a name or a YAML that the user gave cannot be used."""

    exit_code = ExitCode.INPUT
