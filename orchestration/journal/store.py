"""`Journal`: what a run has, on disk.

One process writes; its writes go through one thread, which commits all that are waiting together:
a reply counts as received only once its transaction is committed to disk. Readers (`show`,
`status`, `export`) may open the same file meanwhile, since it is in WAL mode.
"""

from __future__ import annotations

import json
import os
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from agents.models.model import Answer
from agents.turns import Usage
from orchestration.journal.errors import JournalError, explained
from orchestration.journal.lock import lock, unlock
from orchestration.journal.schema import (
    SCHEMA,
    SCHEMA_VERSION,
    Spent,
    Waiting,
    chat_of,
    checked,
    checksum,
    dump_answer,
    load_answer,
)
from orchestration.journal.writer import Change, Writer
from orchestration.prompts import Prompt
from orchestration.record import CoTRecord, Kept

T = TypeVar("T")
RecordT = TypeVar("RecordT", bound=BaseModel)
_CACHE_KIB = 3_072  # of the writer; SQLite takes 2 MiB if not told


class Journal:
    """A run's journal, open for reading, or for reading and writing.

    Args:
        path: The SQLite file; made if it is not there and `write` is set.
        write: Whether to write too. One process at a time may.

    Raises:
        JournalError: There is no such file, it is damaged, of another version, or another process
            writes to it.
    """

    def __init__(self, path: Path, write: bool = False) -> None:
        self.path = path
        if not write and not path.is_file():
            raise JournalError(
                f"There is no run in {path.parent}.", "Name the folder that `aidsafe run` made."
            )
        self._writer: Writer | None = None
        self._lock = lock(path.parent) if write else None
        try:
            with explained(path):
                self._db = self._connect_to_write() if write else self._connect_to_read()
                if write:
                    self._make()
                self._check_version()
                if write:
                    own = self._connect_to_write()
                    own.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
                    self._writer = Writer(path, own)
        except BaseException:
            unlock(self._lock)
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
            self._db.executescript(f"BEGIN; {SCHEMA} COMMIT;")

    def _check_version(self) -> None:
        found = self.meta("schema")
        if found != str(SCHEMA_VERSION):
            raise JournalError(
                f"The journal {self.path} has schema version {found}, "
                f"and this aidsafe reads version {SCHEMA_VERSION}.",
                "Open it with the version of aidsafe that made it.",
            )

    # Writing

    async def write(self, change: Change[T]) -> T:
        """Makes a change; returns once it is on disk. See `Writer.write`."""
        return await self._own_writer().write(change)

    def write_from_thread(self, change: Change[T]) -> T:
        """Same, for other threads than the event loop's; blocks."""
        return self._own_writer().write_from_thread(change)

    def submit(self, change: Change[Any], tell: Callable[[Exception | None], None]) -> None:
        """Makes a change without waiting for it. See `Writer.submit`."""
        self._own_writer().submit(change, tell)

    def _own_writer(self) -> Writer:
        if self._writer is None:
            raise ValueError("the journal is not open for writing")
        return self._writer

    async def keep_call(
        self, prompt: int, key: bytes, model: str, price: str, answer: Answer
    ) -> None:
        """Keeps a model's reply; returns once it is on disk.

        Args:
            prompt: `chat_of` the prompt.
            key: Hash of everything that shaped the reply.
            model: Name of the model.
            price: What the model's tokens cost, as JSON; empty if that is not known.
            answer: The reply.

        Raises:
            JournalError: It could not be written, for want of space for example.
        """
        text = dump_answer(answer)
        row = (prompt, key, model, text, checksum(prompt, key, model, text))
        usage = answer.usage
        tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)

        def change(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT INTO calls (prompt, key, void, model, answer, checksum)"
                " VALUES (?, ?, 0, ?, ?, ?)",
                row,
            )
            db.execute(
                "INSERT INTO spend VALUES (?, ?, 1, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " calls = calls + 1,"
                " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
                " completion_tokens = completion_tokens + excluded.completion_tokens,"
                " cached_tokens = cached_tokens + excluded.cached_tokens",
                (model, price, *tokens),
            )

        await self.write(change)

    async def keep_record(
        self, number: int, record: Kept, also: Change[None] | None = None
    ) -> None:
        """Keeps a prompt's record, which is its outcome; returns once it is on disk.

        Args:
            number: Number of the prompt.
            record: The record, of any outcome; takes the place of an earlier one.
            also: A change that is to be committed with it, or not at all.
        """
        text = record.model_dump_json()
        row = (number, text, checksum(number, text))
        outcome = (record.outcome, record.reason, record.ways, number)

        def change(db: sqlite3.Connection) -> None:
            db.execute("REPLACE INTO records VALUES (?, ?, ?)", row)
            db.execute(
                "UPDATE prompts SET outcome = ?, stop_reason = ?, rounds = ? WHERE number = ?",
                outcome,
            )
            if also is not None:
                also(db)

        await self.write(change)

    # Reading

    def meta(self, key: str) -> str | None:
        """A fact about the journal as a whole."""
        with explained(self.path):
            found = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])

    def outcomes(self) -> Counter[str]:
        """How many prompts ended in each outcome."""
        return self._count("outcome", "outcome IS NOT NULL")

    def reasons(self) -> Counter[str]:
        """Why the chats of the completed records stopped; or what became of the pairs."""
        return self._count("stop_reason", "outcome = 'completed'")

    def ways_to(self, reason: str) -> Counter[int]:
        """After how many rounds or attempts completed records ended that ended for this reason."""
        return self._count("rounds", "outcome = 'completed' AND stop_reason = ?", reason)

    def _count(self, column: str, where: str, *values: str) -> Counter[T]:
        query = f"SELECT {column}, count(*) FROM prompts WHERE {where} GROUP BY 1"  # noqa: S608
        with explained(self.path):
            return Counter(dict(self._db.execute(query, values).fetchall()))

    def waiting(self, source: int, after: int, limit: int) -> list[Waiting]:
        """The next prompts of a source that have no outcome.

        Args:
            source: Number of the source.
            after: Only prompts with a higher number.
            limit: So many at most.
        """
        return self._waiting("source = ? AND number > ?", (source, after), limit)

    def waiting_again(self, after: int, limit: int) -> list[Waiting]:
        """The next prompts, of any source, that were taken up again and have no outcome yet."""
        return self._waiting("tries > 0 AND number > ?", (after,), limit)

    def _waiting(self, where: str, values: tuple[int, ...], limit: int) -> list[Waiting]:
        query = (
            f"SELECT {_WAITING} FROM prompts"  # noqa: S608 - no user's text in it
            f" WHERE outcome IS NULL AND {where} ORDER BY number LIMIT ?"
        )
        with explained(self.path):
            return [_waiting(row) for row in self._db.execute(query, (*values, limit)).fetchall()]

    def prompts(self) -> Iterator[tuple[Waiting, str | None]]:
        """All prompts in their order, with their outcomes."""
        query = f"SELECT {_WAITING}, outcome FROM prompts ORDER BY number"  # noqa: S608
        with explained(self.path):
            for *row, outcome in self._db.execute(query):
                yield _waiting(row), outcome

    def prompt(self, number: int) -> tuple[Waiting, str | None]:
        """A prompt by its number, with its outcome."""
        query = f"SELECT {_WAITING}, outcome FROM prompts WHERE number = ?"  # noqa: S608
        with explained(self.path):
            *row, outcome = self._db.execute(query, (number,)).fetchone()
            return _waiting(row), outcome

    def numbers(self, source: int) -> Sequence[int]:
        """The numbers of all prompts of a source, in order; 8 bytes each."""
        query = "SELECT number FROM prompts WHERE source = ? ORDER BY number"
        with explained(self.path):
            return array("q", (number for (number,) in self._db.execute(query, (source,))))

    def record(self, number: int) -> CoTRecord | None:
        """The record of a prompt, by its number; None if it has no outcome."""
        return self.record_of(CoTRecord, number)

    def record_of(self, kind: type[RecordT], number: int) -> RecordT | None:
        """Same as `record`, for a run whose records are of another kind."""
        return next(self._records(kind, "p.number = ?", (number,)), None)

    def count_waiting(self, source: int | None = None) -> int:
        """How many prompts of a source, or of all, have no outcome."""
        query = "SELECT count(*) FROM prompts WHERE outcome IS NULL AND (? IS NULL OR source = ?)"
        with explained(self.path):
            return int(self._db.execute(query, (source, source)).fetchone()[0])

    def count_prompts(self) -> int:
        """How many prompts the run knows."""
        with explained(self.path):
            return int(self._db.execute("SELECT count(*) FROM prompts").fetchone()[0])

    def answers(self, prompt: int) -> dict[bytes, Answer]:
        """The replies that a chat has had, by the keys of their requests.

        Args:
            prompt: `chat_of` the prompt.
        """
        query = "SELECT key, model, answer, checksum FROM calls WHERE prompt = ? AND void = 0"
        with explained(self.path):
            answers: dict[bytes, Answer] = {}
            for key, model, text, found in self._db.execute(query, (prompt,)):
                checked(found, prompt, key, model, text)
                answers[key] = load_answer(text)
            return answers

    def spend(self) -> list[Spent]:
        """What the run has spent so far, in all its sessions."""
        with explained(self.path):
            return [
                Spent(
                    model,
                    price,
                    calls,
                    Usage(prompt_tokens=p, completion_tokens=c, cached_tokens=cached),
                )
                for model, price, calls, p, c, cached in self._db.execute("SELECT * FROM spend")
            ]

    def records(self, outcome: str | None = None) -> Iterator[CoTRecord]:
        """Records in the order of their prompts, one at a time.

        Args:
            outcome: Only those of this outcome; all if left out.
        """
        yield from self.records_of(CoTRecord, outcome)

    def records_of(self, kind: type[RecordT], outcome: str | None = None) -> Iterator[RecordT]:
        """Same as `records`, for a run whose records are of another kind."""
        yield from self._records(kind, "? IS NULL OR p.outcome = ?", (outcome, outcome))

    def about(self, digest: bytes) -> CoTRecord | None:
        """The completed record of the prompt with that digest; None if there is none."""
        found = self._records(CoTRecord, "p.digest = ? AND p.outcome = 'completed'", (digest,))
        return next(found, None)

    def find(self, kind: type[RecordT], start: str, limit: int) -> list[RecordT]:
        """The record of that id; or, if there is none, those whose ids start so."""
        exact = list(self._records(kind, "p.id = ?", (start,)))
        if exact or not start:
            return exact
        # Not LIKE, which takes a % or _ in an id for its own.
        end = start[:-1] + chr(ord(start[-1]) + 1) if ord(start[-1]) < 0x10FFFF else None
        bound = ("p.id >= ? AND p.id < ?", (start, end)) if end else ("p.id >= ?", (start,))
        found: list[RecordT] = []
        for record in self._records(kind, *bound):
            found.append(record)
            if len(found) == limit:
                break
        return found

    def _records(
        self, kind: type[RecordT], where: str, values: tuple[object, ...]
    ) -> Iterator[RecordT]:
        # A prompt that is taken up again has no outcome meanwhile, and its old record does not
        # count: it may have been made under other policies.
        query = (
            "SELECT r.number, r.record, r.checksum FROM prompts p"  # noqa: S608 - no user's text in it
            " JOIN records r USING (number)"
            f" WHERE p.outcome IS NOT NULL AND ({where}) ORDER BY p.number"
        )
        with explained(self.path):
            for number, text, found in self._db.execute(query, values):
                checked(found, number, text)
                yield kind.model_validate_json(text)

    def finished(self) -> Iterator[Prompt]:
        """The prompts whose record is completed, in their order."""
        query = f"SELECT {_WAITING} FROM prompts WHERE outcome = 'completed' ORDER BY number"  # noqa: S608
        with explained(self.path):
            for row in self._db.execute(query):
                waiting = _waiting(row)
                yield Prompt(waiting.id, waiting.text, waiting.metadata)

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """What a query gives, row by row, for whoever has tables of its own in the journal."""
        with explained(self.path):
            yield from self._db.execute(query, values)

    def close(self) -> None:
        """Waits for what is being written, then closes the file. May be called twice."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._db.close()
        unlock(self._lock)
        self._lock = None


_WAITING = "number, id, digest, text, metadata, checksum, tries"


def _waiting(row: Sequence[Any]) -> Waiting:
    number, prompt_id, digest, text, metadata, found, tries = row
    checked(found, number, prompt_id, digest, text, metadata)
    return Waiting(number, prompt_id, text, json.loads(metadata), tries, chat_of(digest))
