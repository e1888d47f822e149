"""The lock of a run: two processes that write to it would pay for every reply twice."""

from __future__ import annotations

import errno
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from orchestration.journal.errors import JournalError
from orchestration.journal.schema import FILE_NAME

LOCK_NAME = "journal.lock"
"""A file beside the journal; it stays there, and only counts while a process holds it."""

_PATIENCE = 0.5  # seconds: `is_locked` of another process holds the lock for a moment
_FOLDER_ERRORS = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)


def lock(folder: Path, required: bool = True) -> BaseFileLock | None:
    """Locks a run for this process; the system releases it when the process ends.

    Args:
        folder: The run.
        required: Whether a file system without locks is an error.

    Returns:
        The lock; None where there are none.

    Raises:
        JournalError: Another process holds it, or the file system has no locks.
    """
    found = _lock_of(folder)
    try:
        found.acquire(timeout=_PATIENCE)
    except Timeout:
        raise JournalError(
            f"Another process is writing to the run in {folder}.",
            f"See its progress with: aidsafe status {folder}, and wait until it has ended, "
            "or stop it.",
        ) from None
    except (OSError, NotImplementedError) as error:
        cause = getattr(error, "strerror", None) or "not supported"
        if getattr(error, "errno", None) in (*_FOLDER_ERRORS, errno.ENOSPC, errno.EDQUOT):
            raise JournalError(
                f"The run in {folder} cannot be locked ({cause}).",
                "Check that the folder is writable and the disk has room.",
            ) from None
        if not required:
            return None
        raise JournalError(
            f"The file system of {folder} has no locks ({cause}), so that two processes could "
            "pay for the same replies.",
            "Put the run on a local disk; or, if no other process writes to it, add --no-lock.",
        ) from None
    return found


def is_locked(folder: Path) -> bool | None:
    """Whether a process holds the lock of a run now; None if that is unknown."""
    found = _lock_of(folder)
    if not Path(found.lock_file).exists():
        return False
    try:
        with found.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return None


def _lock_of(folder: Path) -> BaseFileLock:
    # Beside the file itself, which other folders may name by a link.
    place = (folder / FILE_NAME).resolve().with_name(LOCK_NAME)
    # A marker file instead of a lock would outlive a process that is killed.
    return FileLock(place, thread_local=False, fallback_to_soft=False)
