"""One process at a time owns a run: two would pay for every reply twice."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestration.journal.errors import JournalError


def lock(folder: Path) -> int | None:
    """Takes a run for this process; the system gives it back when the process ends.

    Returns:
        A handle for `unlock`; None where the file system knows no locks.

    Raises:
        JournalError: Another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: without it, the user has to see to that
        return None
    handle: int | None = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        for patience in (0.05, 0.1, 0.2, 0.0):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not patience:
                    raise
                time.sleep(patience)  # somebody may only be asking whether it is locked
    except BlockingIOError:
        unlock(handle)
        raise JournalError(
            f"Another process is writing to the run in {folder}.",
            f"See how far it is with: aidsafe status {folder}, and wait until it has ended, "
            "or stop it.",
        ) from None
    except OSError:  # a file system without locks, or no such folder, which SQLite will say
        unlock(handle)
        return None
    return handle


def unlock(handle: int | None) -> None:
    """Gives back what `lock` took."""
    if handle is not None:
        os.close(handle)


def is_locked(folder: Path) -> bool | None:
    """Whether a process has the run now; None where that cannot be told."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False
