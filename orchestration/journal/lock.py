"""The lock of a run: two processes that write to it would pay for every reply twice."""

from __future__ import annotations

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from orchestration.journal.errors import JournalError

LOCK_NAME = "journal.lock"
"""A file in the run's folder; it stays there, and only counts while a process holds it."""

_PATIENCE = 0.5  # seconds: `is_locked` of another process holds the lock for a moment


def lock(folder: Path) -> BaseFileLock | None:
    """Locks a run for this process; the system releases it when the process ends.

    Returns:
        The lock; None where the file system has no locks, and the writer alone notices others.

    Raises:
        JournalError: Another process holds it.
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
    except OSError:  # no locks, or the folder is missing or read-only, which SQLite reports
        return None
    return found


def is_locked(folder: Path) -> bool | None:
    """Whether a process holds the lock of a run now; None if that is unknown."""
    if not (folder / LOCK_NAME).exists():
        return False
    try:
        with _lock_of(folder).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return None


def _lock_of(folder: Path) -> BaseFileLock:
    # A marker file instead of a lock would outlive a process that is killed.
    return FileLock(folder / LOCK_NAME, thread_local=False, fallback_to_soft=False)
