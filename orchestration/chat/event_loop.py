"""Keeps thousands of chats from blocking the event loop."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

_THRESHOLDS = (5_000, 20, 50)
MAX_SECONDS = 0.01
"""How long chats may start turns before the loop must look at timers and sockets."""


@contextmanager
def relaxed_collector() -> Iterator[None]:
    """Makes Python's garbage collector run less often, and skip the objects that exist already.

    A run creates thousands of objects and hardly any cycles. By default the collector takes a tenth
    of its CPU time, most of it for hundreds of thousands of objects of modules.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


_started: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""When a chat first used the present iteration of an event loop."""


async def yield_to_loop() -> None:
    """Returns at once, unless chats have used the loop for long: then in a later iteration.

    In one iteration the loop runs all that is ready, and only then looks at timers and sockets. A
    thousand chats that start, or get their replies, at the same time would block it for as long as
    all of them need; so they are spread over several iterations.
    """
    loop = asyncio.get_running_loop()
    # An event would wake all of them at once.
    while loop.time() - _started.get(loop, math.inf) > MAX_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0)
    if loop not in _started:
        _started[loop] = loop.time()
        loop.call_soon(_started.pop, loop, None)  # first in the next iteration
