"""An event loop whose time is not ours: sleeping costs nothing, and minutes pass in milliseconds.

When nothing is ready to run, its clock jumps to the next timer. Nothing that waits for a socket or
a thread works in it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        self.loop.now += timeout
        return super().select(0) if timeout == 0 else []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps from timer to timer."""

    def __init__(self) -> None:
        self.now = 1_000.0
        """Seconds; may be set forward."""
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a virtual loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
