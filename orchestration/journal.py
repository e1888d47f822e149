"""The journal: the SQLite file in which a run keeps what it has.

One process writes; its writes go through one thread, which commits all that are waiting together:
a record counts as kept only once its transaction is committed to disk. Readers (`show`, `export`)
may open the same file meanwhile, since it is in WAL mode.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestration.record import CoTRecord
from policies import AidsafeError

FILE_NAME = "journal.sqlite"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    prompt_id TEXT PRIMARY KEY,
    number INTEGER NOT NULL,   -- place of the prompt among those handed out, from 0
    outcome TEXT NOT NULL,
    stop_reason TEXT,
    rounds INTEGER NOT NULL,
    record TEXT NOT NULL       -- the CoT record as JSON, whatever the outcome
);
CREATE INDEX records_by_number ON records (number);
INSERT INTO meta VALUES ('schema', '1');
"""


class JournalError(AidsafeError):
    """The journal cannot be read or written."""

    exit_code = 5


class Journal:
    """A run's journal, open for reading, or for reading and writing.

    Args:
        path: The SQLite file; made if it is not there and `write` is set.
        write: Whether to write too.

    Raises:
        JournalError: There is no such file, it is damaged, or of another version.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path = path
        if not write and not path.is_file():
            raise JournalError(
                f"There is no run in {path.parent}.", "Name the folder that `aidsafe run` made."
            )
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        with _explained(path):
            self._db = self._connect(write)
            if write:
                self._make()
            self._check_version()
        if write:
            self._writer = threading.Thread(target=self._write_all, name="journal", daemon=True)
            self._writer.start()

    def _connect(self, write: bool) -> sqlite3.Connection:
        if write:
            db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        else:
            uri = f"{self.path.resolve().as_uri()}?mode=ro"
            db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA busy_timeout = 10000")
        return db

    def _make(self) -> None:
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")

    def _check_version(self) -> None:
        found = self._db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
        if found is None or found[0] != str(SCHEMA_VERSION):
            raise JournalError(
                f"The journal {self.path} has schema version {found and found[0]}, "
                f"and this aidsafe reads version {SCHEMA_VERSION}.",
                "Open it with the version of aidsafe that made it.",
            )

    async def add(self, number: int, record: CoTRecord) -> None:
        """Keeps a finished prompt's record; returns once it is on disk.

        Args:
            number: Place of the prompt among those handed out.
            record: The record, of any outcome.

        Raises:
            JournalError: It could not be written, for want of space for example.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        row = (
            record.id,
            number,
            record.outcome,
            record.stop_reason,
            record.rounds,
            record.model_dump_json(),
        )
        self._queue.put(_Write(row, future))
        await future

    def _write_all(self) -> None:
        """The writer thread: one transaction for all that has come in meanwhile."""
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            writes = [write for write in batch if write is not None]
            error: BaseException | None = None
            try:
                with _explained(self.path):
                    self._db.execute("BEGIN IMMEDIATE")
                    try:
                        self._db.executemany(
                            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)",
                            [write.row for write in writes],
                        )
                        self._db.execute("COMMIT")
                    except BaseException:
                        if self._db.in_transaction:
                            self._db.execute("ROLLBACK")
                        raise
            except Exception as problem:  # noqa: BLE001 - handed to those who wait for it
                error = problem
            for write in writes:
                write.settle(error)
            if len(writes) < len(batch):
                return

    def outcomes(self) -> Counter[str]:
        """How many prompts ended in each outcome."""
        with _explained(self.path):
            rows = self._db.execute("SELECT outcome, count(*) FROM records GROUP BY outcome")
            return Counter(dict(rows.fetchall()))

    def has(self, prompt_id: str) -> bool:
        """Whether the prompt has an outcome."""
        with _explained(self.path):
            query = "SELECT 1 FROM records WHERE prompt_id = ?"
            return self._db.execute(query, (prompt_id,)).fetchone() is not None

    def records(self, outcome: str | None = None) -> Iterator[CoTRecord]:
        """Records in the order of their prompts, one at a time.

        Args:
            outcome: Only those of this outcome; all if left out.
        """
        with _explained(self.path):
            query = "SELECT record FROM records WHERE ? IS NULL OR outcome = ? ORDER BY number"
            for (text,) in self._db.execute(query, (outcome, outcome)):
                yield CoTRecord.model_validate_json(text)

    def record(self, prompt_id: str) -> CoTRecord | None:
        """The record of one prompt; None if it has no outcome yet."""
        with _explained(self.path):
            query = "SELECT record FROM records WHERE prompt_id = ?"
            found = self._db.execute(query, (prompt_id,)).fetchone()
        return CoTRecord.model_validate_json(found[0]) if found else None

    def close(self) -> None:
        """Waits for what is being written, then closes the file. May be called twice."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        self._db.close()


class _Write:
    """A row on its way to disk, and who waits for it."""

    def __init__(self, row: tuple[Any, ...], future: asyncio.Future[None]) -> None:
        self.row = row
        self._future = future
        self._loop = future.get_loop()

    def settle(self, error: BaseException | None) -> None:
        def tell() -> None:
            if self._future.done():  # whoever waited was cancelled; the row is kept all the same
                return
            if error is None:
                self._future.set_result(None)
            else:
                self._future.set_exception(error)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(tell)


class _explained:  # noqa: N801 - reads as the verb it is
    """Turns SQLite's errors into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise JournalError(
                f"The journal {self._path} cannot be written: {text}.",
                "Make room on the disk, then start the same command again: "
                "what is in the journal stays done.",
            ) from error
        if isinstance(error, sqlite3.DatabaseError) and (
            "malformed" in text or "not a database" in text or "no such table" in text
        ):
            raise JournalError(
                f"The journal {self._path} is damaged ({text}).",
                "Nothing was changed; restore it from a copy, or name another folder with --out.",
            ) from error
        raise JournalError(
            f"The journal {self._path} cannot be used ({text}).",
            "Check that the folder may be written and that no other process holds the file.",
        ) from error
