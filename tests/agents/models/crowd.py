"""A crowd of chats at an endpoint that lets through what it likes, both made of virtual time."""

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
    """What the endpoint lets through; may be changed while it is called."""

    rate: float | None = None
    """Calls a second, by a bucket that holds `burst` of them."""
    burst: float | None = None
    """As many as one second lets through, if left out."""
    at_once: int | None = None
    """Calls at the same time."""
    noise: float = 0.0
    """Share of calls that is refused whatever their rate."""
    down: bool = False
    """Whether it refuses all calls."""

    def __post_init__(self) -> None:
        self._tokens = self.burst or self.rate or 0.0
        self._filled = 0.0
        self._random = random.Random(1)

    def refuse(self, now: float, under_way: int) -> bool:
        if self.down or self._random.random() < self.noise:
            return True
        if self.at_once is not None and under_way >= self.at_once:
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
    """Seconds that an answer takes; a refusal comes after 4 ms."""
    chats: int = 200
    refusal: Outcome = Outcome.THROTTLED
    retry_after: float | None = None
    max_concurrency: int | None = None
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    most_at_once: int = 0

    def run_for(self, seconds: float, meanwhile: Callable[[float], None] | None = None) -> None:
        """Lets them call; `meanwhile` is told the time, every second."""
        run(self._run(seconds, meanwhile))

    def rate(self, begin: float, end: float) -> float:
        """Answers a second between two times."""
        return sum(begin < t <= end for t in self.answered) / (end - begin)

    def share_refused(self, begin: float, end: float) -> float:
        bad = sum(begin < t <= end for t in self.refused)
        return bad / (bad + sum(begin < t <= end for t in self.answered))

    async def _run(self, seconds: float, meanwhile: Callable[[float], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.throttle = RateLimiter("endpoint", self._loop)
        self.throttle.bound(1, self.max_concurrency)
        self._random = random.Random(2)
        self._under_way = 0
        tasks = [asyncio.create_task(self._chat(number)) for number in range(self.chats)]
        for second in range(int(seconds)):
            await asyncio.sleep(1)
            if meanwhile is not None:
                meanwhile(second + 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (self.throttle.in_flight, self.throttle.waiting) == (0, 0), "no slot is lost"

    async def _chat(self, number: int) -> None:
        context = CallContext(priority=number)
        failed = 0
        while True:
            attempt = self.throttle.begin() or await self.throttle.wait(context)
            outcome = Outcome.OTHER
            try:
                outcome = await self._serve()
            finally:
                refused = outcome is self.refusal
                self.throttle.end(attempt, outcome, self.retry_after if refused else None)
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
        await asyncio.sleep(self._random.uniform(0.002, 0.006))
        if self.limits.refuse(self._loop.time(), self._under_way):
            return self.refusal
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            low, high = (
                self.latency if isinstance(self.latency, tuple) else (self.latency, self.latency)
            )
            await asyncio.sleep(self._random.uniform(low, high))
        finally:
            self._under_way -= 1
        return Outcome.ANSWERED
