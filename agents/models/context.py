"""What a call knows of the chat that it belongs to, and whom it tells how its attempts went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from autogen_core import CancellationToken

from agents.models.errors import CallNotStarted, EndpointError


class Observer(Protocol):
    """Hears of every attempt exactly once. Nothing that it is told holds text of a prompt."""

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        """An attempt got no usable answer.

        Args:
            where: Label of the endpoint, as `limiters()` has it.
            error: What happened.
            retry_in: Seconds until the next attempt asks for a slot; None if there is none.
        """

    def attempt_answered(self, where: str) -> None:
        """An attempt got a chat completion, or a provider's filter took the prompt."""


class StopSignal:
    """Once set, no further call is begun; those in flight are finished.

    Belongs to one event loop, and is set in its thread (a signal handler of the loop is in it).
    """

    def __init__(self) -> None:
        self._set = False
        self._waiting: set[asyncio.Future[Any]] = set()

    def set(self) -> None:
        """Lets nothing begin any more, and wakes all who wait to begin with `CallNotStarted`."""
        self._set = True
        for future in self._waiting:
            if not future.done():
                future.set_exception(CallNotStarted())
        self._waiting.clear()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def check(self) -> None:
        """Passes if calls may begin.

        Raises:
            CallNotStarted: They may not.
        """
        if self._set:
            raise CallNotStarted

    async def wait(self, future: asyncio.Future[Any]) -> Any:
        """The result of a future that stands for a call to be begun.

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
            CallNotStarted: It is set, or was while asleep.
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
    """The token of a caller that has none to give: a call need not be made cancellable for it."""

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Does nothing."""

    def link_future(self, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        """Gives the future back."""
        return future


NO_CANCELLATION = NoCancellation()


@dataclass(frozen=True, slots=True)
class CallContext:
    """What holds for all calls that a task makes."""

    priority: int = 0
    """Where calls wait for a slot, the lowest goes first: the number of the chat, so that the
    oldest chat is finished first."""
    stop_signal: StopSignal | None = None
    observer: Observer | None = None


CALL: ContextVar[CallContext] = ContextVar("CALL", default=CallContext())  # noqa: B039 - frozen
"""Set in each chat's task by whoever runs chats."""
