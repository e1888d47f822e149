"""`Journal`: what a run has stored.

One process writes; its writes go through one thread, which commits all pending ones together: a
reply counts as received only once its transaction is committed to disk. Readers (`show`, `status`,
`export`) may open the same file at the same time, since it is in WAL mode.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from orchestration.journal.checks import (
    Known,
    Place,
    check_files,
    check_identity,
    check_outcomes,
    check_rows,
    connect,
    create,
    log_of,
    size_of,
)
from orchestration.journal.errors import DamageError, JournalError, explained
from orchestration.journal.lock import is_locked, lock
from orchestration.journal.schema import (
    COLUMNS,
    ModelSpend,
    PendingPrompt,
    chat_of,
    check_version,
    verify,
)
from orchestration.journal.transaction import Change
from orchestration.journal.writer import Writer

T = TypeVar("T")
_CACHE_KIB = 3_072  # of the writer; SQLite's default is 2 MiB
_PROMPT_COLUMNS = len(COLUMNS["prompts"]) + 1
_PROGRESS_COLUMNS = len(COLUMNS["progress"]) + 1
_UNKNOWN = Known()
_PAGE = 256  # rows read at a time; a fourth of them if they are results


class Journal:
    """A run's journal, open for reading, or for reading and writing.

    Args:
        path: The SQLite file; created if it does not exist and `write` is set.
        write: Whether to write too. One process at a time may.
        known: What other files say of it.
        locking: Whether to refuse to write where the file system has no locks.

    Raises:
        JournalError: There is no such file, it is damaged, incomplete, of another run or another
            version, or another process writes to it.
    """

    def __init__(
        self, path: Path, write: bool = False, known: Known = _UNKNOWN, locking: bool = True
    ) -> None:
        self.path = path
        self._file = path.resolve()  # SQLite puts its log beside the file that a link names
        if not write and not path.is_file():
            raise JournalError(
                f"There is no run in {path.parent}.", "Name the folder that `aidsafe run` created."
            )
        self._writer: Writer | None = None
        with ExitStack() as opened:
            held = lock(path.parent, locking) if write else None
            if held is not None:
                opened.callback(held.release)
            with explained(path):
                if write and not size_of(self._file) and not size_of(log_of(self._file)):
                    if known.run is not None:
                        raise DamageError("it is missing or empty")
                    create(self._file)
                check_files(self._file, write)
                self._db = self._connect_to_read()
                opened.callback(self._close)
                check_version(path, self._db)
                self._check(known, alone=write)
                check_outcomes(self._db, known)
                if write:
                    self._db.close()
                    self._db = self._connect_to_write()
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    own = self._connect_to_write()
                    own.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                    place = self._place = Place(self._file)
                    self._writer = Writer(path, own, place.check)
                    opened.callback(self._writer.close)
            self._opened = opened.pop_all()

    def _close(self) -> None:
        self._db.close()

    def _check(self, known: Known, alone: bool) -> None:
        """Checks all that can be wrong with the files as a whole.

        Args:
            known: What other files say of it.
            alone: Whether it is known that no other process writes.
        """
        if not (alone or is_locked(self.path.parent) is False):
            check_identity(self._file, self._db, known, alone=False)
            return
        try:
            check_identity(self._file, self._db, known, alone=True)
            if alone or size_of(log_of(self._file)):  # a read alone can do no harm
                check_rows(self._db)
        except (JournalError, DamageError, sqlite3.DatabaseError):
            # A process that began to write meanwhile has checked it, and changes it.
            if alone or is_locked(self.path.parent) is False:
                raise

    def _connect_to_write(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        # Pages that become free hold no old rows, which a salvage could take for current ones.
        db.execute("PRAGMA secure_delete = ON")
        return db

    def _connect_to_read(self) -> sqlite3.Connection:
        log = log_of(self._file)
        # Where there is no log, only a connection that may write removes in the end the files that
        # SQLite creates beside the journal. Where there is one, such a connection would replay it.
        is_closed = not log.exists() and not log.with_name(f"{self._file.name}-shm").exists()
        db = connect(self._file, "rw" if is_closed else "ro")
        try:
            db.execute("SELECT 1 FROM meta").fetchone()
        except sqlite3.Error as error:
            db.close()
            if not isinstance(error, sqlite3.OperationalError):
                raise
            # In a read-only folder SQLite cannot create them. No other process writes there either,
            # and the file can be read as it is.
            if os.access(self._file.parent, os.W_OK):
                raise
            if size_of(log):
                raise JournalError(
                    f"The journal {self.path} was not closed, and its folder is read-only.",
                    "Copy the folder to a writable place, and name that.",
                ) from None
            db = connect(self._file, "immutable=1")
        return db

    def is_in_place(self) -> bool:
        """Whether the files at its path are still those that this process writes to."""
        try:
            self._place.check()
        except JournalError:
            return False
        return True

    # Writing

    def submit(self, change: Change[T]) -> Future[T]:
        """Queues a change, and returns at once. See `Writer.submit`."""
        if self._writer is None:
            raise ValueError("the journal is not open for writing")
        return self._writer.submit(change)

    async def write(self, change: Change[T]) -> T:
        """Applies a change; returns its result once it is on disk.

        Cancelling the caller does not stop it.

        Raises:
            JournalError: It could not be written, for example because the disk is full.
            Exception: Whatever the change raised; it is rolled back.
        """
        return await asyncio.wrap_future(self.submit(change))

    # Reading: the run as a whole

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with explained(self.path):
            return self._db.execute(query, values).fetchall()

    def _rows(self, table: str, source: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows of a table, without their checksums, which are verified.

        Args:
            table: The table.
            source: What follows `FROM`; the table may be joined with others there.
            values: The values of its parameters.
        """
        query = f"SELECT {table}.* FROM {source}"  # noqa: S608 - no user's text in it
        for row in self._all(query, *values):
            with explained(self.path):
                verify(table, row)
            yield row[:-1]

    def meta(self, key: str) -> str | None:
        """A property of the run; None if it was never set."""
        return next((value for _, value in self._rows("meta", "meta WHERE key = ?", key)), None)

    def outcomes(self) -> Counter[str]:
        """How many prompts ended in each outcome."""
        query = "SELECT outcome, count(*) FROM progress WHERE outcome IS NOT NULL GROUP BY 1"
        return Counter(dict(self._all(query)))

    def endings(self) -> Counter[str]:
        """How the chats of the completed prompts ended."""
        query = "SELECT ending, count(*) FROM progress WHERE outcome = 'completed' GROUP BY 1"
        return Counter(dict(self._all(query)))

    def spend(self) -> list[ModelSpend]:
        """What the run has spent so far, in all its sessions."""
        return [ModelSpend(*row) for row in self._rows("spend", "spend ORDER BY model, price")]

    # Reading: prompts

    def pending(self, source: int | None, after: int, limit: int) -> list[PendingPrompt]:
        """The next prompts that have no outcome.

        Args:
            source: Number of their source; None for those of any source that are to be retried.
            after: Only prompts with a higher number.
            limit: Maximum number of prompts.
        """
        which, value = ("tries > ?", 0) if source is None else ("source = ?", source)
        where = f"outcome IS NULL AND {which} AND progress.number > ?"
        found = self._prompts(where, value, after, page=min(limit, _PAGE))
        return [prompt for prompt, _ in islice(found, limit)]

    def prompts(self) -> Iterator[tuple[PendingPrompt, str | None]]:
        """All prompts in their order, with their outcomes."""
        return self._prompts("1")

    def completed(self) -> Iterator[PendingPrompt]:
        """The prompts with a completed result, in their order."""
        # The plus keeps SQLite from using the index on outcomes, and from sorting all prompts.
        return (prompt for prompt, _ in self._prompts("+outcome = 'completed'"))

    def prompt(self, number: int) -> tuple[PendingPrompt, str | None]:
        """A prompt by its number, with its outcome."""
        return next(self._prompts("number = ?", number))

    def _prompts(
        self, where: str, *values: int, page: int = _PAGE
    ) -> Iterator[tuple[PendingPrompt, str | None]]:
        for progress, prompt in self._pages("prompts", where, values, page):
            number, prompt_id, digest, text, metadata, _ = prompt
            _, _, outcome, _, tries, _ = progress
            with explained(self.path):
                data, chat = json.loads(metadata), chat_of(digest)
            yield PendingPrompt(number, prompt_id, text, data, tries, chat), outcome

    def _pages(
        self, table: str, where: str, values: Sequence[object], page: int
    ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        """Rows of `progress` in their order, with those of the same numbers of another table.

        They are read in pages: SQLite cannot shorten the write-ahead log during a read, and whoever
        asks for the rows may wait for hours between two of them.
        """
        after = -1
        while True:
            query = (
                f"SELECT progress.*, {table}.* FROM progress LEFT JOIN {table} USING (number)"  # noqa: S608
                f" WHERE ({where}) AND progress.number > {after:d}"
                f" ORDER BY progress.number LIMIT {page:d}"
            )
            found = self._all(query, *values)
            for row in found:
                progress, other = row[:_PROGRESS_COLUMNS], row[_PROGRESS_COLUMNS:]
                with explained(self.path):
                    verify("progress", progress)
                    if other[0] is None:
                        raise DamageError(f"a row of {table} is missing")
                    verify(table, other)
                yield progress, other
            if len(found) < page:
                return
            after = found[-1][0]

    def numbers(self, source: int) -> Sequence[int]:
        """The numbers of all prompts of a source, in order; 8 bytes each."""
        query = "SELECT number FROM progress WHERE source = ? ORDER BY number"
        with explained(self.path):
            return array("q", (number for (number,) in self._db.execute(query, (source,))))

    def completed_fingerprint(self) -> str:
        """Changes when prompts are completed or reopened."""
        query = (
            "SELECT count(*), total(number), total(number * number) FROM progress"
            " WHERE outcome = 'completed'"
        )
        return str(self._all(query)[0])

    def count_pending(self, source: int | None = None) -> int:
        """How many prompts of a source, or of all, have no outcome."""
        query = (
            "SELECT count(*) FROM progress WHERE outcome IS NULL AND (?1 IS NULL OR source = ?1)"
        )
        return int(self._all(query, source)[0][0])

    def count_prompts(self) -> int:
        """How many prompts the run has."""
        return int(self._all("SELECT count(*) FROM progress")[0][0])

    # Reading: replies and results

    def replies(self, chat: int) -> Iterator[tuple[bytes, str]]:
        """The stored replies of a chat that may be used, with the keys of their requests.

        Args:
            chat: `chat_of` the prompt.
        """
        for _, _, key, void, *_, reply in self._rows("calls", "calls WHERE chat = ?", chat):
            if not void:
                yield key, reply

    def results(self, outcome: str | None = None) -> Iterator[tuple[int, str]]:
        """Results in the order of their prompts, with the prompts' numbers.

        Args:
            outcome: Only those of this outcome; all if left out.
        """
        return self._results("?1 IS NULL OR outcome = ?1", outcome)

    def result(self, number: int) -> str | None:
        """The result of a prompt, by its number; None if it has no outcome."""
        return next((text for _, text in self._results("number = ?", number)), None)

    def completed_result(self, digest: bytes) -> str | None:
        """The result of a completed prompt, by the digest of its text."""
        where = "outcome = 'completed' AND number = (SELECT number FROM prompts WHERE digest = ?)"
        return next((text for _, text in self._results(where, digest)), None)

    def find_results(self, start: str, limit: int) -> list[str]:
        """The result of that id; if there is none, those whose ids start with it."""
        where = "number IN (SELECT number FROM prompts WHERE {})"
        exact = [text for _, text in self._results(where.format("id = ?"), start)]
        if exact or not start:
            return exact
        # Not LIKE, which treats % and _ as wildcards.
        end = start[:-1] + chr(ord(start[-1]) + 1) if ord(start[-1]) < 0x10FFFF else None
        within = where.format("id >= ?1 AND (?2 IS NULL OR id < ?2)")
        found = self._results(within, start, end)
        return [text for (_, text), _ in zip(found, range(limit), strict=False)]

    def _results(self, where: str, *values: object) -> Iterator[tuple[int, str]]:
        # A prompt that was reopened has no outcome, and its old result does not count: it may have
        # been made under other policies.
        found = self._pages("results", f"outcome IS NOT NULL AND ({where})", values, _PAGE // 4)
        return ((number, result) for _, (number, result, *_) in found)

    # Reading: what else a kind of run stored

    def notes(self, topic: str, scope: str) -> Iterator[str]:
        """Notes in their order.

        Args:
            topic: What they are about.
            scope: Under which settings they were made.
        """
        return self._notes("topic = ? AND scope = ?", topic, scope)

    def note_of(self, topic: str, scope: str, number: int) -> str | None:
        """The note of a prompt; None if there is none."""
        where = "topic = ? AND scope = ? AND number = ?"
        return next(self._notes(where, topic, scope, number), None)

    def _notes(self, where: str, *values: object) -> Iterator[str]:
        after = 0
        while True:  # in pages; see `_pages`
            source = f"notes WHERE {where} AND note > {after:d} ORDER BY note LIMIT {_PAGE:d}"
            found = list(self._rows("notes", source, *values))
            yield from (data for *_, data in found)
            if len(found) < _PAGE:
                return
            after = found[-1][1]

    def numbers_in(self, buckets: Sequence[int], newest: int) -> list[int]:
        """Numbers of the results in some buckets of the index, each as often as it is in one.

        Args:
            buckets: The buckets.
            newest: Maximum number of results of each bucket, the newest first.
        """
        # In one query, which takes a third of the time of one for each bucket.
        each = "SELECT number FROM buckets WHERE bucket = ? ORDER BY number DESC LIMIT ?"
        query = " UNION ALL ".join([f"SELECT * FROM ({each})"] * len(buckets))  # noqa: S608
        values = [value for bucket in buckets for value in (bucket, newest)]
        return [number for (number,) in self._all(query, *values)] if buckets else []

    def unindexed(self) -> Iterator[tuple[int, str]]:
        """Numbers and endings of the completed results that are in no bucket of the index."""
        query = (
            "SELECT number, ending FROM progress WHERE outcome = 'completed'"
            " AND number NOT IN (SELECT number FROM buckets)"
        )
        yield from self._all(query)

    def close(self) -> None:
        """Waits for what is being written, then closes the file. May be called twice."""
        self._writer = None
        self._opened.close()
