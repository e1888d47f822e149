"""The journal's writer: one thread that commits all pending changes together."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from orchestration.journal.errors import DamageError, JournalError, damaged, explained
from orchestration.journal.transaction import Change, Transaction

T = TypeVar("T")


class _QueuedChange:
    """A change on its way to disk, and the caller that waits for it."""

    __slots__ = ("change", "error", "result", "waiter")

    def __init__(self, change: Change[Any], waiter: asyncio.Future[Any] | threading.Event) -> None:
        self.change = change
        self.waiter = waiter
        self.result: Any = None
        self.error: Exception | None = None


class Writer:
    """Applies changes in order, and notifies callers once they are on disk.

    Args:
        path: The journal, for messages.
        db: A connection of the writer's own: a shared one would show uncommitted changes.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db
        self._transaction = Transaction(db)
        self._version = self._data_version()
        self._queue: queue.SimpleQueue[_QueuedChange | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    async def write(self, change: Change[T]) -> T:
        """Applies a change; returns its result once it is committed.

        Cancelling the caller does not stop a change that is queued.

        Raises:
            JournalError: It could not be written.
            Exception: Whatever the change raised; it is rolled back.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_QueuedChange(change, future))
        return await future

    def write_from_thread(self, change: Change[T]) -> T:
        """Same as `write`, but blocks."""
        done = threading.Event()
        queued = _QueuedChange(change, done)
        self._queue.put(queued)
        done.wait()
        if queued.error is not None:
            raise queued.error
        result: T = queued.result
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
            changes = [queued for queued in batch if queued is not None]
            last = len(changes) < len(batch)
            try:
                with explained(self._path):
                    self._commit(changes)
            except Exception as error:  # noqa: BLE001 - raised in the callers
                for queued in changes:
                    queued.error = queued.error or error
            _notify(changes)
        self._db.close()

    def _commit(self, changes: list[_QueuedChange]) -> None:
        """Commits all in one transaction; a change that fails is rolled back alone."""
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check_alone()
            for queued in changes:
                db.execute("SAVEPOINT change")
                self._apply(queued)
                db.execute("RELEASE change")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _apply(self, queued: _QueuedChange) -> None:
        try:
            queued.result = queued.change(self._transaction)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise  # the disk or the file, not the change
            is_damage = isinstance(error, DamageError)
            queued.error = damaged(self._path, str(error)) if is_damage else error
            self._db.execute("ROLLBACK TO change")

    def _check_alone(self) -> None:
        """Notices another process that got past the lock, such as where there are no locks."""
        if self._data_version() != self._version:
            raise JournalError(
                f"Another process has written to the journal {self._path}.",
                "Let only one process write to a run, then repeat the command: "
                "what is in the journal stays done.",
            )

    def _data_version(self) -> int:
        # Changes with every commit of another connection; this process has no other that writes.
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])


def _notify(changes: list[_QueuedChange]) -> None:
    """Notifies the callers; each event loop is woken only once."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[_QueuedChange]] = defaultdict(list)
    for queued in changes:
        if isinstance(queued.waiter, threading.Event):
            queued.waiter.set()
        else:
            by_loop[queued.waiter.get_loop()].append(queued)
    for loop, of_loop in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: no caller is left
            loop.call_soon_threadsafe(_settle, of_loop)


def _settle(changes: list[_QueuedChange]) -> None:
    for queued in changes:
        future = queued.waiter
        if isinstance(future, threading.Event) or future.done():  # the caller was cancelled
            continue
        if queued.error is None:
            future.set_result(queued.result)
        else:
            future.set_exception(queued.error)
