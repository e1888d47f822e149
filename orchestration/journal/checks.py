"""Whether the files of a journal belong together and are whole, before SQLite may change them.

SQLite replays any write-ahead log that it finds beside a database, and removes that of an empty
one. So what is checked here is checked first, on a connection that cannot write:

- The file holds the run's id from its first byte on disk (`create`), so a file without it is none
  of ours, whatever its log holds.
- Every transaction updates the row `tally` in `meta`: the run's id, the number of transactions,
  and how many calls there are in which chats. A log of another run or time shows there.
- `Known` is what other files of the run say: its id and the number of calls. Fewer calls in the
  journal mean that its log, or the journal itself, is not the newest.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from orchestration.journal.errors import DamageError, JournalError
from orchestration.journal.schema import ModelSpend, create_tables, verify
from orchestration.journal.tally import count_calls, identify, read_identity

_MAGIC = b"SQLite format 3\0"
_TALLY = re.compile(rb"tally[0-9a-f]{16} (\d+) \d+ \d+")


class Known(NamedTuple):
    """What is known of a journal from the files beside it."""

    run: str | None = None
    """The run's id; None if unknown."""
    calls: int = 0
    """At least so many calls were stored."""
    outcomes: Collection[str] = ()
    """All outcomes that there are; none if unknown."""


def log_of(path: Path) -> Path:
    """The write-ahead log of a journal."""
    return path.with_name(f"{path.name}-wal")


def size_of(path: Path) -> int:
    """The size of a file; 0 if it does not exist."""
    return path.stat().st_size if path.exists() else 0


def create(path: Path) -> None:
    """Creates a journal, with its tables and the run's id: completely or not at all."""
    new = path.with_name(f"{path.name}-new")
    new.unlink(missing_ok=True)
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN")
        create_tables(db)
        identify(db)
        db.execute("COMMIT")
    new.replace(path)
    with suppress(OSError):  # not all systems can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_files(path: Path, write: bool) -> None:
    """Checks the files of a journal that exists, before SQLite opens them.

    Raises:
        DamageError: The file is missing, empty or no database.
        JournalError: There is a file beside it, or another name of it, that SQLite would act on.
    """
    if not path.exists():
        raise DamageError("it is missing")
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    if not head:
        raise DamageError("it is empty")
    if head != _MAGIC:
        raise DamageError("file is not a database")
    rollback = path.with_name(f"{path.name}-journal")
    if size_of(rollback):
        raise JournalError(
            f"Beside the journal {path} is {rollback.name}, which aidsafe does not write, and "
            "which SQLite would copy into the journal.",
            "Move that file elsewhere.",
        )
    if write and path.stat().st_nlink > 1:
        raise JournalError(
            f"The journal {path} has a second name (a hard link), whose folder would not see its "
            "write-ahead log.",
            f"Replace it by a copy: cp {path} {path}.copy && mv {path}.copy {path}",
        )


def check_identity(path: Path, db: sqlite3.Connection, known: Known, alone: bool) -> None:
    """Checks that a journal, its write-ahead log and the files beside it are of the same run.

    Args:
        path: The journal.
        db: A connection that cannot write.
        known: What the files beside it say.
        alone: Whether no process writes to it now.

    Raises:
        JournalError: They are not.
        DamageError, sqlite3.Error: The journal cannot be read.
    """
    run, tally = read_identity(db)
    if run is None:
        raise DamageError("the run's id is missing")
    is_mixed = tally is not None and tally.run != run
    if alone and size_of(log_of(path)):
        # Without the log. What a checkpoint wrote in part may not be readable.
        own_run, own_tally = None, None
        with suppress(sqlite3.Error, DamageError), closing(connect(path, "immutable=1")) as own:
            own_run, own_tally = read_identity(own)
        is_mixed |= own_run is not None and own_run != run
        is_mixed |= bool(own_tally and (tally is None or tally.commits < own_tally.commits))
        # A log begins where the journal ended, or before, if it was copied there in part.
        begins = _first_commit(log_of(path))
        is_mixed |= bool(begins and own_tally and begins > own_tally.commits + 1)
    if is_mixed:
        raise JournalError(
            f"The journal {path} and its {log_of(path).name} do not belong together: they are of "
            "different runs or times.",
            "Restore both from the same copy of the folder; nothing was changed.",
        )
    if known.run not in (None, run):
        raise JournalError(
            f"The journal {path} is that of another run than the run.yaml beside it.",
            f"Restore run.yaml, {path.name} and {log_of(path).name} from the same copy of the "
            "folder; nothing was changed.",
        )
    if known.run is not None and tally is None:  # run.yaml is written after the first transaction
        raise JournalError(
            f"The journal {path} has lost all that was stored in it: its {log_of(path).name} is "
            "missing, or of another time.",
            "Restore that file beside it; or, to pay for everything again, name a new folder.",
        )
    rows = db.execute("SELECT * FROM spend").fetchall()
    for row in rows:
        verify("spend", row)
    found = sum(ModelSpend(*row[:-1]).calls for row in rows)
    if found < known.calls:
        raise JournalError(
            f"The journal {path} has lost replies: it holds {found:,} calls, and status.json "
            f"counts {known.calls:,}. Its {log_of(path).name} is missing, or an older copy was "
            "restored.",
            f"Restore the newest {path.name} together with its {log_of(path).name}; or, to pay "
            f"for them again, remove {path.with_name('status.json')} and repeat the command.",
        )


def _first_commit(log: Path) -> int | None:
    """The number of the first transaction of a write-ahead log; None if it has none.

    Its frames are pages with headers (https://sqlite.org/walformat.html). The first ones end with
    that of the transaction's commit, and one of them has the tally's row.
    """
    with log.open("rb") as file:
        header = file.read(32)
        size = int.from_bytes(header[8:12], "big")
        while len(frame := file.read(24 + size)) == 24 + size and frame[8:16] == header[16:24]:
            if found := _TALLY.search(frame, 24):
                return int(found[1])
            if any(frame[4:8]):  # the last of the transaction
                return None
    return None


def check_outcomes(db: sqlite3.Connection, known: Known) -> None:
    """Raises `DamageError` if a prompt has an outcome that there is not."""
    query = "SELECT DISTINCT outcome FROM progress WHERE outcome IS NOT NULL"
    found = {outcome for (outcome,) in db.execute(query)}
    if known.outcomes and not found <= set(known.outcomes):
        raise DamageError("an outcome is unknown")


def check_rows(db: sqlite3.Connection) -> None:
    """Checks small tables in full, and that indexes and tables have the same number of rows.

    It reads indexes, and no table of texts: about 0.1 s for a million calls.

    Raises:
        DamageError, sqlite3.Error: Something is not as it was written.
    """

    def one(query: str) -> tuple[Any, ...]:
        return tuple(db.execute(query).fetchone())

    for table in ("meta", "sources", "spend"):
        for row in db.execute(f"SELECT * FROM {table}"):  # noqa: S608
            verify(table, row)
    for table in ("meta", "sources", "spend"):
        if one(f"PRAGMA integrity_check({table})") != ("ok",):
            raise DamageError(f"an index of {table} disagrees with it")
    total, done = one("SELECT count(*), count(outcome) FROM progress NOT INDEXED")
    by_index = {
        "progress_pending": ("progress", "outcome IS NULL", total - done),
        "progress_by_outcome": ("progress", "outcome IS NOT NULL", done),
        "sqlite_autoindex_prompts_1": ("prompts", "1", total),
        "sqlite_autoindex_prompts_2": ("prompts", "1", total),
    }
    for index, (table, where, expected) in by_index.items():
        query = f"SELECT count(*) FROM {table} INDEXED BY {index} WHERE {where}"  # noqa: S608
        if one(query) != (expected,):
            raise DamageError(f"an index of {table} disagrees with the prompts")
    tally = read_identity(db)[1]
    if tally is not None and count_calls(db) != (tally.calls, tally.chats):
        raise DamageError("the index of the replies disagrees with their number")


def connect(path: Path, how: str) -> sqlite3.Connection:
    """A connection that reads; `how` is a parameter of SQLite's URI."""
    uri = f"{path.as_uri()}?mode={'rw' if how == 'rw' else 'ro'}&{how}"
    db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA busy_timeout = 10000")
    db.execute("PRAGMA query_only = ON")
    return db


class Place:
    """Where an open journal is: notices that its files were removed, moved or replaced.

    Args:
        path: The journal, open.
    """

    def __init__(self, path: Path) -> None:
        self._files = {file: _inode(file) for file in (path, log_of(path))}
        self._path = path

    def check(self) -> None:
        """Raises `JournalError` if the files at the path are others than those that are open."""
        for file, inode in self._files.items():
            if inode is not None and _inode(file) != inode:
                raise JournalError(
                    f"{file} was removed, moved or replaced while the run was writing to it.",
                    "Put the folder back where it was, or restore it from a copy, and repeat the "
                    "command.",
                )


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
