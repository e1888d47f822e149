"""Whether a run may make another call: budget, stop signal, and what led to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from agents.models.context import StopSignal
from agents.models.model import ChatModel, ModelReply
from orchestration.runs.budget import Budget


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
        self._on_stop = on_stop
        self._changed = asyncio.Event()

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
            self._changed.set()
            self._on_stop()

    def stop_at_limit(self) -> None:
        """Stops if a limit is reached."""
        reason = self.budget.used_up()
        if reason is not None and not self.stop_signal.is_set():
            self.limit_reached = reason
            self.stop()

    async def begin(self) -> None:
        """Returns when a call may start. Raises `CallNotStarted` if none may."""
        while self.budget.must_wait_for_first and not self.stop_signal.is_set():
            self._changed.clear()
            await self._changed.wait()
        self.stop_at_limit()
        self.stop_signal.check()
        self.budget.begin()

    def end(self) -> None:
        """The call has ended, with a reply or without."""
        self.budget.end()
        self._changed.set()

    def add(self, model: ChatModel, reply: ModelReply) -> None:
        """Its reply is on disk."""
        self.budget.add(model, reply)

    def price(self, model: ChatModel) -> str:
        """What the model's tokens cost, as the journal stores it; empty if unknown."""
        price = model.config.price
        return price.model_dump_json() if price is not None else ""
