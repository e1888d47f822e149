"""`RateLimiter`: the gate that the attempts of all chats at one endpoint go through.

It has two bounds, since which of them an endpoint has is not known: how many attempts begin a
second (`Pace`), and how many are in flight (`limit`). Both start open. The pace is cut to what is
measured, and is enough for nearly every endpoint: so many calls in flight that take so long are a
rate as well. The limit is cut only where a pace does not help, because nothing at all gets through
while others are served, or because of many 503s; and never below what is being served just then.

Who must wait goes in the order of `CallContext.priority`. There is no polling: a timer runs only
while somebody waits for a time, and an attempt that need not wait costs a few microseconds.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from math import inf
from weakref import WeakKeyDictionary

from agents.models.context import CallContext
from agents.models.pace import Pace

_LONGEST_PAUSE = 60.0
"""Seconds that an endpoint's `Retry-After` may hold up all calls to it."""
_START_SECONDS, _START_RATE = 0.3, 1000.0
"""An idle endpoint's first calls are spread: a ceiling's worth over so many seconds, or so many a
second, whichever is faster."""
_IDLE_AFTER = 1.0
_CUT = 0.9
_NEAR = 0.9
"""Share of a limit in flight from which a refusal is taken to be about it."""
_HEAVY = 0.2
"""Share of attempts answered 503 that is more than bad luck."""
_SMALLEST_STEP = 1 / 16
"""What an answer adds to a limit that was often cut; at first it adds 1."""


class Outcome(Enum):
    """What an attempt says about how many of them the endpoint takes."""

    ANSWERED = auto()
    """It was let through."""
    THROTTLED = auto()
    """429: too many, or too many a second."""
    BUSY = auto()
    """503: too many at once; or it is not well, so it says nothing of a rate."""
    OTHER = auto()
    """Nothing at all."""


class RateLimiter:
    """The gate of one endpoint, within one event loop.

    Every attempt goes `begin` (and `wait`, if that gives 0), then `end`, whatever happens.

    Args:
        label: What displays call the endpoint.
        loop: Whose clock and timers are used.
    """

    def __init__(self, label: str, loop: asyncio.AbstractEventLoop) -> None:
        self.label = label
        self._loop = loop
        self._floor = 1
        self._ceiling: float = inf
        self._limit: float = inf
        self._pace = Pace()
        self._in_flight = 0
        self._number = 0  # of the attempt that was begun last
        self._cut_number = 0  # of the last one that was begun when the limit was cut
        self._step = 1.0
        self._busy = self._counted_from = 0
        self._paused_until = -inf
        self._last_end = -inf
        self._starting = False
        self._start_next = self._start_until = -inf
        self._queue: list[tuple[int, int, asyncio.Future[int]]] = []
        self._arrivals = count()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def bound(self, floor: int, ceiling: int | None) -> None:
        """Takes over a configuration's bounds; where several clients share it, the tighter ones."""
        if ceiling is not None and ceiling < self._ceiling:
            self._ceiling = ceiling
            self._limit = min(self._limit, ceiling)
        self._floor = min(max(self._floor, floor), int(min(self._ceiling, 1 << 30)))

    @property
    def limit(self) -> int | None:
        """Attempts that may be in flight at present; None if there is no bound."""
        return None if self._limit == inf else int(self._limit)

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Attempts that wait to be begun."""
        return self._waiting

    @property
    def pace(self) -> float | None:
        """Attempts that begin a second at most; None if there is no bound."""
        return self._pace.rate

    # Beginning -----------------------------------------------------------------------------------

    def begin(self) -> int:
        """Begins an attempt, if it need not wait.

        Returns:
            Its number, for `end`; 0 if it must wait.
        """
        if self._waiting or self._in_flight + 1 > self._limit:
            return 0
        now = self._loop.time()
        if self._in_flight == 0 and now - self._last_end > _IDLE_AFTER and not self._starting:
            self._starting = True
            self._start_next, self._start_until = now, now + _START_SECONDS
        if self._due(now) > now:
            return 0
        if self._starting and now > self._start_until:
            self._starting = False  # and nobody waits any more
        return self._take(now, waited=False)

    async def wait(self, context: CallContext) -> int:
        """Waits for its turn to begin an attempt.

        Args:
            context: Of the call: its priority, and what may call it off.

        Returns:
            The attempt's number, for `end`.

        Raises:
            CallNotStarted: The run halts.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        heappush(self._queue, (context.priority, next(self._arrivals), future))
        self._waiting += 1
        self._release()
        try:
            if context.stop_signal is None:
                return await future
            number: int = await context.stop_signal.wait(future)
            return number
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.end(future.result(), Outcome.OTHER)  # it was cancelled with the slot in hand
            else:
                future.cancel()
                self._waiting -= 1
                self._release()
            raise

    def _due(self, now: float) -> float:
        """When the next attempt may begin, for all that its number in flight allows."""
        due = max(self._paused_until, self._pace.due(now))
        return max(due, self._start_next) if self._starting else due

    def _take(self, now: float, waited: bool) -> int:
        self._in_flight += 1
        self._number += 1
        self._pace.begin(now, waited)
        if self._starting:
            rate = _START_RATE
            if self._ceiling < inf:
                rate = max(rate, self._ceiling / _START_SECONDS)
            self._start_next = max(self._start_next, now - 0.01) + 1 / rate
        return self._number

    def _release(self) -> None:
        """Lets begin whoever may; sets the timer for the next, if it is a matter of time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._queue:
            future = self._queue[0][2]
            if not future.done():
                if self._in_flight + 1 > self._limit:
                    return
                due = self._due(now)
                if due > now:
                    self._timer = self._loop.call_at(due, self._release)
                    return
                self._waiting -= 1
                future.set_result(self._take(now, waited=True))
            heappop(self._queue)  # begun just now, or gone before

    # Ending --------------------------------------------------------------------------------------

    def end(self, number: int, outcome: Outcome, retry_after: float | None = None) -> None:
        """Ends an attempt, and draws conclusions.

        Args:
            number: As `begin` or `wait` gave it.
            outcome: What it says.
            retry_after: Seconds that the endpoint asked to be left alone.
        """
        self._in_flight -= 1
        now = self._last_end = self._loop.time()
        if outcome is Outcome.ANSWERED:
            self._pace.answered(number, now)
            if self._limit < self._ceiling and self._in_flight + 1 >= int(self._limit):
                # Only a limit that holds something up is worth raising.
                self._limit = min(self._limit + self._step, self._ceiling)
                self._step = min(1.0, self._step * 1.01)
        elif outcome is not Outcome.OTHER and self._doubts_limit(number, outcome, now, retry_after):
            self._cut(number)
        if retry_after is not None:
            self._pause(now, now + min(retry_after, _LONGEST_PAUSE))
        if self._number - self._counted_from > 100:
            self._busy, self._counted_from = self._busy // 2, self._number - 50
        if self._queue:
            self._release()

    def _doubts_limit(
        self, number: int, outcome: Outcome, now: float, retry_after: float | None
    ) -> bool:
        """Whether a refusal is a sign that too many are in flight. A 429 goes to the pace first."""
        if self._in_flight + 1 >= _NEAR * self._limit:
            doubts = True  # it is a bound that was needed before, and just reached
        elif outcome is Outcome.BUSY:
            self._busy += 1
            doubts = self._busy >= max(2, _HEAVY * (self._number - self._counted_from))
        else:
            doubts = False
        if outcome is Outcome.THROTTLED and self._pace.refused(
            number, self._number, now, retry_after
        ):
            self._starting = False  # the pace knows better
            doubts = doubts or self._pace.stuck
        return doubts

    def _cut(self, number: int) -> None:
        """Lowers the limit to what is being served, or by a tenth, whichever is less of a cut."""
        if number <= self._cut_number or not self._in_flight:
            return  # it was cut since; or even a call all alone was refused
        self._cut_number = self._counted_from = self._number
        self._busy = 0
        room = 0.0 if self._limit == inf else _CUT * self._limit
        self._limit = min(max(room, self._in_flight, self._floor), self._limit)
        self._step = max(self._step / 2, _SMALLEST_STEP)

    def _pause(self, now: float, until: float) -> None:
        if until > self._paused_until:
            self._pace.pause(until, until - max(now, self._paused_until))
            self._paused_until = until


_LIMITERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RateLimiter]] = (
    WeakKeyDictionary()
)


def limiter_of(endpoint: str, ceiling: int | None, floor: int) -> RateLimiter:
    """The rate limiter of an endpoint on this event loop, made if there is none."""
    loop = asyncio.get_running_loop()
    limiters = _LIMITERS.setdefault(loop, {})
    if endpoint not in limiters:
        limiters[endpoint] = RateLimiter(endpoint, loop)
    limiters[endpoint].bound(floor, ceiling)
    return limiters[endpoint]


def limiters() -> dict[str, RateLimiter]:
    """The rate limiters of this event loop, by endpoint; none outside of one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return {}
    return dict(_LIMITERS.get(loop, {}))
