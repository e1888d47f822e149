"""Retries: which failed attempts of a call are repeated, when, and for how long."""

from __future__ import annotations

import asyncio
import random

from agents.models.config import EndpointConfig
from agents.models.context import CALL
from agents.models.errors import (
    EndpointAbsent,
    EndpointError,
    EndpointOverloaded,
    EndpointThrottled,
    EndpointTimeout,
    EndpointUnreachable,
    QuotaExhausted,
    UnusableAnswer,
)
from agents.models.rate_limiter import Outcome, RateLimiter
from agents.models.response import EndpointResult
from agents.models.usage import NO_USAGE, Usage

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds: upper bounds of the wait after the first failed attempt, and after any."""
_RETRIED = (EndpointOverloaded, EndpointTimeout, EndpointUnreachable, UnusableAnswer)

_FEW = 4
"""Attempts at an endpoint that has not given a single reply yet."""
_MOST_BILLED = 2
"""Answers that are billed and cannot be used, for one call."""

_ANSWERED_BEFORE: set[str] = set()
"""Endpoints that have answered in this process, with any status."""
_SERVED_BEFORE: set[str] = set()
"""Endpoints that have given a reply in this process."""


def forget_answers() -> None:
    """Forgets which endpoints have answered."""
    _ANSWERED_BEFORE.clear()
    _SERVED_BEFORE.clear()


class Retries:
    """The attempts of one call, in this order: `start`, `end`, and `after_failure` if it failed.

    Waits for the rate limiter before each attempt and between attempts, and informs the limiter and
    the call's observer.

    Args:
        config: Of the endpoint: how many attempts, for how long.
        limiter: Of the endpoint.
    """

    def __init__(self, config: EndpointConfig, limiter: RateLimiter) -> None:
        self.made = 0
        """Attempts so far."""
        self._config = config
        # Waiting for the limiter does not count: that depends on other calls, not on this one.
        self._seconds_left = config.retry_seconds
        self._limiter = limiter
        self._context = CALL.get()
        self._loop = asyncio.get_running_loop()
        self._started_at = 0.0
        self._number = 0
        self._billed = NO_USAGE
        self._unusable = self._abandoned = 0

    async def start(self) -> float:
        """Waits until an attempt may begin. Returns the time, as the event loop counts it.

        Raises:
            CallNotStarted: The run is stopping.
        """
        if self._context.stop_signal is not None:
            self._context.stop_signal.check()
        self._number = self._limiter.begin() or await self._limiter.wait(self._context)
        self._started_at = self._loop.time()
        self.made += 1
        return self._started_at

    def end(self, result: EndpointResult | EndpointError | None) -> None:
        """The attempt has ended with a reply or an error; None if it was cancelled."""
        self._seconds_left -= self._loop.time() - self._started_at
        outcome, retry_after = Outcome.OTHER, None
        if isinstance(result, EndpointOverloaded):
            retry_after = result.retry_after
            if isinstance(result, EndpointThrottled):
                outcome = Outcome.THROTTLED
            elif result.status == 503:
                outcome = Outcome.BUSY
        elif isinstance(result, EndpointResult):
            outcome = Outcome.ANSWERED
            _SERVED_BEFORE.add(self._config.base_url)
        if not isinstance(result, EndpointTimeout | EndpointAbsent | None):
            _ANSWERED_BEFORE.add(self._config.base_url)
        if isinstance(result, EndpointError):
            self._bill(result.billed)
            self._abandoned += isinstance(result, EndpointTimeout)
        self._limiter.end(self._number, outcome, retry_after)
        if isinstance(result, EndpointResult) and self._context.observer is not None:
            self._context.observer.attempt_answered(self._config.base_url)

    def probed(self, result: EndpointResult | EndpointError) -> None:
        """A probe was answered; what it cost belongs to the call."""
        if isinstance(result, EndpointResult):
            self._bill(result.tokens)
            if self._context.observer is not None:
                self._context.observer.attempt_answered(self._config.base_url)
        else:
            self._bill(result.billed)
            self._notify(result, 0.0)

    def _bill(self, usage: Usage) -> None:
        self._billed += usage
        self._unusable += usage.tokens > 0

    def adapted(self, error: EndpointError) -> None:
        """The request is repeated at once in another form, which is not a retry."""
        self._notify(error, 0.0)
        self.made -= 1

    def settle(self, result: EndpointResult) -> EndpointResult:
        """The result with what the call took beside it."""
        result.attempts, result.billed = self.made, self._billed
        result.unusable, result.abandoned = self._unusable, self._abandoned
        return result

    async def after_failure(self, error: EndpointError) -> None:
        """Returns when it is time for the next attempt.

        Raises:
            EndpointError: There is none.
            CallNotStarted: There would be one, but the run is stopping.
        """
        wait = self._wait_after(error)
        self._notify(error, wait)
        retry_after = error.retry_after if isinstance(error, EndpointThrottled) else None
        if retry_after is not None and retry_after > max(self._config.retry_seconds, 60.0):
            # A limit per hour or per day: it applies to every prompt of the run.
            error = QuotaExhausted(
                f"{self._config.base_url} asks to wait {retry_after / 60:.0f} minutes (429).",
                "Start the same command again then: finished work is kept.",
            )
            wait = None
        if wait is None:
            error.billed, error.unusable = self._billed, self._unusable
            error.abandoned = self._abandoned
            raise error.after(self.made)
        self._seconds_left -= wait
        if self._context.stop_signal is None:
            await asyncio.sleep(wait)
        else:
            await self._context.stop_signal.sleep(wait)

    def _wait_after(self, error: EndpointError) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        if not isinstance(error, _RETRIED):
            return None
        # Full jitter: calls that failed together must not come back together.
        wait = random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self.made - 1)))
        last = self.made > self._config.max_retries
        if isinstance(error, EndpointAbsent) and self._config.max_retries > 0:
            # An address that never answered is probably wrong. One that did is probably being
            # restarted, which may take longer than the attempts would.
            last = self.made >= 2 and self._config.base_url not in _ANSWERED_BEFORE
        elif self.made >= _FEW and self._config.base_url not in _SERVED_BEFORE:
            # One that is starting says so by 503, and one that is busy by 429.
            last = last or getattr(error, "status", 0) not in (429, 503)
        if error.billed.tokens and self.made >= _MOST_BILLED:
            last = True
        if isinstance(error, EndpointOverloaded) and error.retry_after is not None:
            wait += error.retry_after
        first_timeout = isinstance(error, EndpointTimeout) and self.made == 1
        return wait if not last and (wait <= self._seconds_left or first_timeout) else None

    def _notify(self, error: EndpointError, retry_in: float | None) -> None:
        if self._context.observer is not None:
            self._context.observer.attempt_failed(self._config.base_url, error, retry_in)
