"""`Pace`: finds out how many calls a second an endpoint lets through, from its 429s alone.

Why not the usual "cut by half, grow by one": it collapses where a few calls are refused at random,
and loses a quarter of the rate where they are not. Three observations do better.

- *While an endpoint throttles, what it accepts is its limit.* Between two 429s, a token bucket was
  empty twice, so the calls accepted in between, over the time, are its rate exactly; saved-up
  bursts do not disturb this. So a cut measures, and goes to 95% of that.
- *Below a limit that is known, no 429 is expected.* Those that come all the same are noise; a cut
  needs clearly more of them above the limit than below.
- *Probing is what 429s are spent on.* The pace grows slowly where it was cut and faster the longer
  nothing is refused, so that a limit that rose is found, and a steady one costs few calls.

Attempts count as accepted from their beginning: a limit is checked before the model is asked, and
answers may take a minute.
"""

from __future__ import annotations

_CUT = 0.95
_UNKNOWN_CUT = 0.7
"""While there is no measurement yet and most calls are refused."""
_NOTHING_CUT = 0.5
"""While nothing at all gets through, which says nothing of the rate."""
_HEAVY = 0.2
"""Share of refused attempts that is acted on at once, noise or not."""
_MANY, _MANY_OF = 0.06, 100
"""Share of refused attempts among so many that is too much to wait for more, unless it was as much
before the last cut."""
_STUCK = 0.5
"""Seconds without any call let through that are more than the distance between two."""
_NEAR = 0.98
"""Share of the known limit from which a 429 is no surprise."""
_SPAN, _ACCEPTED = 1.0, 12
"""Seconds that a measurement needs; or accepted attempts, where many are refused."""
_GAP, _LONGEST_GAP = 5, 0.25
"""Calls left out after a cut, and the seconds that this takes at most. They are no loss: a bucket
saves them up. Without them calls that come a little too close would be refused again."""
_FRESH, _FRESH_CALLS = 10.0, 100
"""Seconds and calls after which a measurement begins anew: the pace was another before."""
_SAVED = 1.0
"""Seconds of its rate that a bucket may save up."""
_GROWTH = (0.005, 0.00025, 0.00001)
"""Relative growth with the seconds, their square and their cube."""
_FORGOTTEN = 4.0
"""Growth without a refusal after which there is no pace: something else bounds the calls."""
_STEP = 0.1
"""Most seconds that one call counts for in the growth: few calls must not be spent on probing."""
_SLOWEST = 1 / 30
_FASTEST = 10_000.0
_IDLE_AFTER = 30.0
"""Seconds without making anyone wait, after which there is no pace any more."""
_CATCH_UP = 0.05
"""Seconds of lateness that are made up for; timers are never quite on time."""


class Pace:
    """The distance between the beginnings of calls, if an endpoint needs one.

    All times are seconds on the clock of the event loop; rates are calls a second.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        """Calls a second; None if they may begin at any time."""
        self.known: float | None = None
        """The endpoint's limit, as last measured."""
        self.stuck = False
        """Whether nothing at all was let through for some time before the last cut."""
        self._nothing_for = 0.0
        self._next = 0.0
        self._bound_at = 0.0
        self._last = 0.0
        # Since the last cut:
        self._cut_at = 0.0
        self._cut_number = 0
        self._cut_rate = 0.0
        self._begun = self._refused = self._unforced = 0
        self._begun_near = self._refused_near = 0
        self._bound = 0.0
        self._patience = 1.0
        self._share_before = 1.0
        self._many = _MANY
        # Time, begun and refused when the last two measurements began.
        self._marks = ((0.0, 0, 0), (0.0, 0, 0))
        # Below the known limit, in all; old ones fade.
        self._begun_below = self._refused_below = 0.0
        # The rate of the last half second, as long as there is no pace.
        self._bin_at = 0.0
        self._bin = self._bin_before = 0

    def due(self, now: float) -> float:
        """When the next call may begin; in the past if it may now."""
        return self._next if self.rate is not None else now

    def begin(self, now: float, waited: bool) -> None:
        """A call begins, whose time has come; after a wait for it or at once."""
        if self.rate is None:
            if now - self._bin_at > 0.5:
                self._bin_before = self._bin if now - self._bin_at < 1.0 else 0
                self._bin, self._bin_at = 0, now
            self._bin += 1
            return
        self._begun += 1
        if now - self._marks[1][0] > _FRESH and self._begun - self._marks[1][1] > _FRESH_CALLS:
            self._marks = (self._marks[1], (now, self._begun, self._refused))
        if self.known is not None:
            if self.rate >= _NEAR * self.known:
                self._begun_near += 1
            else:
                self._begun_below += 1
        interval = 1 / self.rate
        if waited:
            self._bound_at = now
            self._grow(now, min(now - self._last, 2 * interval))
        else:
            self._unforced += 1
            if now - self._bound_at > _IDLE_AFTER + 2 * interval:
                self._drop(now)
        self._last = now
        if self.rate is None:
            return
        self._next = max(self._next + interval, now + interval - _CATCH_UP)

    def _grow(self, now: float, seconds: float) -> None:
        assert self.rate is not None  # noqa: S101 - for mypy
        if self._far_below():
            return  # `answered` brings it back up
        self._bound += min(seconds, _STEP) / self._patience
        first, second, third = _GROWTH
        grown = 1 + self._bound * (first + self._bound * (second + self._bound * third))
        self.rate = max(self.rate, self._cut_rate * grown)
        if grown > _FORGOTTEN:
            self._drop(now)

    def _drop(self, now: float) -> None:
        """There is no pace any more. Should that be wrong, the rate so far is where to begin."""
        self._bin_at, self._bin, self._bin_before = now, 0, int((self.rate or 0.0) / 2)
        self.rate = self.known = None

    def answered(self, number: int, now: float) -> None:
        """An attempt was let through: a pace that is far too low may go up quickly.

        Args:
            number: Of the attempt, in the order of their beginnings.
            now: The time.
        """
        if self.rate is None or number <= self._cut_number:
            return
        if self.known is None:
            self.rate *= 1.02
            if self.rate > _FASTEST:
                self._drop(now)
                return
        elif self._far_below():
            self.rate = min(self.rate * 1.5, _CUT * self.known)
        else:
            return
        # It grows on from there; what was counted since the cut still counts.
        self._cut_rate, self._bound = self.rate, 0.0

    def _far_below(self) -> bool:
        """Whether the pace was cut while nothing got through, which says nothing of the limit."""
        return self.known is not None and self.rate is not None and self.rate < 0.85 * self.known

    def refused(self, number: int, last_number: int, now: float, retry_after: float | None) -> bool:
        """An attempt was answered 429.

        Args:
            number: Of the attempt, in the order of their beginnings.
            last_number: Of the attempt that was begun last.
            now: The time.
            retry_after: Seconds that the endpoint asked to be left alone.

        Returns:
            Whether this is a cut: what is said about attempts from before one counts no more.
        """
        if number <= self._cut_number:
            return False
        if self.rate is None:
            self._cut(self._recent_rate(now), last_number, now, retry_after)
            self._bound_at = now
            return True
        self._refused += 1
        near = self.known is None or self.rate >= _NEAR * self.known
        if near:
            self._refused_near += 1
        else:
            self._refused_below += 1
        rate = self._rate_after(now, near, retry_after)
        if rate is None:
            return False
        self._cut(rate, last_number, now, retry_after)
        return True

    def _rate_after(self, now: float, near: bool, retry_after: float | None) -> float | None:
        """The rate to go on with after a refusal; None if it is no reason for a cut."""
        assert self.rate is not None  # noqa: S101 - for mypy
        span = now - self._cut_at
        accepted = max(0, self._begun - self._refused)
        share = self._refused / max(self._begun, 1)
        if accepted:
            self._nothing_for = 0.0
        self.stuck = False
        few = 2 if self.known is None and accepted else 5
        if self._refused >= few and share >= _HEAVY:
            # So many are no noise, and must not be taken for it later.
            self._begun_below = self._refused_below = 0.0
            if accepted == 0:
                self._nothing_for += span
                self.stuck = self._nothing_for > _STUCK
                self.known = self.known or self.rate
                return self.rate * _NOTHING_CUT
            enough = _ACCEPTED if self._refused < 2 * _ACCEPTED else 5
            if span >= 0.1 and accepted >= enough:
                return self._measure(now)
            return self.rate * _UNKNOWN_CUT if self.known is None else None
        if (
            self._begun >= _MANY_OF
            and share >= self._many
            and (span >= 2 * _SPAN or not self.known)
        ):
            if self.known is not None and 0.6 * self._share_before < share < _HEAVY:
                # The cut before did not help: what refuses these calls is no limit.
                self._many = 2 * share
                return self._cut_rate / _CUT
            return self._measure(now)
        if near and span >= _SPAN and self._refused_near >= self._surprising(retry_after):
            return self._measure(now)
        return None

    def _surprising(self, retry_after: float | None) -> float:
        """How many refusals near the limit are more than noise."""
        noise = self._refused_below / max(self._begun_below, 50.0)
        return (2 if retry_after is None else 1) + 2 * noise * self._begun_near

    def _measure(self, now: float) -> float:
        """The rate to go on with, from what was accepted since the last cut, or of late."""
        assert self.rate is not None  # noqa: S101 - for mypy
        began, begun, refused = self._marks[0]
        accepted = (self._begun - begun) - (self._refused - refused)
        accepted_rate = accepted / max(now - began, 0.1)
        if self._unforced > 0.1 * self._begun and self._refused < _MANY * self._begun:
            # We did not ask for more: what was accepted says nothing of what would have been.
            accepted_rate = max(accepted_rate, self.rate)
        self.known = min(accepted_rate, self.rate)
        return _CUT * self.known

    def _cut(self, rate: float, last_number: int, now: float, retry_after: float | None) -> None:
        self._share_before = self._refused / max(self._begun, 1) if self._begun >= 50 else 1.0
        self.rate = self._cut_rate = max(rate, _SLOWEST)
        self._cut_at, self._cut_number = now, last_number
        self._marks = ((now, 0, 0), (now, 0, 0))
        self._begun = self._refused = self._unforced = 0
        self._begun_near = self._refused_near = 0
        self._bound = 0.0
        # Every probe costs the time that the endpoint then asks for: the longer, the rarer.
        self._patience = 1 + (retry_after or 0.0)
        self._last = now
        self._next = max(self._next, now + max(1 / self.rate, min(_GAP / self.rate, _LONGEST_GAP)))
        if self._begun_below >= _MANY_OF:
            if self._refused_below < 0.02 * self._begun_below:
                self._many = _MANY
            self._begun_below /= 4
            self._refused_below /= 4

    def pause(self, until: float, seconds: float) -> None:
        """Nothing begins before a time, and nothing is made up for afterwards.

        Args:
            until: When calls may begin again.
            seconds: How much longer that is than was known before. Of a long pause, a measurement
                leaves out what no bucket saves up.
        """
        self._next = max(self._next, until)
        self._last = max(self._last, until)
        idle = max(0.0, seconds - _SAVED)
        self._cut_at += idle
        old, new = self._marks
        self._marks = ((old[0] + idle, *old[1:]), (new[0] + idle, *new[1:]))

    def _recent_rate(self, now: float) -> float:
        """The rate up to now, rather too high than too low: it is cut again within moments."""
        elapsed = max(now - self._bin_at, 0.05)
        return max(self._bin / elapsed, self._bin_before / 0.5, 1.0)
