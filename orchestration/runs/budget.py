"""What a run may spend, what it has spent, and what its calls in flight may still come to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agents.models.config import Price
from agents.models.model import ChatModel
from agents.models.usage import BYTES_PER_TOKEN, Usage
from orchestration.journal import ModelSpend
from policies import InputError

_UNBOUNDED_REPLY = 4096
"""Tokens of a reply for which no bound is set, until longer ones have come."""
_FIRST_REPLY = 256
"""Tokens that the first reply is expected to have."""
_MARGIN = 1.1
"""Times as many tokens as any prompt of its size had so far that a prompt may have."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a run; None sets none."""

    cost: float | None = None
    """In the currency of the models' prices, for all sessions of the run together."""
    tokens: int | None = None
    """Prompt and completion tokens, for all sessions of the run together."""
    seconds: float | None = None
    """Wall time of this session."""
    estimates: bool = False
    """Whether the bounds may be held by estimates where an endpoint counts no tokens."""

    @property
    def on_spending(self) -> bool:
        """Whether there is a bound on cost or tokens."""
        return self.cost is not None or self.tokens is not None


@dataclass(frozen=True)
class Amount:
    """Tokens and what they cost."""

    tokens: float = 0.0
    cost: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.cost + other.cost)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.tokens - other.tokens, self.cost - other.cost)


class Budget:
    """Counts what the run spends, and decides whether a call fits into what is left.

    While others are in flight, a call fits if all of them together stay within the limits even if
    each takes as much as it can: its own prompt, and a reply as long as `max_tokens`. A call that
    is alone fits if it does with a reply as long as the longest so far, so that the last of the
    budget is of use: then one call may pass the limit. The first call is alone, since nothing is
    known yet of how the endpoint counts.

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
        """Answers that were paid for, in all sessions."""
        self.usage = Usage()
        """Their tokens."""
        self.unpriced = 0
        """How many of them had no configured price."""
        self.unusable = 0
        """How many of them could not be used."""
        self.abandoned = 0
        """Attempts that timed out, which an endpoint may have billed."""
        self.costs: Counter[str] = Counter()
        """What they cost, by currency, as far as prices were configured."""
        self._reserved = Amount()
        self.in_flight = 0
        """Calls in flight."""
        self._per_byte = self._most_per_byte = 1 / BYTES_PER_TOKEN
        self._prompt_bytes = self._prompt_tokens = 0
        self._longest_reply = 0
        self._started = time.monotonic()
        for row in spent:
            price = Price.model_validate_json(row.price) if row.price else None
            usage = Usage(
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                cached_tokens=row.cached_tokens,
                estimated_tokens=row.estimated_tokens,
            )
            self._add(price, usage, row.calls)
            self.unusable += row.unusable
            self.abandoned += row.abandoned
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

    # What calls take -----------------------------------------------------------------------------

    def at_most(self, model: ChatModel, prompt_bytes: int, max_tokens: int | None) -> Amount:
        """What a call can take at most.

        Args:
            model: The model that is called.
            prompt_bytes: Size of its messages.
            max_tokens: Bound on the tokens of the reply; None if there is none.
        """
        reply = max_tokens or max(_UNBOUNDED_REPLY, self._longest_reply)
        return _amount(model, prompt_bytes * self._most_per_byte, reply)

    def in_calls(self, models: Iterable[ChatModel], prompt_bytes: int) -> str:
        """What the limits mean, in a sentence.

        Args:
            models: The models that may be called.
            prompt_bytes: Size of a first prompt.
        """
        limits, parts = self.limits, []
        amounts = [self.at_most(model, prompt_bytes, model.config.max_tokens) for model in models]
        tokens, cost = max(a.tokens for a in amounts), max(a.cost for a in amounts)
        if limits.tokens is not None:
            left = max(0, limits.tokens - self.usage.tokens)
            calls = f"at least {left / tokens:,.0f} calls" if left > tokens else "a call or less"
            parts.append(f"{left:,} tokens are left: {calls} of up to {tokens:,.0f}")
        if limits.cost is not None:
            left_cost = max(0.0, limits.cost - sum(self.costs.values()))
            many = 0 < cost < left_cost
            calls = f"at least {left_cost / cost:,.0f} calls" if many else "a call or less"
            parts.append(f"{left_cost:,.4g} of the cost is left: {calls} of up to {cost:.2g}")
        return f"{'; '.join(parts)}. Calls in flight count as much as they can take."

    def _expected(self, model: ChatModel, prompt_bytes: int) -> Amount:
        reply = min(self._longest_reply or _FIRST_REPLY, model.config.max_tokens or 10**9)
        return _amount(model, prompt_bytes * self._per_byte, reply)

    def begin(self, model: ChatModel, prompt_bytes: int, max_tokens: int | None) -> Amount | None:
        """Begins a call if it fits into what is left. Arguments are those of `at_most`.

        Returns:
            What is reserved for it, for `end`; None if it does not fit.
        """
        if not self.limits.on_spending:
            self.in_flight += 1
            return Amount()
        reserved = self.at_most(model, prompt_bytes, max_tokens)
        needed = reserved + self._reserved
        if self.in_flight == 0:
            needed = self._expected(model, prompt_bytes)
        elif not self._prompt_bytes:
            return None
        if self._exceeded_by(needed) is not None:
            return None
        self.in_flight += 1
        self._reserved += reserved
        return reserved

    def end(self, reserved: Amount) -> None:
        """A call has ended, with a reply or without."""
        self.in_flight -= 1
        self._reserved = self._reserved - reserved if self.in_flight else Amount()

    def add(self, model: ChatModel, usage: Usage, prompt_bytes: int) -> None:
        """A reply was paid for."""
        self._add(model.config.price, usage, 1)
        self._longest_reply = max(self._longest_reply, usage.completion_tokens)
        if prompt_bytes and usage.prompt_tokens:
            self._prompt_bytes += prompt_bytes
            self._prompt_tokens += usage.prompt_tokens
            self._per_byte = self._prompt_tokens / self._prompt_bytes
            ratio = usage.prompt_tokens / prompt_bytes
            self._most_per_byte = max(_MARGIN * ratio, 0.999 * self._most_per_byte)  # old ones fade

    def add_unusable(
        self, model: ChatModel, usage: Usage, answers: int, abandoned: int = 0
    ) -> None:
        """So many answers to a call could not be used, but were or may have been paid for."""
        self._add(model.config.price, usage, answers)
        self.unusable += answers
        self.abandoned += abandoned

    def _add(self, price: Price | None, usage: Usage, calls: int) -> None:
        self.calls += calls
        self.usage += usage
        if price is None:
            self.unpriced += calls
        else:
            self.costs[price.currency] += price.cost(usage)  # type: ignore[assignment]

    # Limits --------------------------------------------------------------------------------------

    def spent(self) -> dict[str, Any]:
        """What all sessions spent, as the fields of a summary."""
        return {
            "calls": self.calls,
            "usage": self.usage,
            "cost": {currency: round(cost, 6) for currency, cost in self.costs.items()},
            "unpriced_calls": self.unpriced,
            "unusable_calls": self.unusable,
            "abandoned_calls": self.abandoned,
        }

    def used_up(self) -> str | None:
        """Why no further call may start, whatever it takes; None if one may."""
        if self.limits.seconds is not None and self.seconds >= self.limits.seconds:
            return "--max-time is reached"
        return self._exceeded_by(Amount()) if self.limits.on_spending else None

    def _exceeded_by(self, more: Amount) -> str | None:
        """The limit that would be passed, in words, with what is spent; None if there is none."""
        limits = self.limits
        cost = sum(self.costs.values())
        tokens = self.usage.tokens
        if limits.cost is not None and cost + more.cost >= limits.cost:
            how = _how(cost >= limits.cost)
            return f"--max-cost {limits.cost:g} {how} ({cost:.6g} spent)"
        if limits.tokens is not None and tokens + more.tokens >= limits.tokens:
            return f"--max-tokens {limits.tokens} {_how(tokens >= limits.tokens)} ({tokens} spent)"
        return None

    def no_room(self) -> str:
        """Why a call does not fit into what is left."""
        reached = self._exceeded_by(Amount()) or self._exceeded_by(Amount(1e18, 1e18))
        return reached or "a limit is reached"

    @property
    def seconds(self) -> float:
        """Wall time of this session so far."""
        return time.monotonic() - self._started


def _how(is_reached: bool) -> str:
    return "is reached" if is_reached else "leaves no room for another call"


def _amount(model: ChatModel, prompt: float, reply: float) -> Amount:
    price = model.config.price
    cost = 0.0 if price is None else (prompt * price.prompt + reply * price.completion) / 1e6
    return Amount(prompt + reply, cost)
