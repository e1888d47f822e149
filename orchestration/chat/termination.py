"""What termination conditions share: each fires once, and they combine with ``|`` and ``&``."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, Self, TypeVar

from autogen_agentchat.base import (
    OrTerminationCondition,
    TerminatedException,
    TerminationCondition,
)
from autogen_agentchat.messages import StopMessage
from pydantic import BaseModel

from orchestration.chat.thread import Message

ConfigT = TypeVar("ConfigT", bound=BaseModel)


@lru_cache(maxsize=64)
def shared_config(model: type[ConfigT], **arguments: Hashable) -> ConfigT:
    """The declarative form of a condition: one object for the same condition of all chats."""
    return model(**arguments)


class Condition(TerminationCondition):
    """A condition that fires once, with its stop reason as the whole message."""

    reason: str
    config: BaseModel
    """Its declarative form: the arguments of its constructor."""

    _fired: bool

    def __init__(self) -> None:
        self._restart()

    @property
    def terminated(self) -> bool:
        """Whether it has fired since it was last reset."""
        return self._fired

    async def __call__(self, messages: Sequence[Message]) -> StopMessage | None:
        """Counts new messages, and fires if it is time to."""
        if self._fired:
            raise TerminatedException(f"{type(self).__name__} has fired already")
        self._count(messages)
        if not self._reached():
            return None
        self._fired = True
        return StopMessage(content=self.reason, source=type(self).__name__)

    @abstractmethod
    def _count(self, messages: Sequence[Message]) -> None:
        """Counts new messages."""

    @abstractmethod
    def _reached(self) -> bool:
        """Whether it is time to stop."""

    def _restart(self) -> None:
        """Starts counting again."""
        self._fired = False

    async def reset(self) -> None:
        """Resets it."""
        self._restart()

    def _to_config(self) -> Any:
        return self.config

    @classmethod
    def _from_config(cls, config: Any) -> Self:
        return cls(**config.model_dump())

    def __or__(self, other: TerminationCondition) -> AnyOf:
        """Fires when either does."""
        return AnyOf(self, other)


class AnyOf(OrTerminationCondition):
    """AutoGen's ``|``, calling its conditions one after the other.

    AutoGen's creates a task for each of them with every message, which costs more than they do.
    """

    component_provider_override = "orchestration.chat.termination.AnyOf"

    async def __call__(self, messages: Sequence[Message]) -> StopMessage | None:
        """Passes all of them the new messages, and fires if any does."""
        if self.terminated:
            raise RuntimeError("a condition has fired already")  # as AutoGen's does
        asked = [await condition(messages) for condition in self._conditions]
        stops = [stop for stop in asked if stop is not None]
        if not stops:
            return None
        return StopMessage(
            content=", ".join(stop.content for stop in stops),
            source=", ".join(stop.source for stop in stops),
        )

    def __or__(self, other: TerminationCondition) -> AnyOf:
        """Fires when any of them or the other does."""
        return AnyOf(*self._conditions, other)


def describe_condition(condition: TerminationCondition) -> dict[str, Any]:
    """A condition for provenance: its component config, or its class alone if it has no config."""
    if isinstance(condition, AnyOf):
        return {"any_of": [describe_condition(each) for each in condition._conditions]}
    try:
        with warnings.catch_warnings(action="ignore"):  # AutoGen, about its own private modules
            return condition.dump_component().model_dump(mode="json")
    except (NotImplementedError, AttributeError):
        return {"provider": f"{type(condition).__module__}.{type(condition).__qualname__}"}
