"""What a chat remembers: what was said, who has not heard it, what its condition has counted."""

from __future__ import annotations

from collections.abc import Sequence

from autogen_agentchat.base import TerminationCondition
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

Message = BaseAgentEvent | BaseChatMessage
Slice = tuple[int, int]
"""Part of a thread: place of its first message, and of the first one after it."""


class Thread:
    """All that was said in a chat, and what of it each agent has not heard yet.

    Args:
        names: Names of the agents.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.messages: list[Message] = []
        self.public: list[int] = []
        """Places in `messages` of what everybody hears: the rest was said inwardly."""
        self.heard: dict[str, int] = dict.fromkeys(names, 0)
        """How many of the public messages each agent has heard, or said itself."""

    def add(self, messages: Sequence[Message], speaker: str | None = None) -> Slice:
        """Adds a task, or what a speaker said in its turn, its message last.

        Returns:
            Where it stands now.
        """
        first, end = len(self.messages), len(self.messages) + len(messages)
        self.messages += messages
        # What an agent says inwardly is for the console, not for the others.
        self.public += range(first if speaker is None else end - 1, end)
        if speaker is not None:
            self.heard[speaker] = len(self.public)
        return first, end

    def news_for(self, name: str) -> list[BaseChatMessage]:
        """What an agent has not heard yet."""
        said = (self.messages[place] for place in self.public[self.heard[name] :])
        return [message for message in said if isinstance(message, BaseChatMessage)]


class Watch:
    """Shows a termination condition every part of a thread once, as it comes.

    It remembers what the condition was shown since it was last reset. Shown again, that gives a
    fresh condition its count back: after `load_state`, and after the condition itself raised or was
    cancelled, when nobody knows what it has counted.

    Args:
        condition: The condition; None never fires.
        thread: What is being said.
    """

    def __init__(self, condition: TerminationCondition | None, thread: Thread) -> None:
        self._condition = condition
        self._thread = thread
        self.parts: list[Slice] = []
        """What the condition is to have seen since it was last reset."""
        self._shown = 0
        self._uncertain = False

    @property
    def fired_from_outside(self) -> bool:
        """Whether the condition has fired, and not by what it was shown here."""
        condition = self._condition
        return condition is not None and condition.terminated and not self._uncertain

    async def look(self) -> str | None:
        """Shows the condition what it has not seen; gives its stop reason if it fires."""
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
        """Begins anew with what is said from now on."""
        self.parts, self._shown, self._uncertain = [], 0, True
        if self._condition is not None:
            await self._condition.reset()
        self._uncertain = False
