"""The journal's errors: what SQLite says, in words that say what to do."""

from __future__ import annotations

import sqlite3
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from policies import AidsafeError, ExitCode


class JournalError(AidsafeError):
    """The journal cannot be read or written."""

    exit_code = ExitCode.JOURNAL


class DamageError(Exception):
    """A row that is not as it was written."""


def damaged(path: Path, what: str) -> JournalError:
    """The error for a journal that is not as it was written."""
    return JournalError(
        f"The journal {path} is damaged ({what}).",
        f"Nothing was changed; bring out what is intact with: aidsafe salvage {path.parent} "
        "--out FOLDER",
    )


class explained:  # noqa: N801 - reads as the verb it is
    """Turns the errors of SQLite, and of rows that are none, into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, DamageError):
            raise damaged(self._path, str(error)) from error
        if isinstance(error, ValidationError):
            raise damaged(self._path, "a record is malformed") from error
        if isinstance(error, JSONDecodeError):
            raise damaged(self._path, "a row is malformed") from error
        if not isinstance(error, sqlite3.Error):
            return
        text = str(error)
        if text.startswith("Could not decode"):  # and then it quotes the row
            raise damaged(self._path, "a row is not as it was written") from error
        if "full" in text or "disk I/O" in text:
            raise JournalError(
                f"The journal {self._path} cannot be written: {text}.",
                "Make room on the disk, then start the same command again: "
                "what is in the journal stays done.",
            ) from error
        if any(sign in text for sign in ("malformed", "not a database", "no such table")):
            raise damaged(self._path, text) from error
        raise JournalError(
            f"The journal {self._path} cannot be used ({text}).",
            "Check that the folder may be written and that no other process holds the file.",
        ) from error
