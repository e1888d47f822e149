"""The throttles of this process: one for each endpoint and event loop."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from agents.models.throttle import Throttle

_THROTTLES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Throttle]] = WeakKeyDictionary()


def throttle_of(endpoint: str, ceiling: int | None, floor: int) -> Throttle:
    """The throttle of an endpoint on this event loop, made if there is none."""
    loop = asyncio.get_running_loop()
    here = _THROTTLES.setdefault(loop, {})
    if endpoint not in here:
        here[endpoint] = Throttle(endpoint, loop)
    here[endpoint].bound(floor, ceiling)
    return here[endpoint]


def throttles() -> dict[str, Throttle]:
    """The throttles of this event loop, by endpoint; none outside of one."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return {}
    return dict(_THROTTLES.get(loop, {}))
