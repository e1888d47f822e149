"""Prompts on their way into the journal: read in a thread, kept on disk, handed out in order.

The journal, not the memory, knows which prompts there are: a million of them take no more room than
a thousand, and a source that was read once need not be read again. Chats begin while it is read.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestration.journal import Journal
from orchestration.journal.schema import Waiting, checksum
from orchestration.prompts import LEFT_OUT_SHOWN, LeftOut, Prompt, PromptReader
from policies import InputError

_BATCH = 1_000  # prompts a transaction: some milliseconds, in which no reply can be committed
_AHEAD = 5_000  # prompts that are read and not written yet
_FETCH = 256
_BREATH, _PAUSE = 16, 0.002  # rows at a time, and seconds in between, once far ahead of the chats


@dataclass(frozen=True)
class Source:
    """Where prompts come from."""

    name: str
    """A file, `-`, a Hugging Face data set; or whatever tells one source from another."""
    column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    """How many prompts are taken at most."""
    mark: str | None = None
    """What changes with the source, where it is no file."""

    @property
    def spec(self) -> str:
        """Everything that decides which prompts it gives, as the journal keeps it."""
        return json.dumps([self.name, self.column, self.id_column, self.limit])

    @property
    def fingerprint(self) -> str | None:
        """Changes with the source; None where nobody can tell."""
        if self.mark is not None:
            return self.mark
        try:
            stat = Path(self.name).stat()
        except (OSError, ValueError):
            return None
        return f"{stat.st_size}:{stat.st_mtime_ns}"


@dataclass
class Counts:
    """What a source was found to hold."""

    taken: int = 0
    """Prompts."""
    duplicates: int = 0
    """Rows left out because an earlier row has the same text."""
    empty: int = 0
    """Rows left out because their prompt was empty."""
    left_out: list[LeftOut] = field(default_factory=list)
    """The first few of the rows left out."""

    def dump(self) -> str:
        """As the journal keeps it."""
        return json.dumps([self.taken, self.duplicates, self.empty, self.left_out])

    @classmethod
    def load(cls, text: str) -> Counts:
        """What `dump` dumped."""
        taken, duplicates, empty, left_out = json.loads(text)
        return cls(taken, duplicates, empty, [LeftOut(*row) for row in left_out])


class Intake:
    """Reads a source into the journal, and hands out its prompts that have no outcome yet.

    Args:
        journal: Open for writing.
        source: Where the prompts come from; None reads nothing, and goes on with the last one.
        prompts: The prompts themselves.
        folder: The run, for messages.
    """

    def __init__(
        self,
        journal: Journal,
        source: Source | None,
        prompts: Iterator[Prompt],
        folder: Path,
    ) -> None:
        self._journal = journal
        self._prompts = prompts
        self._folder = folder
        self._limit = source.limit if source else None
        self._fingerprint = source.fingerprint if source else None
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._room = threading.Condition()
        self._read: deque[Prompt] = deque()  # and not written yet
        self._writing = False
        self._finished = False  # and the journal knows that
        self._ended = False  # the source has been read to its end, or as far as it could be
        self._closed = False
        self._problem: Exception | None = None  # what ended it, to be told once all before is kept
        self._error: Exception | None = None
        self._fetched: deque[Waiting] = deque()
        self._after = -1
        # Prompts that an earlier source named and that wait: their numbers are lower than those of
        # new ones that may have been handed out before they were read.
        self._adopting: list[int] = []  # not committed yet
        self._adopted: deque[int] = deque()
        self._handed_out = 0
        self._awaited = False  # somebody waits until all is read
        self.counts = Counts()
        """Complete once `complete` is set."""
        self.fresh = 0
        """Prompts that were read in this session and have no outcome."""
        self.complete = False
        """Whether all prompts of the source are in the journal."""
        self._source, known = journal.write_from_thread(
            lambda db: _register(db, source.spec if source else None, self._fingerprint)
        )
        self.known = known is not None
        """Whether all prompts of the source were in the journal before."""
        self.of_run = source is None
        """Whether its counts are those of the run as a whole."""
        if self.of_run:
            self.counts, self.complete = Counts(journal.count_prompts()), True
        elif known is not None:
            self.counts, self.complete = known, True
        else:
            self._number = journal.write_from_thread(_next_number)
            self._after = self._number - 1
            threading.Thread(target=self._read_all, name="prompts", daemon=True).start()

    @property
    def number(self) -> int:
        """The journal's number of the source."""
        return self._source

    async def next(self) -> Waiting | None:
        """The next prompt without an outcome; None once there is no further one.

        Raises:
            InputError: The source is broken further on.
        """
        while not self._fetched:
            if self._closed:
                return None
            complete = self.complete  # asked before looking: what comes in between is not missed
            if self._error is not None:
                raise self._error
            self._news.clear()
            while self._adopted and len(self._fetched) < _FETCH:
                self._fetched.append(self._journal.prompt(self._adopted.popleft())[0])
            if self._fetched:
                continue
            self._fetched.extend(self._journal.waiting(self._source, self._after, _FETCH))
            if self._fetched:
                self._after = self._fetched[-1].number
            elif complete:
                return None
            else:
                await self._news.wait()
        self._handed_out += 1
        return self._fetched.popleft()

    async def all_read(self) -> None:
        """Returns once all prompts are in the journal, or no more are to be read.

        Raises:
            InputError: The source is broken.
        """
        self._awaited = True
        while not (self.complete or self._closed):
            if self._error is not None:
                raise self._error
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Reads no further."""
        with self._room:
            self._closed = True
            self._room.notify_all()
        self._news.set()

    # In the reader's thread

    def _read_all(self) -> None:
        try:
            for place, prompt in enumerate(self._prompts):
                if place % _BREATH == 0 and self._is_ahead():
                    time.sleep(_PAUSE)
                with self._room:
                    while len(self._read) >= _AHEAD and not (self._ended or self._closed):
                        self._room.wait()
                    if self._ended or self._closed:
                        return
                    self._read.append(prompt)
                    self._write_on()
            problem: Exception | None = None
        except Exception as error:  # noqa: BLE001 - raised where prompts are asked for
            problem = error
        with self._room:
            if self._ended or self._closed:
                return
            self._problem = problem
            self._ended = True
            self._write_on()

    def _is_ahead(self) -> bool:
        # Two threads at work all the time would halve the speed of the chats.
        return not self._awaited and self.counts.taken - self._handed_out > _AHEAD

    def _write_on(self) -> None:
        """Has what was read written, unless that is under way; the room's lock is held."""
        if not self._writing:
            self._writing = True
            self._journal.submit(self._write, self._written)

    # In the writer's thread

    def _write(self, db: sqlite3.Connection) -> None:
        with self._room:
            batch = [self._read.popleft() for _ in range(min(_BATCH, len(self._read)))]
            self._room.notify_all()
        enough, clash = self._take(db, batch)
        with self._room:
            if enough:  # what was read beyond is left alone, and so is what is wrong with it
                self._ended, self._problem = True, clash
                self._read.clear()
                self._room.notify_all()
            self._finished = self._ended and not self._read and self._problem is None
        if self._finished:
            if isinstance(self._prompts, PromptReader):
                self.counts.empty = self._prompts.empty
                shown = sorted([*self.counts.left_out, *self._prompts.left_out])
                self.counts.left_out = shown[:LEFT_OUT_SHOWN]
            db.execute(
                "UPDATE sources SET complete = 1, fingerprint = ?, counts = ? WHERE source = ?",
                (self._fingerprint, self.counts.dump(), self._source),
            )

    def _take(self, db: sqlite3.Connection, batch: list[Prompt]) -> tuple[bool, InputError | None]:
        """Writes prompts; says whether there are to be no more, and what is wrong with the last."""
        counts = self.counts
        for prompt in batch:
            if self._limit is not None and counts.taken >= self._limit:
                return True, None
            metadata = json.dumps(prompt.metadata, ensure_ascii=False) if prompt.metadata else "{}"
            told = (prompt.id, prompt.digest, prompt.text, metadata)
            row = (self._number, *told, checksum(self._number, *told), self._source)
            try:
                found = db.execute(_INSERT, row).fetchone()
            except sqlite3.IntegrityError:
                return True, self._clash(db, prompt)
            if found is None:
                counts.duplicates += 1
                if len(counts.left_out) < LEFT_OUT_SHOWN:
                    counts.left_out.append(LeftOut(prompt.row, "same text as an earlier prompt"))
                continue
            counts.taken += 1
            self.fresh += found[1]
            if found[0] == self._number:
                self._number += 1
            elif found[1]:
                self._adopting.append(found[0])
        return self._limit is not None and counts.taken >= self._limit, None

    def _clash(self, db: sqlite3.Connection, prompt: Prompt) -> InputError:
        found = db.execute("SELECT source FROM prompts WHERE id = ?", (prompt.id,)).fetchone()
        if found and found[0] != self._source:
            return InputError(
                f"The prompt '{prompt.id}' has another text than in the run in {self._folder}.",
                "Give the new text a new id, or name another folder with --out.",
            )
        what = f"the id '{prompt.id}' is that of another prompt too"
        remedy = "Make the ids unique, or name another column with --id-column."
        if isinstance(self._prompts, PromptReader):
            return self._prompts.place.error(prompt.row, what, remedy)
        return InputError(f"{what[0].upper()}{what[1:]}.", remedy)

    def _written(self, error: Exception | None) -> None:
        with self._room:
            self._writing = False
            self._adopted.extend(self._adopting)
            self._adopting.clear()
            if error is not None:
                self._error, self._ended = error, True
                self._room.notify_all()
            elif self._finished:
                self.complete = True
            elif self._ended and not self._read and self._problem is not None:
                self._error = self._problem
            elif self._ended or self._read:
                self._write_on()
        self._tell()

    def _tell(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._news.set)


_INSERT = (
    "INSERT INTO prompts (number, id, digest, text, metadata, checksum, source, tries)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, 0)"
    # A prompt that an earlier source named is this one's too; one that this source named before is
    # a duplicate, and gives no row back.
    " ON CONFLICT (digest) DO UPDATE SET source = excluded.source"
    " WHERE source <> excluded.source RETURNING number, outcome IS NULL"
)


def _register(
    db: sqlite3.Connection, spec: str | None, fingerprint: str | None
) -> tuple[int, Counts | None]:
    """The number of a source; with its counts if it need not be read again."""
    # Only the last one: a later source may have made some of an earlier one's prompts its own.
    found = db.execute("SELECT * FROM sources ORDER BY source DESC LIMIT 1").fetchone()
    unchanged = fingerprint is not None and found and found[1:4] == (spec, fingerprint, 1)
    if found and (spec is None or unchanged):
        return found[0], Counts.load(found[4])
    cursor = db.execute(
        "INSERT INTO sources (spec, fingerprint, complete, counts) VALUES (?, ?, 0, ?)",
        (spec or "", fingerprint, Counts().dump()),
    )
    assert cursor.lastrowid is not None  # noqa: S101 - it was an INSERT
    return cursor.lastrowid, None


def _next_number(db: sqlite3.Connection) -> int:
    found: Any = db.execute("SELECT max(number) FROM prompts").fetchone()[0]
    return 0 if found is None else int(found) + 1
