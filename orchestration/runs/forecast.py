"""The forecast: what a run will take, from a small random pilot of its prompts.

The pilot's prompts are ordinary work of the run: what it costs is not spent twice.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from pydantic import BaseModel

from agents.models.config import Price
from agents.turns import Call
from orchestration.journal import Journal, PendingPrompt
from orchestration.runs.intake import Intake
from orchestration.runs.reader import RunReader

CONFIDENCE = 0.9
"""How often the interval should contain the true value."""


class Estimate(BaseModel, extra="forbid"):
    """An estimate with its interval."""

    expected: float
    low: float
    high: float


class Forecast(BaseModel, extra="forbid"):
    """What the pending prompts of a run will take."""

    prompts: int
    """Prompts of the source."""
    pending: int
    """How many of them have no outcome yet; the estimates are for these."""
    pilot: int
    """Prompts that the estimates are based on."""
    outcomes: dict[str, int]
    """How the pilot's prompts ended."""
    calls: Estimate
    prompt_tokens: Estimate
    cached_tokens: Estimate
    completion_tokens: Estimate
    estimated_tokens: Estimate
    """Those among prompt and completion tokens that the endpoint does not count."""
    cost: dict[str, Estimate]
    """By currency; empty if no price is configured."""
    unpriced: list[str]
    """Models without a price, which `cost` leaves out."""
    seconds: Estimate
    """Wall time at the given concurrency, if the endpoint is then as fast as in the pilot."""
    concurrency: int
    """Chats at the same time, as `seconds` assumes."""


class Pilot:
    """Draws prompts at random.

    Args:
        journal: Of the run.
        size: Number of prompts to draw.
        seed: The same seed draws the same prompts.
    """

    def __init__(self, journal: Journal, size: int, seed: int = 0) -> None:
        self._journal = journal
        self._size = size
        self._seed = seed
        self.numbers: list[int] = []
        """Numbers of the prompts that were drawn."""
        self.prompts = 0
        """Prompts of the source."""

    async def choose(self, intake: Intake) -> Iterator[PendingPrompt]:
        """Waits until all prompts are known, and draws; the drawn prompts without an outcome."""
        await intake.all_read()
        numbers = self._journal.numbers(intake.number)
        self.prompts = len(numbers)
        chosen = random.Random(self._seed).sample(numbers, min(self._size, len(numbers)))
        self.numbers = sorted(chosen)
        drawn = [self._journal.prompt(number) for number in self.numbers]
        return iter([prompt for prompt, outcome in drawn if outcome is None])


def forecast(
    results: RunReader[Any],
    pilot: Pilot,
    pending: int,
    concurrency: int,
    price: Callable[[str], Price | None],
) -> Forecast | None:
    """What the pending prompts will take.

    Args:
        results: Of the run.
        pilot: After its prompts have their outcomes.
        pending: Prompts that have none yet.
        concurrency: Chats at the same time.
        price: What a model costs, by its name.

    Returns:
        The forecast; None if none of the pilot's prompts has an outcome.
    """
    found = [result for number in pilot.numbers if (result := results.get(number)) is not None]
    if not found:
        return None
    chats = [[c for turn in result.turns for c in (*turn.discarded, turn)] for result in found]
    prices = {call.model: price(call.model) for calls in chats for call in calls}
    currencies = sorted({known.currency for known in prices.values() if known})

    def estimate(of_call: Callable[[Call], float]) -> Estimate:
        return total([sum(map(of_call, calls)) for calls in chats], pending)

    def cost(currency: str, call: Call) -> float:
        known = prices[call.model]
        return known.cost(call.usage) if known and known.currency == currency else 0.0

    at_once = max(1, min(concurrency, pending))
    longest = max(sum(call.latency for call in calls) for calls in chats)

    def wall(seconds: float) -> float:
        # Not faster than the longest chat; the last chats of a run do not fill all slots.
        return max(seconds / at_once + longest / 2, longest) if pending else 0.0

    model_time = estimate(lambda call: call.latency)
    return Forecast(
        prompts=pilot.prompts,
        pending=pending,
        pilot=len(chats),
        outcomes=dict(Counter(result.outcome for result in found)),
        calls=estimate(lambda _: 1),
        prompt_tokens=estimate(lambda call: call.usage.prompt_tokens),
        cached_tokens=estimate(lambda call: call.usage.cached_tokens),
        completion_tokens=estimate(lambda call: call.usage.completion_tokens),
        estimated_tokens=estimate(lambda call: call.usage.estimated_tokens),
        cost={currency: estimate(partial(cost, currency)) for currency in currencies},
        unpriced=sorted(name for name, known in prices.items() if known is None),
        seconds=Estimate(**{name: wall(seconds) for name, seconds in model_time}),
        concurrency=concurrency,
    )


def total(sample: Sequence[float], number: int) -> Estimate:
    """The sum over so many further prompts, with a prediction interval.

    The interval is Student's t for a mean over `number` new draws, given the sample; its quantile
    is taken from the normal one by the expansion of Abramowitz and Stegun, 26.7.5.

    Args:
        sample: What each of the pilot's prompts took; not empty.
        number: Prompts to come.
    """
    mean = statistics.fmean(sample)
    expected = mean * number
    if number == 0:
        return Estimate(expected=0, low=0, high=0)
    if len(sample) < 2:
        return Estimate(expected=expected, low=0, high=math.inf)
    error = statistics.stdev(sample) * math.sqrt(1 / len(sample) + 1 / number)
    margin = _student(len(sample) - 1) * error * number
    return Estimate(expected=expected, low=max(0.0, expected - margin), high=expected + margin)


def _student(degrees: int) -> float:
    z = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4)
    )
