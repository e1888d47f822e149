"""The exit codes of `aidsafe`, which `orchestration/README.md` lists, and the errors' codes."""

from __future__ import annotations

from enum import IntEnum

from policies import AidsafeError, InputError


class Interrupted(AidsafeError):
    """The user stopped the command."""


class ExitCode(IntEnum):
    """What the command `aidsafe` exits with."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """A code with its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    GOOD = 0, "success"
    INTERNAL = 1, "an error inside aidsafe; please report it"
    USAGE = 2, "wrong usage"
    INPUT = 3, "invalid input: a file, a column, a name, a YAML"
    ENDPOINT = 4, "the endpoint: no connection, wrong key, wrong model, or too many failures"
    JOURNAL = 5, "the journal, the disk or the memory"
    NOT_COMPLETED = 6, "finished without a completed record"
    LIMIT = 7, "a limit was reached: --max-cost, --max-tokens or --max-time"
    INTERRUPTED = 130, "interrupted"


def exit_code(error: AidsafeError) -> ExitCode:
    """The exit code for an error."""
    # Imported here, since a command that succeeds may need none of them.
    from agents.models.errors import EndpointError
    from orchestration.cli.machine import MachineError
    from orchestration.journal import JournalError
    from orchestration.runs.run import LimitReached, RunStopped

    codes: dict[type, ExitCode] = {
        InputError: ExitCode.INPUT,
        EndpointError: ExitCode.ENDPOINT,
        RunStopped: ExitCode.ENDPOINT,
        JournalError: ExitCode.JOURNAL,
        MachineError: ExitCode.JOURNAL,
        LimitReached: ExitCode.LIMIT,
        Interrupted: ExitCode.INTERRUPTED,
    }
    return next((codes[cls] for cls in type(error).__mro__ if cls in codes), ExitCode.INTERNAL)
