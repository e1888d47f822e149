"""Keeps thousands of chats from blocking the event loop."""

from __future__ import annotations

import asyncio
import gc
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


class _Iteration:
    """One iteration of an event loop, as far as chats use it."""

    def __init__(self) -> None:
        self.started: float | None = None

    def end(self) -> None:
        self.started = None


_iterations: WeakKeyDictionary[asyncio.AbstractEventLoop, _Iteration] = WeakKeyDictionary()


async def yield_to_loop() -> None:
    """Returns at once, unless chats have used the loop for long: then in a later iteration.

    In one iteration the loop runs all that is ready, and only then looks at timers and sockets. A
    thousand chats that start, or get their replies, at the same time would block it for as long as
    all of them need; so they are spread over several iterations.
    """
    loop = asyncio.get_running_loop()
    here = _iterations.get(loop)
    if here is None:
        here = _iterations[loop] = _Iteration()
    # An event would wake all of them at once.
    while here.started is not None and loop.time() - here.started > MAX_SECONDS:  # noqa: ASYNC110
        await asyncio.sleep(0)
    if here.started is None:
        here.started = loop.time()
        loop.call_soon(here.end)  # first in the next iteration
