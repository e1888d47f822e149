"""The journal's writer: one thread that commits all pending changes together."""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from orchestration.journal.errors import DamageError, JournalError, damaged, explained
from orchestration.journal.transaction import Change, Transaction

T = TypeVar("T")
_QueuedChange: TypeAlias = tuple[Change[Any], Future[Any]]


class Writer:
    """Applies changes in order, and notifies callers once they are on disk.

    Args:
        path: The journal, for messages.
        db: A connection of the writer's own: a shared one would show uncommitted changes.
        check: Called before each commit; raises what keeps it from being one.
    """

    def __init__(
        self, path: Path, db: sqlite3.Connection, check: Callable[[], None] = lambda: None
    ) -> None:
        self._check = check
        self._changes: list[_QueuedChange] = []  # those that are being committed
        self._is_closing = False
        self._path = path
        self._db = db
        self._transaction = Transaction(db)
        self._version = self._data_version()
        self._queue: queue.SimpleQueue[_QueuedChange | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def submit(self, change: Change[T]) -> Future[T]:
        """Queues a change; its result is there once it is committed. It cannot be cancelled.

        The future's exception is a `JournalError` if it could not be written, or whatever the
        change raised, which is rolled back.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        self._queue.put((change, future))
        return future

    def close(self) -> None:
        """Waits for what is being written, then closes the connection."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._is_closing:
            try:
                self._step()
            except BaseException as error:  # noqa: BLE001 - no memory; raised in the callers
                for _, future in self._changes:
                    _fail(future, error)
            self._changes.clear()
        self._db.close()

    def _step(self) -> None:
        """Waits for changes, commits them, and notifies the callers."""
        self._take(self._queue.get())
        while not self._queue.empty():
            self._take(self._queue.get())
        try:
            with explained(self._path):
                settled = self._commit(self._changes)
        except Exception as error:  # noqa: BLE001 - raised in the callers
            settled = [partial(future.set_exception, error) for _, future in self._changes]
        for settle in settled:
            settle()

    def _take(self, queued: _QueuedChange | None) -> None:
        if queued is None:
            self._is_closing = True
        else:
            self._changes.append(queued)

    def _commit(self, changes: list[_QueuedChange]) -> list[Callable[[], None]]:
        """Commits all in one transaction; a change that fails is rolled back alone.

        Returns:
            What notifies the callers.
        """
        db, before = self._db, self._transaction.tally
        self._check()
        db.execute("BEGIN IMMEDIATE")
        try:
            self._check_alone()
            self._transaction.begin()
            settled = []
            for change, future in changes:
                db.execute("SAVEPOINT change")
                settled.append(self._apply(change, future))
                db.execute("RELEASE change")
            self._transaction.end()
            db.execute("COMMIT")
        except BaseException:
            self._transaction.tally = before
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return settled

    def _apply(self, change: Change[Any], future: Future[Any]) -> Callable[[], None]:
        before = self._transaction.tally
        try:
            return partial(future.set_result, change(self._transaction))
        except Exception as error:
            self._transaction.tally = before
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise  # the disk or the file, not the change
            self._db.execute("ROLLBACK TO change")
            is_damage = isinstance(error, DamageError)
            return partial(
                future.set_exception, damaged(self._path, str(error)) if is_damage else error
            )

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


def _fail(future: Future[Any], error: BaseException) -> None:
    """Raises an error in a caller, however little memory there is: it would wait for ever."""
    while not future.done():
        with suppress(BaseException):
            future.set_exception(error)
            return
        time.sleep(0.01)
