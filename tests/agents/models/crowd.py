"""A crowd of chats at an endpoint that accepts what it likes, both simulated in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from agents.models.context import CallContext
from agents.models.rate_limiter import Outcome, RateLimiter
from tests.agents.models.clock import run


@dataclass
class Limits:
    """What the endpoint accepts; may be changed while it is called."""

    rate: float | None = None
    """Calls per second, by a token bucket that holds `burst` of them."""
    burst: float | None = None
    """As many as one second lets through, if left out."""
    at_once: int | None = None
    """Calls at the same time."""
    noise: float = 0.0
    """Share of calls that is refused whatever their rate."""
    down: bool = False
    """Whether it refuses all calls."""
    seed: int = 1

    def __post_init__(self) -> None:
        self._tokens = self.burst or self.rate or 0.0
        self._filled = 0.0
        self._random = random.Random(self.seed)

    def refuse(self, now: float, in_flight: int) -> bool:
        if self.down or self._random.random() < self.noise:
            return True
        if self.at_once is not None and in_flight >= self.at_once:
            return True
        if self.rate is None:
            return False
        gained = (now - self._filled) * self.rate
        self._tokens = min(self.burst or self.rate, self._tokens + gained)
        self._filled = now
        if self._tokens < 1:
            return True
        self._tokens -= 1
        return False


@dataclass
class Crowd:
    """Chats that call, each its next call as soon as it has an answer."""

    limits: Limits
    latency: float | tuple[float, float] = 0.2
    """Seconds that an answer takes."""
    chats: int = 200
    refusal: Outcome = Outcome.THROTTLED
    retry_after: float | None = None
    max_concurrency: int | None = None
    round_trip: float = 0.004
    """Seconds after which a refusal comes, half of it on the way to the endpoint."""
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    most_at_once: int = 0

    def run_for(self, seconds: float, meanwhile: Callable[[float], None] | None = None) -> None:
        """Lets them call; `meanwhile` is given the time, every second."""
        run(self._run(seconds, meanwhile))

    def rate(self, begin: float, end: float) -> float:
        """Answers per second between two times."""
        return sum(begin < t <= end for t in self.answered) / (end - begin)

    def share_refused(self, begin: float, end: float) -> float:
        bad = sum(begin < t <= end for t in self.refused)
        return bad / (bad + sum(begin < t <= end for t in self.answered))

    async def _run(self, seconds: float, meanwhile: Callable[[float], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.limiter = RateLimiter(self._loop)
        self.limiter.bound(1, self.max_concurrency)
        self._random = random.Random(self.limits.seed + 1)
        self._in_flight = 0
        tasks = [asyncio.create_task(self._chat(number)) for number in range(self.chats)]
        for second in range(int(seconds)):
            await asyncio.sleep(1)
            if meanwhile is not None:
                meanwhile(second + 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (self.limiter.in_flight, self.limiter.waiting) == (0, 0), "no slot is lost"

    async def _chat(self, number: int) -> None:
        context = CallContext(priority=number)
        failed = 0
        while True:
            attempt = self.limiter.begin() or await self.limiter.wait(context)
            outcome = Outcome.OTHER
            try:
                outcome = await self._serve()
            finally:
                refused = outcome is self.refusal
                self.limiter.end(attempt, outcome, self.retry_after if refused else None)
            now = self._loop.time() - self._start
            if not refused:
                self.answered.append(now)
                failed = 0
                continue
            self.refused.append(now)
            await asyncio.sleep(
                (self.retry_after or 0) + self._random.uniform(0, min(30, 0.5 * 2**failed))
            )
            failed += 1

    async def _serve(self) -> Outcome:
        half = self.round_trip / 2
        await asyncio.sleep(self._random.uniform(0.5 * half, 1.5 * half))
        if self.limits.refuse(self._loop.time(), self._in_flight):
            await asyncio.sleep(half)
            return self.refusal
        self._in_flight += 1
        self.most_at_once = max(self.most_at_once, self._in_flight)
        try:
            low, high = (
                self.latency if isinstance(self.latency, tuple) else (self.latency, self.latency)
            )
            await asyncio.sleep(self._random.uniform(low, high) + half)
        finally:
            self._in_flight -= 1
        return Outcome.ANSWERED
