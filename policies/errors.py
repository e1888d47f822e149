"""The errors of aidsafe: each says what is wrong and what to do about it, in two sentences."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the command `aidsafe` exits with. The README's table is this one."""

    meaning: str
    """One line for the README."""

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """A code and what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    GOOD = 0, "All went well."
    INTERNAL = 1, "An error inside aidsafe, or a package that hides one of its own."
    USAGE = 2, "Wrong usage: an unknown command or option."
    INPUT = 3, "A file, column, name, YAML or model that was given cannot be used."
    ENDPOINT = 4, "The model's endpoint gave no usable answer."
    JOURNAL = 5, "The run's journal, or the disk, cannot be read or written."
    NOT_COMPLETED = 6, "Came to its end, but without a completed record."
    INTERRUPTED = 130, "Stopped with Ctrl-C or SIGTERM."


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
