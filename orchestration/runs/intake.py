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
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestration.journal import IdTakenError, Journal, PendingPrompt, Transaction
from orchestration.prompts.reader import LEFT_OUT_SHOWN, LeftOut, Prompt, PromptReader
from policies import InputError

_BATCH = 1_000  # prompts per transaction: some milliseconds, in which no reply can be committed
_AHEAD = 5_000  # prompts that are read and not written yet, and that the reader may be ahead
_FETCH = 256
_BURST, _PAUSE = 16, 0.002  # rows at a time, and seconds in between, when far ahead of the chats


@dataclass(frozen=True)
class Source:
    """Where prompts come from."""

    name: str
    """A file, `-`, a Hugging Face data set; or any text that tells one source from another."""
    column: str | None = None
    id_column: str | None = None
    limit: int | None = None
    """Maximum number of prompts."""
    mark: str | None = None
    """Changes with the source; for sources that are no file."""

    @property
    def spec(self) -> str:
        """Everything that decides which prompts it gives, as the journal stores it."""
        return json.dumps([self.name, self.column, self.id_column, self.limit])

    @property
    def fingerprint(self) -> str | None:
        """Changes with the source; None if unknown."""
        if self.mark is not None:
            return self.mark
        try:
            stat = Path(self.name).stat()
        except (OSError, ValueError):
            return None
        return f"{stat.st_size}:{stat.st_mtime_ns}"


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

    A thread reads rows into a bounded buffer, since a source may block. A task of the event loop
    writes them into the journal in batches.

    Args:
        journal: Open for writing.
        source: Where the prompts come from; None reads nothing, and resumes the last one.
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
        self._buffer: deque[Prompt] = deque()  # read and not written yet
        self._arrived = asyncio.Event()  # there is something in the buffer, or the source's end
        self._signalled = False
        self._ended = False
        self._reading = True
        self._closed = False
        self._read_error: Exception | None = None
        self._error: Exception | None = None
        self._writing: asyncio.Task[None] | None = None
        self._fetched: deque[PendingPrompt] = deque()
        self._after = -1
        # Pending prompts of earlier sources: their numbers are lower than those of new prompts that
        # may have been handed out already.
        self._adopted: deque[int] = deque()
        self._handed_out = 0
        self._awaited = False  # a caller waits until all prompts are read
        self.counts = Counts()
        """Final once `complete` is set."""
        self.new_pending = 0
        """Pending prompts that were read in this session."""
        self.complete = False
        """Whether all prompts of the source are in the journal."""
        spec = source.spec if source else None
        self.number, known = journal.write_from_thread(
            lambda tx: tx.register_source(spec, self._fingerprint, Counts().dump())
        )
        self.known = known is not None
        """Whether all prompts of the source were in the journal before."""
        self.of_run = source is None
        """Whether its counts are those of the run as a whole."""
        if self.of_run:
            self.counts, self.complete = Counts(journal.count_prompts()), True
        elif known is not None:
            self.counts, self.complete = Counts.load(known), True
        else:
            self._next_number = journal.write_from_thread(lambda tx: tx.next_number())
            self._after = self._next_number - 1
            self._writing = asyncio.create_task(self._write())
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
            self._fetched.extend(self._journal.pending(self.number, self._after, _FETCH))
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
        if self._writing is not None:
            self._writing.cancel()
        self._reading = False
        self._changed.set()

    # In the reader's thread

    def _read(self) -> None:
        try:
            for position, prompt in enumerate(self._prompts):
                # Two threads at work all the time would halve the speed of the chats.
                if position % _BURST == 0 and self._is_ahead():
                    time.sleep(_PAUSE)
                while self._reading and len(self._buffer) >= _AHEAD:
                    time.sleep(_PAUSE)
                if not self._reading:
                    return
                self._buffer.append(prompt)
                self._signal()
        except Exception as error:  # noqa: BLE001 - raised where prompts are asked for
            self._read_error = error
        self._ended = True
        self._signal()

    def _is_ahead(self) -> bool:
        return not self._awaited and self.counts.taken - self._handed_out > _AHEAD

    def _signal(self) -> None:
        if not self._signalled:
            self._signalled = True
            with suppress(RuntimeError):  # the loop is closed, and so is the intake
                self._loop.call_soon_threadsafe(self._arrived.set)

    # In the event loop

    async def _write(self) -> None:
        """Writes what the thread reads, until the source ends."""
        try:
            enough = False
            while not enough:
                self._signalled = False  # before looking: what arrives meanwhile signals again
                self._arrived.clear()
                ended = self._ended
                batch = [self._buffer.popleft() for _ in range(min(_BATCH, len(self._buffer)))]
                if batch:
                    change = partial(self._insert, batch=batch)
                    enough, clash = await self._journal.write(change)
                    self._changed.set()
                    if clash is not None:
                        raise clash
                elif not ended:
                    await self._arrived.wait()
                elif self._read_error is not None:
                    raise self._read_error
                else:
                    break
            await self._journal.write(self._finish)
            self.complete = True
        except Exception as error:  # noqa: BLE001 - raised where prompts are asked for
            self._error = error
        self._reading = False
        self._changed.set()

    # In the writer's thread

    def _insert(self, tx: Transaction, batch: list[Prompt]) -> tuple[bool, InputError | None]:
        """Inserts prompts; whether the limit is reached, and what is wrong with the last one."""
        counts = self.counts
        for prompt in batch:
            if self._limit is not None and counts.taken >= self._limit:
                return True, None
            metadata = json.dumps(prompt.metadata, ensure_ascii=False) if prompt.metadata else "{}"
            try:
                found = tx.insert_prompt(
                    self._next_number, prompt.id, prompt.digest, prompt.text, metadata, self.number
                )
            except IdTakenError:
                return True, self._clash(tx, prompt)
            if found is None:
                counts.duplicates += 1
                if len(counts.left_out) < LEFT_OUT_SHOWN:
                    counts.left_out.append(LeftOut(prompt.row, "same text as an earlier prompt"))
                continue
            number, is_pending = found
            counts.taken += 1
            self.new_pending += is_pending
            if number == self._next_number:
                self._next_number += 1
            elif is_pending:
                self._adopted.append(number)
        return self._limit is not None and counts.taken >= self._limit, None

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
        if isinstance(self._prompts, PromptReader):
            return self._prompts.location.error(prompt.row, what, remedy)
        return InputError(f"{what[0].upper()}{what[1:]}.", remedy)
