"""Handing the state of a chat from one agent to the next, so that none folds all turns again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from agents.turns import Turn

_PLACE = "_state"  # beside a turn's cached properties, which are not dumped either


class State(Protocol):
    """What turns have led to."""

    turns: list[Turn]
    """The turns that were taken into account."""

    def apply(self, turn: Turn) -> Any:
        """Takes a turn into account."""


StateT = TypeVar("StateT", bound=State)


def take(fresh: StateT, about: str, turns: Sequence[Turn]) -> StateT:
    """The state that a sequence of turns leads to.

    Goes on from what `hand_on` left with the last turn, if it is about these. It is taken away from
    the turn, since whoever has it changes it.

    Args:
        fresh: The state before the first turn.
        about: Name of its attribute that must be the very same object in a state that is gone on
            with.
        turns: The turns, in order.
    """
    state = turns[-1].__dict__.pop(_PLACE, None) if turns else None
    if (
        isinstance(state, type(fresh))
        and getattr(state, about) is getattr(fresh, about)
        and len(state.turns) == len(turns)
        and all(mine is yours for mine, yours in zip(state.turns, turns, strict=True))
    ):
        return state
    for turn in turns:
        fresh.apply(turn)
    return fresh


def hand_on(state: State) -> None:
    """Leaves a state with the last turn that it takes into account."""
    state.turns[-1].__dict__[_PLACE] = state
