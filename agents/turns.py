"""A turn: what one agent said, and everything that is needed to replay it; the state after turns.

Turns travel through the group chat as `TurnMessage`, are what an agent builds its prompt from, and
end up in the record as they are. The state is passed on with the last turn, so that no agent has to
apply all turns again.
"""

from __future__ import annotations

import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, TypeVar

from autogen_agentchat.messages import BaseChatMessage, MessageFactory, StructuredMessage
from autogen_core.models import AssistantMessage, UserMessage
from pydantic import BaseModel, Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from agents.models.usage import Usage
from agents.parsing import find_object
from agents.replies import AnyReply, Role

GUEST = "guest"
"""The role in turns of AutoGen agents that know nothing of policies."""

TurnOutcome: TypeAlias = Literal["completed", "refused", "malformed", "truncated"]
Stance: TypeAlias = Literal["accepts", "revises", "contests", "neither"]

_SHARED: set[str] = set()


def share_fields_set(value: Any) -> None:
    """Replaces pydantic's record of which fields an object was given by one that all share.

    That record is a set of 200 to 700 bytes per object, used by `exclude_unset` alone, which we do
    not call, and thousands of chats are live at the same time. Lists and nested objects are
    included. This is a private attribute of pydantic, used because it decides whether a target is
    met: the process of 2,000 live chats peaks at 245 MB with it and at 277 MB without, of at most
    250 (`python -m tests.bench memory`). The object must not be changed any more.
    """
    if isinstance(value, BaseModel):
        if value.__pydantic_fields_set__ is _SHARED:
            return  # done before, nested objects included
        object.__setattr__(value, "__pydantic_fields_set__", _SHARED)
        value = list(vars(value).values())
    if isinstance(value, list | tuple):
        for part in value:
            share_fields_set(part)


class Call(BaseModel, extra="forbid"):
    """One reply of a model, as it came."""

    model: str
    """Name of the model in the configuration."""
    served_model: str | None = None
    """What the endpoint says that it served; None where it does not say."""
    raw: str
    """Text of the reply, unchanged."""
    finish_reason: str
    """`stop`, `length`, `content_filter`, or `unknown`."""
    usage: Usage = Field(default_factory=Usage)
    latency: float = 0.0
    """Seconds from the request to the whole reply."""
    json_as: str | None = None
    """How JSON was asked for: `json_schema`, `json_object`, `text` or `llguidance`."""
    adapted: tuple[str, ...] = ()
    """What else was changed of the request, since the endpoint does not take it as it is."""
    problem: str | None = None
    """Why this reply could not be used; None if it was."""


class Turn(Call):
    """One agent's turn. The fields of `Call` are those of the reply that counts."""

    agent: str
    """Name of the agent in the chat."""
    persona: str
    """Name of its persona."""
    role: Literal["guest"] | Role
    """`guest` is an AutoGen agent that knows nothing of policies."""
    round: int = 0
    """Round of the circle, from 1; 0 in the opening and the closing."""
    instruction: str = ""
    """The instruction of this turn (the ground rules and policies stand in front of it)."""
    reply: AnyReply | None = None
    """The reply as parsed; None if no reply could be used."""
    stance: Stance | None = None
    """What a deliberator's turn does to the current version; None for other roles."""
    outcome: TurnOutcome = "completed"
    discarded: list[Call] = Field(default_factory=list)
    """Earlier replies of this turn: before the correction, or of a model that refused."""

    @cached_property
    def said(self) -> str:
        """The reply as later turns see it.

        Where the model wrote just what was parsed, it is that to the byte, so that prefix caches
        serve it. Else it is rendered from what was parsed: thinking, unknown fields and white space
        without end are for nobody to read and pay for. Never empty: some endpoints refuse empty
        messages.
        """
        if self.reply is None:
            return self.raw or "(nothing)"
        parsed = self.reply.model_dump(mode="json", exclude={"role"})
        found = find_object(self.raw)
        if found is not None and found[1] == parsed:
            text, _ = found
            if text.count(" ") + text.count("\n") + text.count("\t") <= len(text) / 2:
                return text
        return json.dumps(parsed, ensure_ascii=False)

    @cached_property
    def exchange(self) -> tuple[UserMessage, AssistantMessage]:
        """Instruction and reply as messages: made once, since every later call repeats them."""
        messages = (
            UserMessage(content=self.instruction, source="user"),
            AssistantMessage(content=self.said, source=self.agent),
        )
        share_fields_set(messages)
        return messages

    @cached_property
    def state_slot(self) -> list[Any]:
        """Where `store_state` stores the state after this turn. Not part of its data."""
        return []

    @property
    def total_usage(self) -> Usage:
        """Tokens of the turn, its discarded replies included."""
        return sum((call.usage for call in self.discarded), self.usage)

    def describe(self) -> str:
        """The turn in plain words, several lines."""
        if self.reply is not None:
            return "\n".join(self.reply.describe(self.stance))
        return self.raw if self.role == GUEST else f"[{self.outcome}] {self.problem or ''}".strip()


class TurnMessage(StructuredMessage[Turn]):
    """The chat message that carries a turn."""

    def to_text(self) -> str:
        """The turn in plain words, for consoles and for agents of other classes."""
        return self.content.describe()

    def to_model_text(self) -> str:
        """Same as `to_text`."""
        return self.content.describe()

    def to_model_message(self) -> UserMessage:
        """The same as a message; AutoGen's own would be the whole turn as JSON."""
        return UserMessage(content=self.content.describe(), source=self.source)


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


def message_factory(types: Iterable[type[BaseChatMessage]] = ()) -> MessageFactory:
    """AutoGen's factory of messages from saved state, for its own, ours and those types."""
    factory = MessageFactory()
    ours: list[type[BaseChatMessage]] = [TurnMessage, *types]
    for message_type in ours:
        if not factory.is_registered(message_type):
            factory.register(message_type)
    return factory


@dataclass(frozen=True)
class RepliesSchema:
    """Annotates ``list[Turn]``: says in the JSON Schema which replies its turns hold."""

    replies: Any
    """The reply types of a kind of chat, as a union that `role` discriminates."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Implements pydantic's hook."""
        turns = handler(schema)
        fields = handler.resolve_ref_schema(turns["items"])["properties"]
        reply = handler(TypeAdapter(self.replies).core_schema)
        fields["reply"]["anyOf"] = [reply, {"type": "null"}]
        fields["role"] = {"enum": [*reply["discriminator"]["mapping"], GUEST], "type": "string"}
        return turns
