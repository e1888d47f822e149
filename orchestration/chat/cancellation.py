"""Stopping an agent in the middle of its turn when a `CancellationToken` says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

from autogen_core import CancellationToken

T = TypeVar("T")


class Cancellation:
    """Cancels what is awaited through it when a token is cancelled, from any thread.

    What is awaited runs in the caller's task. A task of its own for every step would be simpler to
    cancel, but would break agents that keep a timeout or a cancel scope open between steps.

    Args:
        token: The token; None never interrupts.
    """

    def __init__(self, token: CancellationToken | None) -> None:
        self._token = token
        self._waiting: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        if self._token is not None:
            self._loop = asyncio.get_running_loop()
            self._token.add_callback(self._token_was_cancelled)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop = None  # the token may be cancelled later, without effect

    async def next_of(self, stream: AsyncIterator[T]) -> T | None:
        """The next item of a stream; None at its end.

        Raises:
            asyncio.CancelledError: The token was cancelled, before or meanwhile.
        """
        if self._token is None:
            return await anext(stream, None)
        if self._token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled")
        task = self._waiting = asyncio.current_task()
        try:
            return await anext(stream, None)
        finally:
            self._waiting = None
            if self._cancelled and task is not None:
                # The request was ours, and the CancelledError has answered it: a caller that
                # catches it must not find its task still marked as cancelled.
                self._cancelled = False
                task.uncancel()

    def _token_was_cancelled(self) -> None:
        # Not at once: the caller may be another thread, or the very step to be stopped.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._waiting is not None and not self._cancelled:
            self._cancelled = True
            self._waiting.cancel()
