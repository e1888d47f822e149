"""Whether a run may make another call: budget, stop signal, and what led to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Self

from autogen_core.models import LLMMessage

from agents.models.context import CALL, StopSignal
from agents.models.model import ChatModel
from agents.models.usage import Usage
from orchestration.runs.budget import Amount, Budget
from policies import InputError


class LimitNotHeld(InputError):
    """A limit is set, and an endpoint does not count the tokens that it is a limit of."""


class CallGate:
    """Admits calls until a limit is reached or the session is stopped.

    Args:
        budget: What may be spent.
        on_stop: Called once, when no further call may start.
    """

    def __init__(self, budget: Budget, on_stop: Callable[[], None] = lambda: None) -> None:
        self.budget = budget
        self.stop_signal = StopSignal()
        self.limit_reached: str | None = None
        """The limit that ended the session, if one did."""
        self.served_from = -math.inf
        """When the last of the calls began that were served in this session."""
        self._on_stop = on_stop
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @classmethod
    def closed(cls) -> Self:
        """A gate that admits no call: to see how far the journal alone leads."""
        gate = cls(Budget())
        gate.stop()
        return gate

    def stop(self) -> None:
        """No further call may start; those in flight are finished."""
        if not self.stop_signal.is_set():
            self.stop_signal.set()
            self._on_stop()

    def stop_at_limit(self) -> None:
        """Stops if a limit is reached."""
        self._stop_because(self.budget.used_up())

    def _stop_because(self, reason: str | None) -> None:
        if reason is not None and not self.stop_signal.is_set():
            self.limit_reached = reason
            self.stop()

    async def begin(
        self, model: ChatModel, messages: Sequence[LLMMessage], max_tokens: int | None
    ) -> AdmittedCall:
        """Begins a call as soon as it fits into what is left; the oldest chats come first.

        Raises:
            CallNotStarted: It does not fit and nothing is in flight, or the session is stopping.
        """
        self.stop_at_limit()
        self.stop_signal.check()
        size = 0
        if self.budget.limits.on_spending:
            size = sum(len(str(message.content).encode()) for message in messages)
        limit = model.config.max_tokens if max_tokens is None else max_tokens
        if self._waiting:
            await self._wait()
        while (reserved := self.budget.begin(model, size, limit)) is None:
            if not self.budget.in_flight:
                self._stop_because(self.budget.no_room())
            await self._wait()
        self._wake()
        return AdmittedCall(self, model, size, reserved)

    async def _wait(self) -> None:
        """Waits until a call has ended, and it is the turn of this one."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (CALL.get().priority, next(self._arrivals), future)
        heappush(self._waiting, entry)
        try:
            await self.stop_signal.wait(future)
        except BaseException:
            if entry in self._waiting:
                self._waiting.remove(entry)
            self._wake()
            raise

    def _wake(self) -> None:
        """Lets the next call that waits see whether it fits."""
        while self._waiting:
            *_, future = heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return


class AdmittedCall:
    """A call that was admitted, as a context: it lasts until the context ends.

    Args:
        gate: Which admitted it.
        model: The model that is called.
        size: Bytes of its messages.
        reserved: What may be spent on it.
    """

    def __init__(self, gate: CallGate, model: ChatModel, size: int, reserved: Amount) -> None:
        self._gate = gate
        self.model = model
        """The model that is called."""
        self._size = size
        self._reserved = reserved

        self._began_at = asyncio.get_running_loop().time()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.budget.end(self._reserved)
        self._gate._wake()

    @property
    def price(self) -> str:
        """What the model's tokens cost, as the journal stores it; empty if unknown."""
        price = self.model.config.price
        return price.model_dump_json() if price is not None else ""

    def paid(
        self, usage: Usage | None, billed: Usage, unusable: int = 0, abandoned: int = 0
    ) -> None:
        """Its reply and its other answers are on disk.

        Args:
            usage: Tokens of the reply; None if there is none.
            billed: Tokens of its other answers, which could not be used.
            unusable: How many these are.
            abandoned: Attempts that timed out.

        Raises:
            LimitNotHeld: The endpoint does not count tokens, and a limit needs them.
        """
        budget = self._gate.budget
        if usage is not None:
            budget.add(self.model, usage, self._size)
            self._gate.served_from = max(self._gate.served_from, self._began_at)
        if unusable or abandoned:
            budget.add_unusable(self.model, billed, unusable, abandoned)
        limits, estimated = budget.limits, usage is not None and usage.estimated_tokens
        if estimated and limits.on_spending and not limits.estimates:
            raise LimitNotHeld(
                f"The endpoint of '{self.model.name}' does not count tokens in its usage, so that "
                "a limit of tokens or cost can only be held by estimates.",
                "Accept that with --estimate-tokens, which counts a token for four bytes, or "
                "leave the limit out.",
            )
