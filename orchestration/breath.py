"""Keeps very many chats from holding the event loop among themselves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

_COLLECTED_AFTER = (5_000, 20, 50)
LONGEST = 0.01
"""Seconds that chats may begin turns for before the loop comes round."""


@contextmanager
def calm_collector() -> Iterator[None]:
    """Has Python look for garbage less often, and not among what was there before.

    A run makes objects by the thousand and hardly any cycles. As it comes, the collector takes a
    tenth of its CPU time, most of it going through hundreds of thousands of objects of modules.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class _Round:
    """One round of an event loop, as far as chats take part in it."""

    def __init__(self) -> None:
        self.began: float | None = None

    def end(self) -> None:
        self.began = None


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = WeakKeyDictionary()


async def breathe() -> None:
    """Returns at once, unless chats have kept the loop busy for long: then when it is their turn.

    In one round the loop runs all that is ready, and only then looks at timers and sockets. A
    thousand chats that are started, or get their replies, at the same time would hold it for as
    long as all of them need together; so they share it out over several rounds.
    """
    loop = asyncio.get_running_loop()
    here = _rounds.get(loop)
    if here is None:
        here = _rounds[loop] = _Round()
    # An event, instead, would wake all of them at once.
    while here.began is not None and loop.time() - here.began > LONGEST:  # noqa: ASYNC110
        await asyncio.sleep(0)
    if here.began is None:
        here.began = loop.time()
        loop.call_soon(here.end)  # what is scheduled now runs in the next round, and first
