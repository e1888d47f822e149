"""The journal: the SQLite file in which a run keeps what it has.

One process writes; its writes go through one thread, which commits all that are waiting together:
a record counts as kept only once its transaction is committed to disk. Readers (`show`, `export`)
may open the same file meanwhile, since it is in WAL mode.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from orchestration.record import CoTRecord
from policies import AidsafeError, ExitCode

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

    exit_code = ExitCode.JOURNAL


class Kept(NamedTuple):
    """What the journal has of a prompt, in short."""

    outcome: str
    prompt: str
    number: int


class Journal:
    """A run's journal, open for reading, or for reading and writing.

    Args:
        path: The SQLite file; made if it is not there and `write` is set.
        write: Whether to write too. One process at a time may.
        prepare: Called once it is certain that no other process writes, before anything is made.

    Raises:
        JournalError: There is no such file, it is damaged, of another version, or another process
            writes to it.
    """

    def __init__(
        self, path: Path, write: bool = False, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self.path = path
        if not write and not path.is_file():
            raise JournalError(
                f"There is no run in {path.parent}.", "Name the folder that `aidsafe run` made."
            )
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._lock = _lock(path.parent) if write else None
        try:
            prepare()
            with _explained(path):
                self._db = self._connect_to_write() if write else self._connect_to_read()
                if write:
                    self._make()
                self._check_version()
                if write:
                    # Of its own: on the reader's connection, what is not committed yet would show.
                    own = self._connect_to_write()
                    self._writer = threading.Thread(
                        target=self._write_all, args=(own,), name="journal", daemon=True
                    )
                    self._writer.start()
        except BaseException:
            _unlock(self._lock)
            raise

    def _connect_to_write(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _connect_to_read(self) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        try:
            db.execute("PRAGMA busy_timeout = 10000")
            db.execute("SELECT 1 FROM meta").fetchone()
        except sqlite3.OperationalError:
            # WAL mode wants to make files beside the journal. Where the folder may not be written,
            # nobody else writes either, and the file can be read as it lies there.
            if os.access(self.path.parent, os.W_OK):
                raise
            db.close()
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise JournalError(
                    f"The journal {self.path} was not closed, and its folder may not be written.",
                    "Copy the folder to a place that can be written, and name that.",
                ) from None
            db = sqlite3.connect(
                f"{uri}&immutable=1", uri=True, check_same_thread=False, isolation_level=None
            )
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

    async def add(self, number: int, record: CoTRecord, replace: bool = False) -> None:
        """Keeps a finished prompt's record; returns once it is on disk.

        Args:
            number: Place of the prompt among those handed out.
            record: The record, of any outcome.
            replace: Whether it takes the place of an earlier record of the same prompt.

        Raises:
            JournalError: It could not be written, for want of space for example; or there is a
                record of this prompt already, and `replace` is not set.
        """
        if self._writer is None:
            raise ValueError("the journal is not open for writing")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        row = (
            record.id,
            number,
            record.outcome,
            record.stop_reason,
            record.rounds,
            record.model_dump_json(),
        )
        self._queue.put(_Write(row, replace, future))
        await future

    def _write_all(self, db: sqlite3.Connection) -> None:
        """The writer thread: one transaction for all that has come in meanwhile."""
        last = False
        while not last:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            writes = [write for write in batch if write is not None]
            last = len(writes) < len(batch)
            errors: dict[int, Exception] = {}
            try:
                with _explained(self.path):
                    self._commit(db, writes, errors)
            except Exception as error:  # noqa: BLE001 - handed to those who wait for it
                errors = dict.fromkeys(range(len(writes)), error)
            for place, write in enumerate(writes):
                write.settle(errors.get(place))
        db.close()

    def _commit(
        self, db: sqlite3.Connection, writes: list[_Write], errors: dict[int, Exception]
    ) -> None:
        db.execute("BEGIN IMMEDIATE")
        try:
            for place, write in enumerate(writes):
                verb = "REPLACE" if write.replace else "INSERT"
                try:
                    db.execute(f"{verb} INTO records VALUES (?, ?, ?, ?, ?, ?)", write.row)
                except sqlite3.IntegrityError:
                    errors[place] = JournalError(
                        f"The journal {self.path} has a record of prompt '{write.row[0]}' already.",
                        "Give every prompt an id of its own.",
                    )
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def outcomes(self) -> Counter[str]:
        """How many prompts ended in each outcome."""
        with _explained(self.path):
            rows = self._db.execute("SELECT outcome, count(*) FROM records GROUP BY outcome")
            return Counter(dict(rows.fetchall()))

    def next_number(self) -> int:
        """The number after those of all records; 0 if there is none."""
        with _explained(self.path):
            found = self._db.execute("SELECT max(number) FROM records").fetchone()[0]
            return 0 if found is None else int(found) + 1

    def kept(self, prompt_id: str) -> Kept | None:
        """Outcome, text and number of a prompt; None if it has no outcome yet."""
        with _explained(self.path):
            query = "SELECT outcome, json_extract(record, '$.prompt'), number FROM records WHERE "
            found = self._db.execute(query + "prompt_id = ?", (prompt_id,)).fetchone()
            return Kept(*found) if found else None

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
        _unlock(self._lock)
        self._lock = None


class _Write:
    """A row on its way to disk, and who waits for it."""

    def __init__(self, row: tuple[Any, ...], replace: bool, future: asyncio.Future[None]) -> None:
        self.row = row
        self.replace = replace
        self._future = future
        self._loop = future.get_loop()

    def settle(self, error: Exception | None) -> None:
        def tell() -> None:
            if self._future.done():  # whoever waited was cancelled; the row is kept all the same
                return
            if error is None:
                self._future.set_result(None)
            else:
                self._future.set_exception(error)

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(tell)


def _lock(folder: Path) -> int | None:
    """Keeps other processes from writing to the same run: they would pay for every reply again."""
    try:
        import fcntl
    except ImportError:  # Windows: without it, the user has to see to that
        return None
    handle: int | None = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _unlock(handle)
        raise JournalError(
            f"Another process is writing to the run in {folder}.",
            "Wait until it has ended, or stop it.",
        ) from None
    except OSError:  # a file system without locks, or no such folder, which SQLite will say
        _unlock(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)


class _explained:  # noqa: N801 - reads as the verb it is
    """Turns the errors of SQLite, and of records that are none, into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, sqlite3.Error | ValidationError):
            return
        text = "a record is malformed" if isinstance(error, ValidationError) else str(error)
        if "full" in text or "disk I/O" in text:
            raise JournalError(
                f"The journal {self._path} cannot be written: {text}.",
                "Make room on the disk, then start the same command again: "
                "what is in the journal stays done.",
            ) from error
        if any(sign in text for sign in ("malformed", "not a database", "no such table")):
            raise JournalError(
                f"The journal {self._path} is damaged ({text}).",
                "Nothing was changed; restore it from a copy, or name another folder with --out.",
            ) from error
        raise JournalError(
            f"The journal {self._path} cannot be used ({text}).",
            "Check that the folder may be written and that no other process holds the file.",
        ) from error
