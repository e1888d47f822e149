"""The forecast: what a run will take, from a small random pilot of its prompts.

The pilot's prompts are ordinary work of the run: what it costs is not spent twice.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from agents.models.model import Price
from agents.turns import Usage
from orchestration.journal import Journal
from orchestration.journal.schema import Waiting
from orchestration.runs.intake import Intake

CONFIDENCE = 0.9
"""How often the interval is meant to hold what the run will really take."""
_Z = statistics.NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


class Estimate(BaseModel):
    """A number that is not known yet."""

    model_config = ConfigDict(extra="forbid")

    expected: float
    low: float
    high: float


class Forecast(BaseModel):
    """What the prompts of a run that have no outcome yet will take."""

    model_config = ConfigDict(extra="forbid")

    prompts: int
    """Prompts of the source."""
    waiting: int
    """How many of them have no outcome yet: what the estimates are about."""
    pilot: int
    """Prompts that the estimates are taken from."""
    outcomes: dict[str, int]
    """How the pilot's prompts ended."""
    calls: Estimate
    prompt_tokens: Estimate
    cached_tokens: Estimate
    completion_tokens: Estimate
    cost: dict[str, Estimate]
    """By currency; empty where no price is configured."""
    unpriced: list[str]
    """Models that were asked and have no price, so that `cost` leaves them out."""
    seconds: Estimate
    """Wall time at the given concurrency, if the endpoint is as fast with so many chats at once as
    it was with the pilot's."""
    concurrency: int
    """Chats at the same time, which `seconds` is for."""


class _Sample(BaseModel):
    """What one prompt took."""

    outcome: str
    calls: int
    usage: Usage
    costs: dict[str, float]
    seconds: float


class Pilot:
    """Draws prompts at random, and hands out those that have no outcome yet.

    Args:
        journal: Of the run.
        size: How many prompts to draw.
        seed: The same seed draws the same prompts.
    """

    def __init__(self, journal: Journal, size: int, seed: int = 0) -> None:
        self._journal = journal
        self._size = size
        self._seed = seed
        self._queue: deque[Waiting] = deque()
        self.numbers: list[int] = []
        """Numbers of the prompts that were drawn."""
        self.prompts = 0
        """Prompts of the source."""

    async def choose(self, intake: Intake) -> Pilot:
        """Waits until all prompts are known, and draws."""
        await intake.all_read()
        numbers = self._journal.numbers(intake.number)
        self.prompts = len(numbers)
        chosen = random.Random(self._seed).sample(numbers, min(self._size, len(numbers)))
        self.numbers = sorted(chosen)
        found = (self._journal.prompt(number) for number in self.numbers)
        self._queue.extend(waiting for waiting, outcome in found if outcome is None)
        return self

    async def next(self) -> Waiting | None:
        """The next of the pilot's prompts; None once there is no further one."""
        return self._queue.popleft() if self._queue else None


def forecast(
    journal: Journal,
    pilot: Pilot,
    waiting: int,
    concurrency: int,
    price: Callable[[str], Price | None],
) -> Forecast | None:
    """What the waiting prompts will take.

    Args:
        journal: Of the run.
        pilot: After its prompts have come to their outcomes.
        waiting: Prompts that have none yet.
        concurrency: Chats at the same time.
        price: What a model costs, by its name.

    Returns:
        The forecast; None if none of the pilot's prompts has an outcome.
    """
    samples: list[_Sample] = []
    unpriced: set[str] = set()
    for number in pilot.numbers:
        record = journal.record(number)
        if record is None:
            continue
        costs: dict[str, float] = {}
        calls = [call for turn in record.turns for call in (*turn.discarded, turn)]
        for call in calls:
            found = price(call.model)
            if found is None:
                unpriced.add(call.model)
            else:
                costs[found.currency] = costs.get(found.currency, 0.0) + found.cost(call.usage)
        samples.append(
            _Sample(
                outcome=record.outcome,
                calls=len(calls),
                usage=record.usage,
                costs=costs,
                seconds=record.latency,
            )
        )
    if not samples:
        return None
    outcomes: dict[str, int] = {}
    for sample in samples:
        outcomes[sample.outcome] = outcomes.get(sample.outcome, 0) + 1
    currencies = sorted({currency for sample in samples for currency in sample.costs})
    at_once = max(1, min(concurrency, waiting))
    longest = max(sample.seconds for sample in samples)
    model_time = total([s.seconds for s in samples], waiting)

    def wall(seconds: float) -> float:
        # No faster than the longest chat; the last chats of a run leave slots empty.
        return max(seconds / at_once + longest / 2, longest) if waiting else 0.0

    return Forecast(
        prompts=pilot.prompts,
        waiting=waiting,
        pilot=len(samples),
        outcomes=outcomes,
        calls=total([s.calls for s in samples], waiting),
        prompt_tokens=total([s.usage.prompt_tokens for s in samples], waiting),
        cached_tokens=total([s.usage.cached_tokens for s in samples], waiting),
        completion_tokens=total([s.usage.completion_tokens for s in samples], waiting),
        cost={c: total([s.costs.get(c, 0.0) for s in samples], waiting) for c in currencies},
        unpriced=sorted(unpriced),
        seconds=Estimate(
            expected=wall(model_time.expected),
            low=wall(model_time.low),
            high=wall(model_time.high),
        ),
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
    spread = statistics.stdev(sample)
    error = spread * math.sqrt(1 / len(sample) + 1 / number)
    margin = _student(len(sample) - 1) * error * number
    return Estimate(expected=expected, low=max(0.0, expected - margin), high=expected + margin)


def _student(degrees: int) -> float:
    z = _Z
    return (
        z
        + (z**3 + z) / (4 * degrees)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * degrees**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * degrees**4)
    )
