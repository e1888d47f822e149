"""What a run may spend, and what it has spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agents.models.config import Price
from agents.models.model import ChatModel, ModelReply
from agents.models.usage import Usage
from orchestration.journal import ModelSpend
from policies import InputError

_FIRST = 4
"""Calls that may start under a limit before the cost of one is known."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a run; None sets none."""

    cost: float | None = None
    """In the currency of the models' prices, for all sessions of the run together."""
    tokens: int | None = None
    """Prompt and completion tokens, for all sessions of the run together."""
    seconds: float | None = None
    """Wall time of this session."""


class Budget:
    """Counts what the run spends, and compares it with the limits.

    Args:
        limits: The bounds.
        models: The models that may be called.
        spent: What earlier sessions spent.

    Raises:
        InputError: A bound on the cost is set, and a model has no price, or prices are in several
            currencies.
    """

    def __init__(
        self,
        limits: Limits = Limits(),
        models: Iterable[ChatModel] = (),
        spent: Iterable[ModelSpend] = (),
    ) -> None:
        self.limits = limits
        self.calls = 0
        """Replies that were paid for, in all sessions."""
        self.usage = Usage()
        """Their tokens."""
        self.unpriced = 0
        """How many of them had no configured price."""
        self.costs: Counter[str] = Counter()
        """What they cost, by currency, as far as prices were configured."""
        self._in_flight = 0
        self._started = time.monotonic()
        for row in spent:
            price = Price.model_validate_json(row.price) if row.price else None
            usage = Usage(
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                cached_tokens=row.cached_tokens,
            )
            self._add(price, usage, row.calls)
        if limits.cost is not None:
            self._check_prices(list(models))

    def _check_prices(self, models: list[ChatModel]) -> None:
        unpriced = [model.name for model in models if model.config.price is None]
        if unpriced:
            raise InputError(
                f"--max-cost needs prices, and the model '{unpriced[0]}' has none.",
                "Give it a price: block in the models file, or --price PROMPT,COMPLETION.",
            )
        if self.unpriced:
            raise InputError(
                f"--max-cost is for the whole run, and {self.unpriced} calls of earlier sessions "
                "have no price.",
                "Use --max-tokens instead; prices count from the call on for which they are given.",
            )
        currencies = {model.config.price.currency for model in models if model.config.price}
        if len(currencies | set(self.costs)) > 1:
            raise InputError(
                "--max-cost needs one currency, and the prices are in several: "
                f"{', '.join(sorted(currencies | set(self.costs)))}.",
                "Give all prices in the same one.",
            )

    def _add(self, price: Price | None, usage: Usage, calls: int) -> None:
        self.calls += calls
        self.usage += usage
        if price is None:
            self.unpriced += calls
        else:
            self.costs[price.currency] += price.cost(usage)  # type: ignore[assignment]

    def begin(self) -> None:
        """A call starts."""
        self._in_flight += 1

    def end(self) -> None:
        """A call has ended, with a reply or without."""
        self._in_flight -= 1

    def add(self, model: ChatModel, answer: ModelReply) -> None:
        """A reply was stored."""
        self._add(model.config.price, answer.usage, 1)

    def spent(self) -> dict[str, Any]:
        """What all sessions spent, as the fields of a summary."""
        return {
            "calls": self.calls,
            "usage": self.usage,
            "cost": {currency: round(cost, 6) for currency, cost in self.costs.items()},
            "unpriced_calls": self.unpriced,
        }

    def used_up(self) -> str | None:
        """Why no further call may start; None if one may.

        The calls in flight and the next one are counted at the average cost of calls so far, so
        that a run with hundreds of them does not overshoot.
        """
        limits = self.limits
        more = 1 + (1 + self._in_flight) / self.calls if self.calls else 1.0
        cost = sum(self.costs.values())
        if limits.cost is not None and cost * more >= limits.cost:
            return f"--max-cost {limits.cost:g} is reached"
        tokens = self.usage.prompt_tokens + self.usage.completion_tokens
        if limits.tokens is not None and tokens * more >= limits.tokens:
            return f"--max-tokens {limits.tokens} is reached"
        if limits.seconds is not None and self.seconds >= limits.seconds:
            return "--max-time is reached"
        return None

    @property
    def must_wait_for_first(self) -> bool:
        """Whether further calls must wait until the cost of one is known.

        Else a limit would not hold for a first burst of hundreds of calls.
        """
        limited = self.limits.cost is not None or self.limits.tokens is not None
        return limited and not self.calls and self._in_flight >= _FIRST

    @property
    def seconds(self) -> float:
        """Wall time of this session so far."""
        return time.monotonic() - self._started
