"""Stopping an agent in the middle of its turn when a `CancellationToken` says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypeVar

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
        self._step: asyncio.Timeout | None = None
        if token is not None:
            self._loop = asyncio.get_running_loop()
            token.add_callback(self._token_was_cancelled)

    async def next_of(self, stream: AsyncIterator[T]) -> T | None:
        """The next item of a stream; None at its end.

        Raises:
            asyncio.CancelledError: The token was cancelled, before or meanwhile.
        """
        if self._token is None:
            return await anext(stream, None)
        if self._token.is_cancelled():
            raise asyncio.CancelledError("the cancellation token was cancelled")
        step = self._step = asyncio.timeout(None)
        try:
            async with step:
                return await anext(stream, None)
        except TimeoutError:
            if not step.expired():
                raise  # the agent's own
            raise asyncio.CancelledError("the cancellation token was cancelled") from None
        finally:
            self._step = None

    def _token_was_cancelled(self) -> None:
        # Not at once: the caller may be another thread, or the very step to be stopped.
        with suppress(RuntimeError):  # the loop is closed, and the chat has ended
            self._loop.call_soon_threadsafe(self._interrupt)

    def _interrupt(self) -> None:
        if self._step is not None:
            self._step.reschedule(self._loop.time())
