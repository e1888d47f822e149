"""The state of a chat, passed on with its last turn, so that no agent has to fold all turns."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from agents.turns import Stance, Turn


class ChatState(ABC):
    """What the turns of a chat lead to."""

    turns: list[Turn]
    """The turns that have been applied."""

    @property
    @abstractmethod
    def source(self) -> object:
        """What the chat was given; a stored state is used only for the very same object."""

    @abstractmethod
    def apply(self, turn: Turn) -> Stance | None:
        """Applies a turn; gives the stance that it takes, if it is one of a deliberator."""


StateT = TypeVar("StateT", bound=ChatState)


def state_after(start: StateT, turns: Sequence[Turn]) -> StateT:
    """The state that a sequence of turns leads to.

    Continues from the state that `store_state` left with the last turn, if that is of these very
    turns. It is then no longer stored, since the caller may change it.
    """
    slot = turns[-1].state_slot if turns else []
    state = slot.pop() if slot else None
    if (
        isinstance(state, type(start))
        and state.source is start.source
        and len(state.turns) == len(turns)
        and all(map(operator.is_, state.turns, turns))
    ):
        return state
    for turn in turns:
        start.apply(turn)
    return start


def store_state(state: ChatState) -> None:
    """Stores a state with the last turn that was applied to it."""
    state.turns[-1].state_slot[:] = [state]
