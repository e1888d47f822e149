"""Stopping an agent in the middle of its turn when a `CancellationToken` says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

from autogen_core import CancellationToken

T = TypeVar("T")


class Interruption:
    """Cancels what is awaited through it as soon as a token is cancelled, from any thread.

    What is awaited runs in the task of whoever awaits it. A task of its own for every step would be
    simpler to cancel, but would break agents that hold a timeout or a cancel scope open from one
    step to the next.

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
        self._loop = None  # the token may outlive this, and is without effect from now on

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
                # The request was ours, and the CancelledError has answered it: whoever catches
                # that must not find its task still marked.
                self._cancelled = False
                task.uncancel()

    def _token_was_cancelled(self) -> None:
        # Not at once: the caller may be another thread, or the very step that is to be stopped.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._waiting is not None and not self._cancelled:
            self._cancelled = True
            self._waiting.cancel()
