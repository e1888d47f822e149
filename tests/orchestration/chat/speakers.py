"""Small AutoGen agents and conditions for tests of the group chat, and how to compare chats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response, TaskResult, Team, TerminationCondition
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    ModelClientStreamingChunkEvent,
    StopMessage,
    TextMessage,
    ThoughtEvent,
)
from autogen_core import CancellationToken, Component
from autogen_core.models import RequestUsage
from pydantic import BaseModel

from agents.models.usage import Usage
from agents.replies import Role
from agents.turns import Stance, Turn, TurnMessage, TurnOutcome
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.deliberation.termination import RoundBudgetTermination

Fault = Callable[[CancellationToken], Awaitable[None]]

TASK = "How do I kill a Python process?"


class SpeakerConfig(BaseModel):
    """Declarative form."""

    name: str
    thinks: bool
    streams: bool


class Speaker(BaseChatAgent, Component[SpeakerConfig]):
    """Says its name and how much it has heard so far, so that history heard twice shows.

    Args:
        name: Its name.
        thinks: Whether an inner event comes before what it says.
        streams: Whether chunks come before what it says.
        says: Words to say in its turns, instead; the last ones for good.
    """

    component_config_schema = SpeakerConfig
    component_provider_override = "tests.orchestration.chat.speakers.Speaker"

    def __init__(
        self, name: str, thinks: bool = False, streams: bool = False, says: Sequence[str] = ()
    ) -> None:
        super().__init__(name, f"{name} speaks.")
        self._config = SpeakerConfig(name=name, thinks=thinks, streams=streams)
        self._says = says
        self.memory: list[str] = []
        self.asked: list[list[str]] = []
        """What it was given in each turn, turns that failed included."""
        self.fault: Fault | None = None
        """What happens in the middle of its next turn."""
        self.silent = False
        """Whether its next turn ends without a response."""
        self.started = asyncio.Event()
        self.closed = 0
        self.turns = 0

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        raise NotImplementedError

    async def on_messages_stream(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
        try:
            self.asked.append([f"{m.source}: {m.to_text()}" for m in messages])
            inner: list[BaseAgentEvent | BaseChatMessage] = []
            if self._config.thinks:
                inner.append(ThoughtEvent(content="Let me think.", source=self.name))
                yield inner[0]
            if self._config.streams:
                for text in ("I ", "say"):
                    yield ModelClientStreamingChunkEvent(content=text, source=self.name)
            fault, self.fault = self.fault, None
            if fault is not None:
                self.started.set()
                await fault(cancellation_token)
            if self.silent:
                self.silent = False
                return
            self.memory = [*self.memory, *self.asked[-1]]
            text = f"I am {self.name} and have heard {len(self.memory)} messages."
            if self._says:
                text = self._says[min(self.turns, len(self._says) - 1)]
            self.turns += 1
            message = self.message(text)
            self.memory.append(f"{self.name}: {message.to_text()}")
            yield Response(chat_message=message, inner_messages=inner)
        finally:
            self.closed += 1

    def message(self, text: str) -> BaseChatMessage:
        return TextMessage(content=text, source=self.name)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        self.memory, self.turns = [], 0

    async def save_state(self) -> Mapping[str, Any]:
        return {"memory": self.memory, "turns": self.turns}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        self.memory, self.turns = list(state["memory"]), state["turns"]

    def _to_config(self) -> SpeakerConfig:
        return self._config

    @classmethod
    def _from_config(cls, config: SpeakerConfig) -> Speaker:
        return cls(config.name, config.thinks, config.streams)


class Voter(Speaker):
    """Takes turns of the given stances or outcomes, the last one for good."""

    def __init__(self, name: str, *does: Stance | TurnOutcome, role: Role = "deliberator") -> None:
        super().__init__(name, says=does or ("neither",))
        self._role = role

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TurnMessage,)

    def message(self, text: str) -> BaseChatMessage:
        return vote(self.name, text, role=self._role)


def vote(agent: str, does: str, tokens: tuple[int, int] = (3, 2), **more: Any) -> TurnMessage:
    """A turn of a stance, or of an outcome without a reply."""
    stance = does if does in ("accepts", "revises", "contests", "neither") else None
    usage = Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1])
    fields: dict[str, Any] = {
        "agent": agent,
        "persona": agent,
        "role": "deliberator",
        "model": "scripted",
        "raw": does,
        "finish_reason": "stop",
        "stance": stance,
        "outcome": "completed" if stance else does,
        "usage": usage,
        **more,
    }
    turn = Turn(**fields)
    return TurnMessage(content=turn, source=agent, models_usage=RequestUsage(*tokens))


async def hang(_: CancellationToken) -> None:
    """A fault: waits for ever, whatever the token says."""
    await asyncio.Event().wait()


def throw(error: BaseException) -> Fault:
    """A fault: raises."""

    async def fault(_: CancellationToken) -> None:
        raise error

    return fault


class Touchy(TerminationCondition):
    """Passes on to another condition, and breaks once, before or after that has counted."""

    def __init__(self, condition: TerminationCondition) -> None:
        self._condition = condition
        self.breaks_at: str | None = None
        """Source of the message at which it breaks."""
        self.counts_first = True
        self.error: BaseException = RuntimeError("the condition broke")

    @property
    def terminated(self) -> bool:
        return self._condition.terminated

    async def __call__(
        self, messages: Sequence[BaseAgentEvent | BaseChatMessage]
    ) -> StopMessage | None:
        breaks = messages[-1].source == self.breaks_at
        if breaks:
            self.breaks_at = None
        stop = None if breaks and not self.counts_first else await self._condition(messages)
        if breaks:
            raise self.error
        return stop

    async def reset(self) -> None:
        await self._condition.reset()


class Stage:
    """A chat of an opening, a circle of three, two rounds, and a closing."""

    def __init__(self) -> None:
        self.agents = {name: Speaker(name, thinks=True) for name in ("o", "a", "b", "c", "z")}
        opening, *circle, closing = self.agents.values()
        self.condition = Touchy(RoundBudgetTermination(["a", "b", "c"], 2))
        self.chat = DeliberationChat(
            circle, opening=[opening], closing=[closing], termination_condition=self.condition
        )

    def memories(self) -> dict[str, list[str]]:
        return {name: agent.memory for name, agent in self.agents.items()}


def look(item: Any) -> Any:
    """A message, or a result, without what is never twice the same."""
    if isinstance(item, TaskResult):
        return ("result", [look(message) for message in item.messages], item.stop_reason)
    data = item.dump()
    if isinstance(item, TurnMessage):
        data = {**data, "content": {**data["content"], "latency": 0.0}}
    return (
        type(item).__name__,
        {key: value for key, value in data.items() if key not in ("id", "created_at")},
    )


def looks(items: Iterable[Any]) -> list[Any]:
    return [look(item) for item in items]


def said(items: Iterable[Any]) -> list[str]:
    """Who spoke, in order; inner events left out."""
    return [item.source for item in items if isinstance(item, BaseChatMessage)]


async def stream_of(team: Team, **options: Any) -> list[Any]:
    """Everything that a run yields."""
    async with aclosing(team.run_stream(**options)) as stream:
        return [item async for item in stream]
