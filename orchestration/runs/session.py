"""A session's means of making calls, and of making no more: till, halt and what led to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agents.models.context import Halt
from agents.models.model import Answer, Model
from orchestration.runs.budget import Budget, price_text


class Session:
    """What all chats of a session share when they call a model.

    Args:
        budget: What may be spent.
        on_halt: Called once, when no further call is to be begun.
    """

    def __init__(self, budget: Budget, on_halt: Callable[[], None] = lambda: None) -> None:
        self.budget = budget
        self.halt = Halt()
        self.limit_reached: str | None = None
        """The limit that ended the session, if one did."""
        self._on_halt = on_halt
        self._changed = asyncio.Event()
        self._prices: dict[str, str] = {}

    def stop(self) -> None:
        """No further call is begun; those under way come to their end."""
        if not self.halt.is_set():
            self.halt.set()
            self._changed.set()
            self._on_halt()

    def stop_at_limit(self) -> None:
        """Stops if a limit is reached."""
        reason = self.budget.used_up()
        if reason is not None and not self.halt.is_set():
            self.limit_reached = reason
            self.stop()

    async def begin(self) -> None:
        """A call is to be made; returns when it may be.

        Raises:
            CallNotBegun: There is to be none.
        """
        while self.budget.must_look_first and not self.halt.is_set():
            self._changed.clear()
            await self._changed.wait()
        self.stop_at_limit()
        self.halt.check()
        self.budget.begin()

    def end(self) -> None:
        """The call has ended, with a reply or without."""
        self.budget.end()
        self._changed.set()

    def add(self, model: Model, answer: Answer) -> None:
        """Its reply is on disk."""
        self.budget.add(model, answer)

    def price(self, model: Model) -> str:
        """What the model's tokens cost, as the journal keeps it."""
        if model.name not in self._prices:
            self._prices[model.name] = price_text(model)
        return self._prices[model.name]
