"""What a call knows of its chat: its priority, what may stop it, and who observes its attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from autogen_core import CancellationToken

from agents.models.errors import CallNotStarted, EndpointError

T = TypeVar("T")


class Observer(Protocol):
    """Is notified of every attempt exactly once, without any text of a prompt."""

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        """An attempt got no usable answer.

        Args:
            where: Address of the endpoint, a key of `limiters()`.
            error: What happened.
            retry_in: Seconds until the next attempt; None if there is none.
        """

    def attempt_answered(self, where: str) -> None:
        """An attempt got a chat completion, or a provider's filter rejected the prompt."""


class StopSignal:
    """Once set, no further call is started; calls in flight are finished.

    Belongs to one event loop and is set in its thread, for example by a signal handler of the loop.
    """

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[asyncio.Future[Any]] = set()

    def set(self) -> None:
        """Stops all calls that have not started: those that wait raise `CallNotStarted`."""
        self._set = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(CallNotStarted())
        self._waiting.clear()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def check(self) -> None:
        """Returns if calls may be started.

        Raises:
            CallNotStarted: It is set.
        """
        if self._set:
            raise CallNotStarted

    async def wait(self, future: asyncio.Future[T]) -> T:
        """The result of a future that a call waits for before it starts.

        Raises:
            CallNotStarted: It was set first. The future then holds this error.
        """
        self.check()
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    async def sleep(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            CallNotStarted: It is set, or was set in the meantime.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        try:
            await self.wait(future)
        finally:
            timer.cancel()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class NoCancellation(CancellationToken):
    """A token that is never cancelled: calls with it need not be made cancellable, which costs."""

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Does nothing."""

    def link_future(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Returns the future."""
        return future


NO_CANCELLATION = NoCancellation()


@dataclass(frozen=True, slots=True)
class CallContext:
    """What applies to all calls of a task."""

    priority: int = 0
    """Waiting calls start in this order, lowest first: the number of the chat, so that the oldest
    chat is finished first."""
    stop_signal: StopSignal | None = None
    observer: Observer | None = None


CALL: ContextVar[CallContext] = ContextVar("CALL", default=CallContext())  # noqa: B039 - frozen
"""Set in the task of each chat."""
