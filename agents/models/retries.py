"""The attempts of one call: when the next may begin, and when it is enough."""

from __future__ import annotations

import asyncio
import random

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

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds that the wait after the first failed attempt, and after any, takes at most."""
_RETRIED = (EndpointOverloaded, EndpointTimeout, EndpointUnreachable, UnusableAnswer)

_ANSWERED_BEFORE: set[str] = set()
"""Endpoints that have answered in this process, with whatever status."""


class Retries:
    """Counts the attempts of one call, waits between them, and tells the throttle and the observer.

    Args:
        max_retries: Attempts after the first.
        seconds: How long the call may go on being tried; waiting for a slot does not count, since
            that is the queue's doing and not the call's.
        throttle: Of the endpoint.
        where: The endpoint, for the observer.
    """

    def __init__(self, max_retries: int, seconds: float, throttle: RateLimiter, where: str) -> None:
        self.made = 0
        """Attempts so far."""
        self._max = 1 + max_retries
        self._left = self._seconds = seconds
        self._throttle = throttle
        self._where = where
        self._context = CALL.get()
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._number = 0

    async def begin(self) -> None:
        """Waits until an attempt may begin.

        Raises:
            CallNotStarted: The run is stopping.
        """
        context = self._context
        if context.stop_signal is not None:
            context.stop_signal.check()
        self._number = self._throttle.begin() or await self._throttle.wait(context)
        self._began = self._loop.time()
        self.made += 1

    def end(self, result: EndpointResult | EndpointError | None) -> None:
        """The attempt has ended: with a reply, an error, or neither if it was cancelled."""
        self._left -= self._loop.time() - self._began
        outcome, retry_after = Outcome.OTHER, None
        if isinstance(result, EndpointOverloaded):
            retry_after = result.retry_after
            if isinstance(result, EndpointThrottled):
                outcome = Outcome.THROTTLED
            elif result.status == 503:
                outcome = Outcome.BUSY
        elif not isinstance(result, EndpointError | None):
            outcome = Outcome.ANSWERED
        if not isinstance(result, EndpointTimeout | EndpointAbsent | None):
            _ANSWERED_BEFORE.add(self._where)
        self._throttle.end(self._number, outcome, retry_after)

    def answered(self) -> None:
        """The attempt got a reply."""
        if self._context.observer is not None:
            self._context.observer.attempt_answered(self._where)

    def json_mode_rejected(self, error: EndpointError) -> None:
        """The endpoint does not know the form of the request; another is tried at once."""
        self._tell(error, 0.0)
        self.made -= 1  # a retry it is not

    async def failed(self, error: EndpointError) -> None:
        """The attempt got no reply; returns when it is time for the next.

        Raises:
            EndpointError: There is none.
            CallNotStarted: There would be one, but the run is stopping.
        """
        wait = self._wait(error)
        self._tell(error, wait)
        asked = error.retry_after if isinstance(error, EndpointThrottled) else None
        if asked is not None and asked > max(self._seconds, 60.0):
            # A limit of the hour or the day: nobody's prompt is to blame, and nobody's will do.
            raise QuotaExhausted(
                f"{self._where} asks to be left alone for {asked / 60:.0f} minutes (429).",
                "Start the same command again then: what is done stays done.",
            )
        if wait is None:
            raise error.after(self.made)
        self._left -= wait
        if self._context.stop_signal is None:
            await asyncio.sleep(wait)
        else:
            await self._context.stop_signal.sleep(wait)

    def _wait(self, error: EndpointError) -> float | None:
        """Seconds until the next attempt; None if there is to be none."""
        if not isinstance(error, _RETRIED):
            return None
        # Full jitter: calls that failed together must not come back together.
        wait = random.uniform(0.0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (self.made - 1)))
        enough = self.made >= self._max
        if isinstance(error, EndpointAbsent) and self._max > 1:
            # Where nobody has ever answered, the address is wrong. Later, the server is being
            # restarted, which takes as long as it takes.
            enough = self.made >= 2 and self._where not in _ANSWERED_BEFORE
        if isinstance(error, EndpointOverloaded) and error.retry_after is not None:
            wait += error.retry_after
        once_more = isinstance(error, EndpointTimeout) and self.made == 1
        return wait if not enough and (wait <= self._left or once_more) else None

    def _tell(self, error: EndpointError, wait: float | None) -> None:
        if self._context.observer is not None:
            self._context.observer.attempt_failed(self._where, error, wait)
