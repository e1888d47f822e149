"""The journal's errors: what SQLite reports, with a remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from policies import AidsafeError


class JournalError(AidsafeError):
    """The journal cannot be read or written."""


class DamageError(Exception):
    """A row is not as it was written."""


def damaged(path: Path, what: str) -> JournalError:
    """The error for a journal that is not as it was written."""
    return JournalError(
        f"The journal {path} is damaged ({what}).",
        f"Nothing was changed; recover what is intact with: aidsafe salvage {path.parent} "
        "--out FOLDER",
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite, and of rows that cannot be read, into a `JournalError`.

    Args:
        path: The journal.
    """
    try:
        yield
    except DamageError as error:
        raise damaged(path, str(error)) from error
    except ValueError as error:  # from json or pydantic
        raise damaged(path, "a row is malformed") from error
    except OSError as error:
        raise _explain(path, error.strerror or str(error)) from error
    except sqlite3.Error as error:
        raise _explain(path, str(error)) from error


def _explain(path: Path, text: str) -> JournalError:
    if text.startswith("Could not decode"):  # the rest of it quotes the row
        return damaged(path, "a row is not valid UTF-8")
    if any(sign in text for sign in ("full", "disk I/O", "No space", "quota")):
        return JournalError(
            f"The journal {path} cannot be written: {text}.",
            "Make room on the disk, then repeat the command: what is in the journal stays done.",
        )
    if any(sign in text for sign in ("malformed", "not a database", "no such table")):
        return damaged(path, text)
    return JournalError(
        f"The journal {path} cannot be used ({text}).",
        "Check that the folder is writable and that no other process has the file open.",
    )
