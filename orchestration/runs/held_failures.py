"""Failed prompts whose failure may be the endpoint's: none is blamed until that is known.

What happens to many prompts in a row is no prompt's fault. So a failed result is held back until
the endpoint has served a call that began after the failure. Where too many are held, the endpoint
is down: the run stops, and the prompts are pending as before.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

MOST_IN_A_ROW = 10
"""Prompts that may fail in a row; twice the number of chats at once, if that is more."""


class HeldFailure(NamedTuple):
    """A result that is held back."""

    failed_at: float
    """In the event loop's time."""
    cause: str
    store: Callable[[], Awaitable[None]]


class HeldFailures:
    """The failures of a session that are held back.

    Args:
        concurrency: Chats at the same time.
    """

    def __init__(self, concurrency: int) -> None:
        self._most = max(MOST_IN_A_ROW, 2 * concurrency)
        self._held: list[HeldFailure] = []

    def __len__(self) -> int:
        return len(self._held)

    def add(self, failed_at: float, cause: str, store: Callable[[], Awaitable[None]]) -> None:
        """Holds a failure back; `store` stores it. See `HeldFailure`."""
        self._held.append(HeldFailure(failed_at, cause, store))

    def too_many(self, served: bool, at_end: bool) -> str | None:
        """The cause of the last failure, if there are so many that the endpoint must be down.

        Args:
            served: Whether the endpoint has served a call in this session.
            at_end: Whether there is no further prompt.
        """
        most = 1 if at_end and not served else self._most
        return self._held[-1].cause if len(self._held) >= most else None

    async def release(self, served_from: float) -> None:
        """Stores the failures after which the endpoint is known to have worked.

        Args:
            served_from: When the last of the calls began that it has served.
        """
        due = [failure for failure in self._held if failure.failed_at <= served_from]
        self._held = [failure for failure in self._held if failure.failed_at > served_from]
        for failure in due:
            await failure.store()
