"""`RateLimiter`: the gate that the attempts of all chats at one endpoint pass through.

It has two bounds, both open at first: attempts in flight, and attempts per second. The second is
found as follows; halving on each 429 (AIMD) would collapse where a few calls are refused at random.

- Limits are measured. Between two 429s of a limit a token bucket was empty twice, so what was
  accepted in between, divided by the time, is the limit, whatever bursts it saves up.
- Noise is what no rate avoids. Where many are refused, the rate is halved until the share of 429s
  no longer falls: what remains is noise. If no higher rate was refused more, there is no limit, and
  the rate goes back to what it was. A limit is raised by the noise.
- Probing costs 429s. From just below a limit, the rate grows slowly at first, then faster, until
  there are more 429s than noise explains (a CUSUM test). So a limit that rose is found.
- A 429 tells that the attempts before it were accepted, since limits are checked before a model
  runs: 429s come soon, and about in order. Attempts that began at another rate do not count.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from heapq import heappop, heappush
from itertools import count
from math import inf, log
from weakref import WeakKeyDictionary

from agents.models.config import RateLimit
from agents.models.context import CallContext

_SAMPLE = 40  # attempts that tell a share of refusals: one of 0.3 to within 0.07
_LOW, _HIGH = 0.1, 0.5  # shares refused at rates that are about right, and far too high
_EVIDENCE = 6.0  # log odds from which refusals are more than chance
_PROBABLE = 1.9  # the same where each costs a pause that the endpoint asks for
_SOON = 0.5  # seconds within which refusals come back


class Outcome(Enum):
    """What an attempt says about the endpoint's limits."""

    ANSWERED = auto()  # it was accepted
    THROTTLED = auto()  # 429: too many attempts per second, or in flight
    BUSY = auto()  # 503: too many in flight; or a failure, which says nothing about a rate
    OTHER = auto()  # nothing


@dataclass
class _Epoch:
    """Attempts that began at one rate, numbered in that order, as far as their fate is known."""

    start: int  # number of the last attempt before it
    start_clock: float
    seen: int  # number of the last attempt whose fate is known
    seen_clock: float
    refused: int = 0
    clean: int = 0  # attempts accepted since the last refusal
    excess: float = 0.0  # evidence for more refusals than noise explains
    probing: float = 0.0  # seconds of growth
    crossed: bool = False  # whether the rate has grown beyond the known limit

    @property
    def begun(self) -> int:
        return self.seen - self.start

    @property
    def accepted(self) -> int:
        return self.begun - self.refused

    @property
    def share(self) -> float:
        """Of refusals."""
        return self.refused / max(self.begun, 1)

    @property
    def accepted_rate(self) -> float:
        return self.accepted / max(self.seen_clock - self.start_clock, 0.05)

    def evidence(self, share: float, other: float) -> float:
        """Log odds for one share of refusals against another."""
        share, other = min(share, 0.98), min(other, 0.97)
        return self.refused * log(share / other) + self.accepted * log((1 - share) / (1 - other))


@dataclass
class _Test:
    """A descent through rates, to tell a limit from noise."""

    top: float  # the rate before it
    share: float | None = None  # of refusals at the last rate; None if not fit to compare with
    accepted: float = 0.0  # attempts accepted per second at the last rate
    limited: float = 0.0  # the most of these at a rate where more than noise was refused


class _RateFinder:
    """Finds how many attempts per second an endpoint accepts, from its 429s alone.

    A limit is known, and the rate grows from just below it; or a test is under way; or neither,
    and the rate doubles until too much is refused.
    """

    def __init__(self, settings: RateLimit) -> None:
        self.rate = inf  # attempts per second
        self.next = -inf  # when the next attempt may begin
        self.nothing_accepted = False  # for some time, up to the last 429
        self._settings = settings
        self._limit: float | None = None
        self._test: _Test | None = None
        self._noise_begun = self._noise_refused = 0.0
        self._number = 0  # of the attempt that began last
        self._now = self._last = self._needed_at = -inf
        self._clock = 0.0
        self._nothing_since = inf
        self._patience = 1.0
        self._epoch = _Epoch(0, 0.0, 0, 0.0)

    def begin(self, number: int, now: float, waited: bool) -> float:
        """An attempt begins. Returns the clock, for `refused`."""
        interval, gap = 1 / self.rate, max(0.0, now - self._last)
        self._number, self._now, self._last = number, now, now
        # Idle times do not count, except for pauses up to what a bucket saves up.
        self._clock += min(gap, interval + (1.0 if waited else 0.1))
        self.next = max(self.next + interval, now + interval - 0.05)  # timers are often late
        if waited:
            self._needed_at = now
            self._grow(min(gap, 0.1))  # where calls are few, they are not spent on probing
        elif now - self._needed_at > 30 + 2 * interval:
            self._test = None  # the rate has made no difference for long
            self._restart(inf)
        if self._clock - self._epoch.seen_clock > _SOON:
            self._nothing_since = inf
            self._see(number - 1, self._clock, 0)
            self._judge()
        return self._clock

    def _grow(self, seconds: float) -> None:
        if self._limit is None:
            return
        epoch = self._epoch
        epoch.probing += seconds / self._patience
        growth = self._settings.growth * epoch.probing * (1 + epoch.probing / 30) ** 2
        self.rate = (1 - self._settings.margin) * self._limit * (1 + growth)
        epoch.crossed = self.rate > self._limit
        if self.rate > 2 * self._limit:
            self._limit = None  # it rose

    def refused(self, number: int, clock: float, now: float, retry_after: float | None) -> None:
        """An attempt was answered 429; `clock` is what `begin` returned."""
        epoch, self._now, self._needed_at = self._epoch, now, now
        if number <= epoch.start:
            return
        self._see(number, clock, 1)
        self._nothing_since = inf if epoch.accepted else min(self._nothing_since, now)
        self.nothing_accepted = now - self._nothing_since > _SOON
        # Every probe costs the pause that the endpoint asks for: the longer, the rarer.
        self._patience = 1 + (retry_after or 0.0)
        if retry_after is not None and epoch.accepted > 10 and epoch.excess > _PROBABLE:
            self._settle(epoch.accepted_rate)
        else:
            self._judge()

    def _see(self, number: int, clock: float, refused: int) -> None:
        """The fate of the attempts up to this one is known; the last one may be refused."""
        epoch, noise = self._epoch, max(self._noise, 0.003)
        accepted, more = max(0, number - epoch.seen - refused), 1.15 * noise + 0.02
        epoch.excess = max(0.0, epoch.excess + accepted * log((1 - more) / (1 - noise)))
        epoch.excess += refused * log(more / noise)
        epoch.seen, epoch.seen_clock = max(epoch.seen, number), max(epoch.seen_clock, clock)
        epoch.refused += refused
        epoch.clean = 0 if refused else epoch.clean + accepted
        if not refused if self._limit is None else not epoch.crossed:
            self._learn(accepted + refused, refused)  # below a known limit, refusals are noise

    def _judge(self) -> None:
        """Draws conclusions from what is known of the epoch."""
        epoch = self._epoch
        if epoch.evidence(0.8, max(0.3, 1.3 * self._noise)) > 4:
            self._descend(fit=False)
        elif self._test is not None:
            self._compare(self._test)
        elif epoch.excess > _EVIDENCE and epoch.crossed:
            self._settle(epoch.accepted_rate)
        elif epoch.excess > _EVIDENCE:
            self._test = _Test(self._used_rate)
            self._restart(self._test.top)
        elif self._limit is None and (epoch.begun >= _SAMPLE or epoch.clean >= 4):
            self._restart(max(self.rate, 2 * self._used_rate))

    def _restart(self, rate: float) -> None:
        """Begins an epoch."""
        rate = max(rate, self._settings.min_rate)
        due = self._now + 1 / rate
        self.next = min(due, self.next) if rate > self.rate else due
        self.rate, self._last, self._limit = rate, self._now, None
        self._needed_at = self._now
        self._epoch = _Epoch(self._number, self._clock, self._number, self._clock)

    @property
    def _used_rate(self) -> float:
        """The rate at which the epoch's attempts did begin."""
        seconds = max(self._clock - self._epoch.start_clock, 0.05)
        return min(self.rate, (self._number - self._epoch.start) / seconds)

    def _settle(self, accepted_rate: float) -> None:
        """Goes just below a limit."""
        self._test = None
        limit = accepted_rate / (1 - min(self._noise, _HIGH))
        self._restart((1 - self._settings.margin) * limit)
        self._limit = limit

    # Noise ---------------------------------------------------------------------------------------

    @property
    def _noise(self) -> float:
        """Share of attempts that are refused at any rate."""
        return self._noise_refused / (self._noise_begun + 1)

    def _learn(self, begun: int, refused: int, memory: float = 500.0) -> None:
        fading = min(1.0, memory / max(self._noise_begun, 1.0))
        self._noise_begun = fading * self._noise_begun + begun
        self._noise_refused = fading * self._noise_refused + refused

    def _descend(self, fit: bool) -> None:
        """Goes to half the rate. A share that was watched until it was high is not `fit`."""
        test, epoch = self._test or _Test(self._used_rate), self._epoch
        self._test = test
        test.share = epoch.share if fit else None
        test.accepted = epoch.accepted_rate
        self._restart(self._used_rate / 2)

    def _compare(self, test: _Test) -> None:
        """Whether fewer are refused at this rate than at the last one."""
        epoch = self._epoch
        if test.share is None:  # of a rate that was far too high: this is the first to compare with
            if epoch.clean > 5:
                test.limited = test.accepted
                self._conclude(test)
            elif epoch.accepted >= _SAMPLE and epoch.share > _LOW:
                self._descend(fit=True)
            elif epoch.accepted >= _SAMPLE:
                self._learn(epoch.begun, epoch.refused)
                self._settle(self.rate * (1 - epoch.share))  # whether or not there was demand
            return
        evidence = epoch.evidence(test.share, test.share / 2)
        if abs(evidence) < 3 and epoch.begun < 2 * _SAMPLE:
            return
        if evidence < -3:
            test.limited = max(test.limited, test.accepted)
        if epoch.share < _LOW or (evidence > -3 and epoch.share < _HIGH and epoch.begun >= _SAMPLE):
            self._conclude(test)
        elif epoch.begun >= _SAMPLE:
            self._descend(fit=True)

    def _conclude(self, test: _Test) -> None:
        """What is still refused at this rate is noise."""
        epoch = self._epoch
        if epoch.accepted_rate < 0.8 * test.accepted:
            self._learn(epoch.begun, epoch.refused, memory=_SAMPLE)
        self._test = None
        if test.limited:
            self._settle(test.limited)
        else:
            self._restart(test.top)


class RateLimiter:
    """The gate of one endpoint, within one event loop.

    Every attempt calls `begin` (and `wait`, if that returns 0), then `end`, whatever happens.
    Waiting attempts start in the order of `CallContext.priority`. A timer runs only while an
    attempt waits for a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: RateLimit | None = None) -> None:
        self._loop = loop
        self._settings = settings or RateLimit()
        self._rates = _RateFinder(self._settings)
        self._floor, self._ceiling, self._limit = 1.0, inf, inf  # of attempts in flight
        self._step = 1.0  # what an answer adds to the limit
        self._cut_number = 0  # of the last attempt that began before the limit was cut
        self._busy = self._busy_from = 0  # 503s of late, and the number from which they count
        self._number = 0  # of the attempt that began last
        self._clocks: dict[int, float] = {}  # of the attempts in flight
        self._paused_until = self._last_end = -inf
        self._ramp_next = self._ramp_until = -inf
        self._queue: list[tuple[int, int, asyncio.Future[int]]] = []
        self._arrivals = count()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def bound(self, floor: int, ceiling: int | None) -> None:
        """Bounds the attempts in flight; the tighter bounds of several clients hold."""
        self._ceiling = min(self._ceiling, ceiling or inf)
        self._limit = min(self._limit, self._ceiling)
        self._floor = min(max(self._floor, floor), self._ceiling)

    @property
    def concurrency_limit(self) -> int | None:
        """Attempts that may be in flight; None if there is no bound."""
        return None if self._limit == inf else int(self._limit)

    @property
    def rate_limit(self) -> float | None:
        """Attempts that may begin per second; None if there is no bound."""
        return None if self._rates.rate == inf else self._rates.rate

    @property
    def in_flight(self) -> int:
        """Attempts in flight."""
        return len(self._clocks)

    @property
    def waiting(self) -> int:
        """Attempts that wait to begin."""
        return self._waiting

    def begin(self) -> int:
        """Begins an attempt, and returns its number, for `end`; 0 if it must `wait`."""
        if self._waiting or len(self._clocks) + 1 > self._limit:
            return 0
        now = self._loop.time()
        if not self._clocks and now - self._last_end > 1 and now > self._ramp_until:
            self._ramp_next, self._ramp_until = now, now + self._settings.ramp_seconds
        return self._start(now, waited=False) if self._due(now) <= now else 0

    async def wait(self, context: CallContext) -> int:
        """Waits for the turn of an attempt, and begins it. Returns its number, for `end`.

        Raises:
            CallNotStarted: The run is stopping.
        """
        future: asyncio.Future[int] = self._loop.create_future()
        heappush(self._queue, (context.priority, next(self._arrivals), future))
        self._waiting += 1
        self._release()
        try:
            if context.stop_signal is None:
                return await future
            return await context.stop_signal.wait(future)
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.end(future.result(), Outcome.OTHER)  # cancelled after its turn had come
            else:
                future.cancel()
                self._waiting -= 1
                self._release()
            raise

    def _due(self, now: float) -> float:
        """When the next attempt may begin, as far as time is concerned."""
        ramping = now <= self._ramp_until and self._rates.rate == inf
        ramp = self._ramp_next if ramping else -inf
        return max(self._paused_until, self._rates.next, ramp)

    def _start(self, now: float, waited: bool) -> int:
        self._number += 1
        self._clocks[self._number] = self._rates.begin(self._number, now, waited)
        if now <= self._ramp_until:
            rate = max(300, self._ceiling if self._ceiling < inf else 0)
            step = self._settings.ramp_seconds / rate
            self._ramp_next = max(self._ramp_next, now - 0.01) + step
        return self._number

    def _release(self) -> None:
        """Starts the attempts that may start; sets the timer if the next must wait for a time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        while self._queue:
            future = self._queue[0][2]
            if not future.done():
                if len(self._clocks) + 1 > self._limit:
                    return
                due = self._due(now)
                if due > now:
                    self._timer = self._loop.call_at(due, self._release)
                    return
                self._waiting -= 1
                future.set_result(self._start(now, waited=True))
            heappop(self._queue)  # started just now, or cancelled before

    def end(self, number: int, outcome: Outcome, retry_after: float | None = None) -> None:
        """Ends an attempt, and adapts the limits. `retry_after` holds up all attempts."""
        clock, now = self._clocks.pop(number), self._loop.time()
        self._last_end = now
        in_flight = len(self._clocks) + 1
        if outcome is Outcome.ANSWERED and in_flight > self._limit - 1:
            # Only a limit that holds something up is worth raising.
            self._limit = min(self._limit + self._step, self._ceiling)
            self._step = min(1.0, self._step * 1.01)
        elif outcome in (Outcome.BUSY, Outcome.THROTTLED):
            if outcome is Outcome.THROTTLED:
                self._rates.refused(number, clock, now, retry_after)
            else:
                self._busy += 1
            at_limit = self._limit < self._ceiling and in_flight >= 0.9 * self._limit
            stuck = outcome is Outcome.THROTTLED and self._rates.nothing_accepted
            busy = self._busy >= max(2, 0.2 * (self._number - self._busy_from))
            if (at_limit or stuck or busy) and number > self._cut_number:
                self._cut()
        if self._number - self._busy_from > 100:
            self._busy, self._busy_from = self._busy // 2, self._number - 50
        if retry_after is not None:
            pause = min(retry_after, self._settings.max_pause)
            self._paused_until = max(self._paused_until, now + pause)
            self._rates.next = max(self._rates.next, self._paused_until)
        if self._queue:
            self._release()

    def _cut(self) -> None:
        """Lowers the limit to what is being served, or by a tenth, whichever is less of a cut."""
        if not self._clocks:
            return  # a single attempt was refused
        self._cut_number = self._busy_from = self._number
        self._busy = 0
        room = 0.0 if self._limit == inf else 0.9 * self._limit
        self._limit = min(max(room, len(self._clocks), self._floor), self._limit)
        self._step = max(self._step / 2, 1 / 16)


_LIMITERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RateLimiter]] = (
    WeakKeyDictionary()
)


def limiter_of(endpoint: str, settings: RateLimit | None = None) -> RateLimiter:
    """The limiter that an endpoint's clients on this event loop share; the first settings hold."""
    loop = asyncio.get_running_loop()
    limiters = _LIMITERS.setdefault(loop, {})
    if endpoint not in limiters:
        limiters[endpoint] = RateLimiter(loop, settings)
    return limiters[endpoint]


def limiters() -> dict[str, RateLimiter]:
    """The rate limiters of this event loop, by endpoint; none outside of one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return {}
    return dict(_LIMITERS.get(loop, {}))
