"""The messages of a chat: which agent has received which, and what its condition has seen."""

from __future__ import annotations

from collections.abc import Sequence

from autogen_agentchat.base import TerminationCondition
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

Message = BaseAgentEvent | BaseChatMessage
Slice = tuple[int, int]
"""Part of a thread: positions of its first message and of the first one after it."""


class Thread:
    """All messages of a chat, and which of them each agent has received.

    Args:
        names: Names of the agents.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.messages: list[Message] = []
        self.public: list[int] = []
        """Positions in `messages` of those that all agents receive, unlike inner messages."""
        self.received: dict[str, int] = dict.fromkeys(names, 0)
        """How many of the public messages each agent has received, or sent itself."""

    def add(self, messages: Sequence[Message], speaker: str | None = None) -> Slice:
        """Adds a task, or the messages of a speaker's turn, its response last.

        Returns:
            Where they are.
        """
        first, end = len(self.messages), len(self.messages) + len(messages)
        self.messages += messages
        # An agent's inner messages are for the console, not for the others.
        self.public += range(first if speaker is None else end - 1, end)
        if speaker is not None:
            self.received[speaker] = len(self.public)
        return first, end

    def new_for(self, name: str) -> list[BaseChatMessage]:
        """The messages that an agent has not received yet."""
        new = (self.messages[position] for position in self.public[self.received[name] :])
        return [message for message in new if isinstance(message, BaseChatMessage)]


class ConditionFeed:
    """Passes every part of a thread to a termination condition once.

    It remembers what the condition has seen since it was last reset. Passed again, that restores
    the count of a new condition: after `load_state`, and after the condition itself raised or was
    cancelled, when its count is unknown.

    Args:
        condition: The condition; None never fires.
        thread: The messages.
    """

    def __init__(self, condition: TerminationCondition | None, thread: Thread) -> None:
        self._condition = condition
        self._thread = thread
        self.parts: list[Slice] = []
        """What the condition must have seen since it was last reset."""
        self._shown = 0
        self._uncertain = False

    @property
    def fired_from_outside(self) -> bool:
        """Whether the condition has fired for another reason than what it was passed here."""
        condition = self._condition
        return condition is not None and condition.terminated and not self._uncertain

    async def check(self) -> str | None:
        """Passes the condition what it has not seen; its stop reason if it fires."""
        if self._condition is None:
            return None
        if self._uncertain:
            await self._condition.reset()
            self._shown = 0
        self._uncertain = True
        while self._shown < len(self.parts):
            first, end = self.parts[self._shown]
            stop = await self._condition(self._thread.messages[first:end])
            self._shown += 1
            if stop is not None:
                return stop.content
        self._uncertain = False
        return None

    async def reset(self) -> None:
        """Starts again with the messages from now on."""
        self.parts, self._shown, self._uncertain = [], 0, True
        if self._condition is not None:
            await self._condition.reset()
        self._uncertain = False
