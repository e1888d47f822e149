"""How long an attempt may take: as the models file says, or learned from the model's replies."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

LEAST, MOST = 5.0, 600.0
"""Seconds: bounds of what is learned; the upper one holds until there are replies to learn from."""
_ENOUGH = 8  # replies to learn from
_REMEMBERED = 400
_FACTOR = 5.0  # of the longest recent reply: times of replies have long tails
_LOOK_EVERY = 2.0  # seconds


class Timeouts:
    """The time-out of one model at one endpoint; all its clients share it.

    Args:
        fixed: Seconds, if it is not to be learned.
    """

    def __init__(self, fixed: float | None = None) -> None:
        self._fixed = fixed
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._longest = 0.0
        self._since_looked = 0

    @property
    def most(self) -> float:
        """Upper bound in seconds, whatever is learned."""
        return MOST if self._fixed is None else self._fixed

    @property
    def learned(self) -> bool:
        """Whether it follows from replies."""
        return self._fixed is None and len(self._recent) >= _ENOUGH

    def add(self, seconds: float) -> None:
        """A reply took so long."""
        self._recent.append(seconds)
        self._longest = max(self._longest, seconds)
        self._since_looked += 1
        if self._since_looked >= _REMEMBERED:  # old replies are forgotten
            self._longest, self._since_looked = max(self._recent), 0

    def allowed(self, attempt: int = 1) -> float:
        """Seconds for an attempt: each further one of a call is given twice as many."""
        if not self.learned:
            return self.most
        return min(MOST, max(LEAST, _FACTOR * self._longest) * 2.0 ** (attempt - 1))


class AttemptTimeout:
    """Bounds the time of one attempt, as `asyncio.timeout` does.

    What is allowed may change meanwhile: a first call that hangs is abandoned once others have
    shown how long replies take. Time during which the process was suspended does not count, since
    replies that arrived then are still to be read.
    """

    def __init__(self, timeouts: Timeouts, attempt: int) -> None:
        self._timeouts = timeouts
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._suspended = 0.0
        self._started = 0.0
        self.seconds = 0.0
        """What it took, once it has ended."""

    @property
    def allowed(self) -> float:
        """Seconds after which it is abandoned, as of now."""
        return self._timeouts.allowed(self._attempt)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._started = self._loop.time()
        self._look_in(min(_LOOK_EVERY, self.allowed))

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look, self._loop.time() + seconds)

    def _look(self, due: float) -> None:
        late = self._loop.time() - due
        if late > 1.0:
            self._suspended += late
        left = self._started + self._suspended + self.allowed - self._loop.time()
        if left > 0:
            self._look_in(min(_LOOK_EVERY, left))
        else:
            self._scope.reschedule(self._loop.time())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.seconds = self._loop.time() - self._started - self._suspended
        await self._scope.__aexit__(kind, error, trace)


_TIMEOUTS: dict[tuple[str, str, float | None], Timeouts] = {}


def timeouts_of(base_url: str, model: str, fixed: float | None) -> Timeouts:
    """The time-out that all clients of this model in this process share."""
    return _TIMEOUTS.setdefault((base_url, model, fixed), Timeouts(fixed))


def known_timeouts() -> dict[tuple[str, str], float]:
    """Seconds for first attempts, by address and model."""
    return {key[:2]: timeouts.allowed() for key, timeouts in _TIMEOUTS.items()}


def forget_timeouts() -> None:
    """Forgets what was learned, as when another server now listens at the same address."""
    _TIMEOUTS.clear()
