"""What a run may spend, and what it has spent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from agents.models.model import Answer, Model, Price
from agents.turns import Usage
from orchestration.journal.schema import Spent
from policies import InputError

_FIRST = 4
"""Calls that are begun under a limit before it is known what one comes to."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a run; None sets none."""

    cost: float | None = None
    """In the currency of the models' prices, for all sessions of the run together."""
    tokens: int | None = None
    """Prompt and completion tokens, for all sessions of the run together."""
    seconds: float | None = None
    """Wall time of this session."""


def price_text(model: Model) -> str:
    """What a model's tokens cost, as the journal keeps it; empty if nobody said."""
    price = model.config.price
    return price.model_dump_json() if price is not None else ""


class Budget:
    """Counts what the run spends, and says when that is enough.

    Args:
        limits: The bounds.
        models: The models that may be asked.
        spent: What earlier sessions spent.

    Raises:
        InputError: A bound on the cost is set, and a model has no price, or prices are in several
            currencies.
    """

    def __init__(
        self,
        limits: Limits,
        models: Iterable[Model],
        spent: Iterable[Spent] = (),
    ) -> None:
        self.limits = limits
        self.calls = 0
        """Replies that were paid for, in all sessions."""
        self.usage = Usage()
        """Their tokens."""
        self.unpriced = 0
        """How many of them no price was configured for."""
        self.costs: Counter[str] = Counter()
        """What they cost, by currency; as far as prices were configured."""
        self._in_flight = 0
        self._began = time.monotonic()
        for row in spent:
            price = Price.model_validate_json(row.price) if row.price else None
            self._add(price, row.usage, row.calls)
        if limits.cost is not None:
            self._check_prices(list(models))

    def _check_prices(self, models: list[Model]) -> None:
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
        """A call is begun."""
        self._in_flight += 1

    def end(self) -> None:
        """A call has ended, with a reply or without."""
        self._in_flight -= 1

    def add(self, model: Model, answer: Answer) -> None:
        """A reply was kept."""
        self._add(model.config.price, answer.usage, 1)

    def used_up(self) -> str | None:
        """Why no further call may be begun; None if one may.

        The calls in flight, and the one to be begun, are counted as what calls cost so far on
        average, so that a run with hundreds of them does not overshoot by what they come to.
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
    def must_look_first(self) -> bool:
        """Whether further calls should wait until it is known what one comes to.

        A limit is no use to a first burst of hundreds of calls, all begun before any has come back.
        """
        limited = self.limits.cost is not None or self.limits.tokens is not None
        return limited and not self.calls and self._in_flight >= _FIRST

    @property
    def seconds(self) -> float:
        """Wall time of this session so far."""
        return time.monotonic() - self._began
