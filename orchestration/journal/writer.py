"""The journal's writer: one thread that commits all that is waiting, together."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from orchestration.journal.errors import explained

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]
"""Writes something; runs in the writer's thread, inside a transaction."""


class _Waiting:
    """A change on its way to disk, and who waits for it: a future, or whoever is to be told."""

    __slots__ = ("change", "error", "future", "result", "tell")

    def __init__(
        self,
        change: Change[Any],
        tell: Callable[[_Waiting], None] | None = None,
        future: asyncio.Future[Any] | None = None,
    ) -> None:
        self.change = change
        self.tell = tell
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Applies changes in the order in which they are given, and tells once they are on disk.

    Args:
        path: The journal, for messages.
        db: A connection of the writer's own: on a reader's, what is not committed would show.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    async def write(self, change: Change[T]) -> T:
        """Makes a change; returns what it returned, once it is committed.

        The change is under way as soon as this is called: who is cancelled while waiting for it
        does not stop it.

        Raises:
            JournalError: It could not be written.
            Exception: Whatever the change raised; nothing of it is kept then.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(change, future=future))
        return await future

    def submit(self, change: Change[Any], tell: Callable[[Exception | None], None]) -> None:
        """Makes a change without waiting for it.

        Args:
            change: The change.
            tell: Called in the writer's thread once it is on disk, or with what kept it from there.
        """
        self._queue.put(_Waiting(change, lambda done: tell(done.error)))

    def write_from_thread(self, change: Change[T]) -> T:
        """Same as `write`, for other threads than the event loop's; blocks."""
        told = threading.Event()
        waiting = _Waiting(change, lambda _: told.set())
        self._queue.put(waiting)
        told.wait()
        if waiting.error is not None:
            raise waiting.error
        result: T = waiting.result
        return result

    def close(self) -> None:
        """Waits for what is being written, then closes the connection."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        last = False
        while not last:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            changes = [waiting for waiting in batch if waiting is not None]
            last = len(changes) < len(batch)
            try:
                with explained(self._path):
                    self._commit(changes)
            except Exception as error:  # noqa: BLE001 - handed to those who wait
                for waiting in changes:
                    waiting.error = waiting.error or error
            _tell(changes)
        self._db.close()

    def _commit(self, changes: list[_Waiting]) -> None:
        """One transaction for all; a change that fails takes no other with it."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for waiting in changes:
                db.execute("SAVEPOINT change")
                try:
                    waiting.result = waiting.change(db)
                except sqlite3.IntegrityError as error:
                    waiting.error = error
                    db.execute("ROLLBACK TO change")
                except sqlite3.Error:
                    raise  # the disk or the file, not the change
                except Exception as error:  # noqa: BLE001 - handed to who waits
                    waiting.error = error
                    db.execute("ROLLBACK TO change")
                db.execute("RELEASE change")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _tell(changes: list[_Waiting]) -> None:
    """Tells those who wait; an event loop is woken once for all that wait in it."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[_Waiting]] = defaultdict(list)
    for waiting in changes:
        if waiting.future is not None:
            loops[waiting.future.get_loop()].append(waiting)
        elif waiting.tell is not None:
            waiting.tell(waiting)
    for loop, waits in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, waits)


def _settle(waits: list[_Waiting]) -> None:
    for waiting in waits:
        future = waiting.future
        if future is None or future.done():  # whoever waited was cancelled
            continue
        if waiting.error is None:
            future.set_result(waiting.result)
        else:
            future.set_exception(waiting.error)
