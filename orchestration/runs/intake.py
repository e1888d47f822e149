"""Reads prompts into the journal, and hands out those that have no outcome yet.

The journal, not memory, holds the prompts: a million take no more memory than a thousand, and a
source that was read to its end is not read again. Chats begin while it is read.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.journal import IdTakenError, Journal, PendingPrompt, Transaction
from orchestration.prompts.files import fingerprint
from orchestration.prompts.location import LeftOut
from orchestration.prompts.reader import LEFT_OUT_SHOWN, Prompt, PromptReader
from policies import InputError

_QUEUED = 1_000  # prompts in a transaction: some milliseconds, in which no reply can be committed
_AHEAD = 5_000  # prompts that the reader may be ahead of the chats
_FETCH = 256
_BURST, _PAUSE = 16, 0.002  # rows at a time, and seconds in between, when far ahead of the chats


@dataclass(frozen=True)
class Source:
    """Where prompts come from."""

    name: str
    """A file, folder or pattern, `-`, a Hugging Face data set; or any text that tells one source
    from another."""
    column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    """Maximum number of prompts."""
    mark: str | None = None
    """Changes with the source; for sources that are no files."""

    @property
    def spec(self) -> str:
        """Everything that decides which prompts it gives, as the journal stores it."""
        return json.dumps([self.name, self.column, self.id_column, self.limit])

    @property
    def fingerprint(self) -> str | None:
        """Changes with the source; None if unknown."""
        return fingerprint(self.name) if self.mark is None else self.mark


@dataclass
class Counts:
    """What a source holds."""

    taken: int = 0
    """Prompts."""
    duplicates: int = 0
    """Rows left out because an earlier row has the same text."""
    empty: int = 0
    """Rows left out because their prompt was empty."""
    left_out: list[LeftOut] = field(default_factory=list)
    """The first few of the rows left out."""

    def dump(self) -> str:
        """As the journal stores it."""
        return json.dumps([*vars(self).values()])

    @classmethod
    def load(cls, text: str) -> Counts:
        """What `dump` dumped."""
        taken, duplicates, empty, left_out = json.loads(text)
        return cls(taken, duplicates, empty, [LeftOut(*row) for row in left_out])


class Intake:
    """Reads a source into the journal, and hands out its prompts that have no outcome yet.

    A thread reads the rows, since a source may block. The journal's writer stores all that were
    read meanwhile in one transaction.

    Args:
        journal: Open for writing.
        source: Where the prompts come from; None reads nothing, and hands out the prompts of all
            sources that are to be retried.
        prompts: The prompts themselves.
        folder: The run, for messages.
    """

    def __init__(
        self, journal: Journal, source: Source | None, prompts: Iterator[Prompt], folder: Path
    ) -> None:
        self._journal = journal
        self._prompts = prompts
        self._folder = folder
        self._limit = source.limit if source else None
        self._fingerprint = source.fingerprint if source else None
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()  # there are new prompts, or an end
        self._rows: deque[Prompt | Exception | None] = deque()  # read, and not stored yet
        self._submitted = False  # they will be stored
        self._ended = False  # nothing more will be
        self._closed = False
        self._error: BaseException | None = None
        self._fetched: deque[PendingPrompt] = deque()
        self._after = -1
        # Pending prompts of earlier sources: their numbers are lower than those of new prompts that
        # may have been handed out already.
        self._adopted: deque[int] = deque()
        self._handed_out = 0
        self._awaited = False  # a caller waits until all prompts are read
        self.counts = Counts()
        """Final once `complete` is set; without a source, those of the run as a whole."""
        self.new_pending = 0
        """Pending prompts that were read in this session."""
        self.number = 0
        """The number of the source; 0 without one."""
        if source is None:
            known: str | None = Counts(journal.count_prompts()).dump()
        else:
            spec, nothing = source.spec, Counts().dump()
            self.number, known = journal.submit(
                lambda tx: tx.register_source(spec, self._fingerprint, nothing)
            ).result()
        self.known = self.complete = known is not None
        """Whether all prompts of the source were in the journal before; and whether they are."""
        if known is not None:
            self.counts = Counts.load(known)
        else:
            self._next_number = journal.submit(lambda tx: tx.next_number()).result()
            self._after = self._next_number - 1
            threading.Thread(target=self._read, name="prompts", daemon=True).start()

    async def next(self) -> PendingPrompt | None:
        """The next prompt without an outcome; None if there is none. Raises the source's errors."""
        while not self._fetched:
            if self._closed:
                return None
            complete = self.complete  # before looking: what is written meanwhile is not missed
            if self._error is not None:
                raise self._error
            self._changed.clear()
            while self._adopted and len(self._fetched) < _FETCH:
                self._fetched.append(self._journal.prompt(self._adopted.popleft())[0])
            if self._fetched:
                continue
            self._fetched.extend(self._journal.pending(self.number or None, self._after, _FETCH))
            if self._fetched:
                self._after = self._fetched[-1].number
            elif complete:
                return None
            else:
                await self._changed.wait()
        self._handed_out += 1
        return self._fetched.popleft()

    async def all_read(self) -> None:
        """Returns once all prompts are in the journal, or closed. Raises the source's errors."""
        self._awaited = True
        while not (self.complete or self._closed):
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """Reads no further."""
        self._closed = True
        self._changed.set()

    # In the reader's thread

    def _read(self) -> None:
        end: Exception | None = None
        try:
            for position, prompt in enumerate(self._prompts):
                # Two threads at work all the time would halve the speed of the chats.
                if position % _BURST == 0 and self._is_ahead():
                    time.sleep(_PAUSE)
                while len(self._rows) >= _QUEUED and not self._closed:
                    time.sleep(_PAUSE)
                if self._closed or self._ended or self._limit == 0:
                    break
                self._add(prompt)
        except Exception as error:  # noqa: BLE001 - raised where prompts are asked for
            end = error
        self._add(end)

    def _is_ahead(self) -> bool:
        return not self._awaited and self.counts.taken - self._handed_out > _AHEAD

    def _add(self, row: Prompt | Exception | None) -> None:
        self._rows.append(row)
        if not (self._submitted or self._closed):
            self._submitted = True
            self._journal.submit(self._store).add_done_callback(self._stored)

    # In the writer's thread

    def _store(self, tx: Transaction) -> Exception | None:
        """Stores what was read; returns the source's error, if it has one."""
        self._submitted = False  # before looking: what is read meanwhile is submitted again
        for _ in range(0 if self._ended else len(self._rows)):
            row = self._rows.popleft()
            error = self._insert(tx, row) if isinstance(row, Prompt) else row
            self._ended = row is None or error is not None or self.counts.taken == self._limit
            if error is not None:
                return error
            if self._ended:
                self._finish(tx)
                break
        return None

    def _stored(self, change: Future[Exception | None]) -> None:
        """What was read is on disk."""
        self._error = self._error or change.exception() or change.result()
        self.complete = self._ended and self._error is None
        if not self._changed.is_set():
            with suppress(RuntimeError):  # the loop is closed, and so is the intake
                self._loop.call_soon_threadsafe(self._changed.set)

    def _insert(self, tx: Transaction, prompt: Prompt) -> InputError | None:
        """Inserts a prompt; returns what is wrong with it."""
        metadata = json.dumps(prompt.metadata, ensure_ascii=False) if prompt.metadata else "{}"
        try:
            found = tx.insert_prompt(
                self._next_number, prompt.id, prompt.digest, prompt.text, metadata, self.number
            )
        except IdTakenError:
            return self._clash(tx, prompt)
        counts = self.counts
        if found is None:
            counts.duplicates += 1
            if len(counts.left_out) < LEFT_OUT_SHOWN:
                counts.left_out.append(prompt.left_out("same text as an earlier prompt"))
            return None
        number, is_pending = found
        counts.taken += 1
        self.new_pending += is_pending
        if number == self._next_number:
            self._next_number += 1
        elif is_pending:
            self._adopted.append(number)
        return None

    def _finish(self, tx: Transaction) -> None:
        if isinstance(self._prompts, PromptReader):
            self.counts.empty = self._prompts.empty
            shown = sorted([*self.counts.left_out, *self._prompts.left_out])
            self.counts.left_out = shown[:LEFT_OUT_SHOWN]
        tx.finish_source(self.number, self._fingerprint, self.counts.dump())

    def _clash(self, tx: Transaction, prompt: Prompt) -> InputError:
        if tx.source_of(prompt.id) not in (None, self.number):
            return InputError(
                f"The prompt '{prompt.id}' has another text than in the run in {self._folder}.",
                "Give the new text a new id, or name another folder with --out.",
            )
        what = f"the id '{prompt.id}' is that of another prompt too"
        remedy = "Make the ids unique, or name another column with --id-column."
        if prompt.location is not None:
            return prompt.location.error(prompt.row, what, remedy)
        return InputError(f"{what[0].upper()}{what[1:]}.", remedy)
