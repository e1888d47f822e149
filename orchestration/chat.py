"""`DeliberationChat`: an AutoGen team that deliberates.

Opening agents speak once, the circle takes turns until the termination condition fires, closing
agents speak once. It drives its agents directly, in one coroutine, without a message runtime: a
chat then costs a fraction of a stock group chat, an exception reaches the caller as itself, and
cancelling the caller stops the chat where it stands.

For a circle alone it says the same messages in the same order as `RoundRobinGroupChat`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, cast

from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team, TerminationCondition
from autogen_agentchat.messages import (
    BaseAgentEvent,
    BaseChatMessage,
    MessageFactory,
    ModelClientStreamingChunkEvent,
    StructuredMessage,
    TextMessage,
)
from autogen_core import CancellationToken, Component, ComponentModel
from pydantic import BaseModel

from agents.turns import TurnMessage, TurnOutcome, message_factory

Message = BaseAgentEvent | BaseChatMessage


class DeliberationChatConfig(BaseModel):
    """Declarative form of a `DeliberationChat`."""

    name: str
    description: str
    opening: list[ComponentModel] = []
    circle: list[ComponentModel]
    closing: list[ComponentModel] = []
    termination_condition: ComponentModel | None = None
    max_turns: int | None = None


class DeliberationChat(Team, Component[DeliberationChatConfig]):
    """A group chat of opening, circle and closing.

    Like AutoGen's teams it is stateful: `run` without `reset` goes on where the last run stopped,
    the opening is not repeated, and the circle goes on with the next speaker. A run that failed is
    gone on with by `run()` without a task: the speaker that failed is asked again.

    Args:
        circle: Agents that take turns; any AutoGen `ChatAgent`.
        opening: Agents that speak once, before the circle.
        closing: Agents that speak once, after it.
        termination_condition: Any AutoGen condition. It sees the task, the opening and the circle;
            where it fires in the opening already, the circle is left out.
        max_turns: Ends the circle after so many turns, whatever the condition says.
        name: Name of the team.
        description: Description of the team.

    Raises:
        ValueError: No agent, two agents of the same name, or a circle that nothing would end.
    """

    component_config_schema = DeliberationChatConfig
    component_provider_override = "orchestration.chat.DeliberationChat"

    def __init__(
        self,
        circle: Sequence[ChatAgent],
        *,
        opening: Sequence[ChatAgent] = (),
        closing: Sequence[ChatAgent] = (),
        termination_condition: TerminationCondition | None = None,
        max_turns: int | None = None,
        name: str = "DeliberationChat",
        description: str = "Agents that deliberate over policies.",
    ) -> None:
        agents = [*opening, *circle, *closing]
        if not agents:
            raise ValueError("a chat needs at least one agent")
        if any(not isinstance(agent, ChatAgent) for agent in agents):
            raise ValueError("only chat agents can take part, not teams")
        if len({agent.name for agent in agents}) < len(agents):
            raise ValueError("the names of the agents must be unique")
        if circle and termination_condition is None and max_turns is None:
            raise ValueError("a circle needs a termination condition or max_turns, or never ends")
        if max_turns is not None and max_turns < 1:
            raise ValueError(f"max_turns must be >= 1 (got {max_turns})")
        self._name = name
        self._description = description
        self._opening = list(opening)
        self._circle = list(circle)
        self._closing = list(closing)
        self._condition = termination_condition
        self._max_turns = max_turns
        self._factory = _factory_for(agents)
        self._running = False
        self._clear()

    def _clear(self) -> None:
        self._thread: list[Message] = []
        self._unread: dict[str, list[BaseChatMessage]] = {a.name: [] for a in self._agents}
        self._opened = 0  # how many of the opening have spoken
        self._next = 0  # whose turn it is in the circle
        self._turns = 0  # turns of the circle since it last stopped
        self._closed = 0  # how many of the closing have spoken since the circle stopped
        self._stop_reason: str | None = None  # why the circle stopped, while the closing speaks
        # What the condition was shown since it was last reset: its state, for any condition.
        self._shown: list[list[Message]] = []

    @property
    def _agents(self) -> list[ChatAgent]:
        return [*self._opening, *self._circle, *self._closing]

    @property
    def name(self) -> str:
        """The name of the team."""
        return self._name

    @property
    def description(self) -> str:
        """The description of the team."""
        return self._description

    @property
    def messages(self) -> Sequence[Message]:
        """All that was said since the last reset; after a failure too."""
        return tuple(self._thread)

    async def run(
        self,
        *,
        task: str | BaseChatMessage | Sequence[BaseChatMessage] | None = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> TaskResult:
        """Runs the chat to its end. Arguments and errors are those of `run_stream`."""
        stream = self.run_stream(
            task=task,
            cancellation_token=cancellation_token,
            output_task_messages=output_task_messages,
        )
        async with aclosing(stream):
            async for item in stream:
                if isinstance(item, TaskResult):
                    return item
        raise RuntimeError("the chat ended without a result")

    async def run_stream(
        self,
        *,
        task: str | BaseChatMessage | Sequence[BaseChatMessage] | None = None,
        cancellation_token: CancellationToken | None = None,
        output_task_messages: bool = True,
    ) -> AsyncGenerator[Message | TaskResult, None]:
        """Runs the chat and yields what is said as it is said; last, the `TaskResult`.

        Its stop reason is the condition's (`consensus`, `round_budget`, `token_budget` for ours),
        or the outcome of a turn that gave no reply (`refused`, `malformed`, `truncated`): such a
        turn ends the chat, without a closing.

        Args:
            task: The prompt; None goes on with what was said before.
            cancellation_token: Stops the chat at once, in the middle of a turn too.
            output_task_messages: Whether the task's messages are yielded and in the result.

        Raises:
            ValueError: The chat is running already, or the task is an empty list.
            asyncio.CancelledError: The token, or the caller's own task, was cancelled.
            Exception: Whatever an agent or the condition raised, as it is.
        """
        task_messages = _as_messages(task)
        if self._running:
            raise ValueError("the chat is running already; wait for it to stop")
        self._running = True
        result: list[Message] = []
        try:
            if self._condition is not None and self._condition.terminated:
                # Fired from outside, between two runs; AutoGen's teams say it in these words.
                yield TaskResult(messages=[], stop_reason="The group chat has already terminated.")
                return
            if task_messages:
                if output_task_messages:
                    for message in task_messages:
                        yield message
                        result.append(message)
                self._hear(task_messages)
                await self._check(task_messages)
            while (speaker := self._speaker()) is not None:
                said: list[Message] = []
                response: Response | None = None
                async with aclosing(self._speak(speaker, cancellation_token)) as stream:
                    async for item in stream:
                        if isinstance(item, Response):
                            response = item
                            continue
                        yield item
                        if not isinstance(item, ModelClientStreamingChunkEvent):
                            said.append(item)
                if response is None:
                    raise RuntimeError(f"{speaker.name} spoke without a final response")
                failure = await self._take(speaker, response)
                yield response.chat_message
                result += [*said, response.chat_message]
                if failure is not None:
                    await self._stop(failure)
                    break
            reason = self._stop_reason
            self._stop_reason, self._closed = None, 0
            yield TaskResult(messages=result, stop_reason=reason)
        finally:
            self._running = False

    def _speaker(self) -> ChatAgent | None:
        """Who speaks next; None at the end."""
        if self._opened < len(self._opening):
            return self._opening[self._opened]
        if self._circle and self._stop_reason is None:
            return self._circle[self._next]
        if self._closed < len(self._closing):
            return self._closing[self._closed]
        return None

    async def _speak(
        self, agent: ChatAgent, token: CancellationToken | None
    ) -> AsyncGenerator[Message | Response, None]:
        unread = self._unread[agent.name]
        stream = agent.on_messages_stream(list(unread), token or CancellationToken())
        async with aclosing(stream):
            while True:
                step = asyncio.ensure_future(_next(stream)) if token else _next(stream)
                if token is not None:
                    # The agent may not heed the token; its turn is cancelled all the same.
                    token.link_future(cast("asyncio.Future[Any]", step))
                item = await step
                if item is None:
                    return
                yield item

    async def _take(self, agent: ChatAgent, response: Response) -> TurnOutcome | None:
        """Takes a finished turn into the chat; gives the outcome of a turn without a reply."""
        delta: list[Message] = [*(response.inner_messages or ()), response.chat_message]
        self._unread[agent.name] = []
        self._hear(delta, speaker=agent)
        if self._opened < len(self._opening):
            self._opened += 1
            await self._check(delta)
        elif self._circle and self._stop_reason is None:
            self._next = (self._next + 1) % len(self._circle)
            await self._check(delta, turn=True)
        else:
            self._closed += 1
        message = response.chat_message
        if isinstance(message, TurnMessage) and message.content.outcome != "completed":
            return message.content.outcome
        return None

    def _hear(self, messages: Sequence[Message], speaker: ChatAgent | None = None) -> None:
        self._thread += messages
        heard = [message for message in messages if isinstance(message, BaseChatMessage)]
        if speaker is not None:
            heard = heard[-1:]  # what it said inwardly is for the console, not for the others
        for name, unread in self._unread.items():
            if speaker is None or name != speaker.name:
                unread += heard

    async def _check(self, delta: Sequence[Message], turn: bool = False) -> None:
        """Shows the condition what is new; sets the stop reason if it fires."""
        if self._stop_reason is not None:
            return
        self._turns += turn
        if self._condition is not None:
            stop = await self._condition(delta)
            self._shown.append(list(delta))
            if stop is not None:
                await self._stop(stop.content)
                return
        if self._max_turns is not None and self._turns >= self._max_turns:
            await self._stop(f"Maximum number of turns {self._max_turns} reached.")

    async def _stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._turns = 0
        self._shown = []
        if self._condition is not None:
            await self._condition.reset()

    async def reset(self) -> None:
        """Makes the chat and its agents as new; after a failure too.

        Raises:
            RuntimeError: The chat is running.
        """
        if self._running:
            raise RuntimeError("the chat is running; it must stop before it can be reset")
        for agent in self._agents:
            await agent.on_reset(CancellationToken())
        if self._condition is not None:
            await self._condition.reset()
        self._clear()

    async def pause(self) -> None:
        """Tells every agent to pause, as AutoGen's teams do."""
        for agent in self._agents:
            await agent.on_pause(CancellationToken())

    async def resume(self) -> None:
        """Tells every agent to go on."""
        for agent in self._agents:
            await agent.on_resume(CancellationToken())

    async def save_state(self) -> Mapping[str, Any]:
        """Everything that `load_state` needs to go on in another chat of the same agents.

        Raises:
            RuntimeError: The chat is running.
        """
        if self._running:
            raise RuntimeError("the chat is running; it must stop before its state can be saved")
        return {
            "type": "DeliberationChatState",
            "version": 1,
            "thread": [message.dump() for message in self._thread],
            "unread": {
                name: [message.dump() for message in unread]
                for name, unread in self._unread.items()
            },
            "opened": self._opened,
            "next": self._next,
            "turns": self._turns,
            "closed": self._closed,
            "stop_reason": self._stop_reason,
            "shown": [[message.dump() for message in delta] for delta in self._shown],
            "agents": {agent.name: await agent.save_state() for agent in self._agents},
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave, the termination condition's count included."""
        if self._running:
            raise RuntimeError("the chat is running; it must stop before its state can be loaded")
        create = self._factory.create
        await self.reset()
        self._thread = [create(data) for data in state["thread"]]
        self._unread = {
            name: [cast("BaseChatMessage", create(data)) for data in unread]
            for name, unread in state["unread"].items()
        }
        self._opened, self._next = state["opened"], state["next"]
        self._turns, self._closed = state["turns"], state["closed"]
        self._stop_reason = state["stop_reason"]
        for data in state["shown"]:
            delta = [create(item) for item in data]
            if self._condition is not None:
                await self._condition(delta)
            self._shown.append(delta)
        for agent in self._agents:
            await agent.load_state(state["agents"][agent.name])

    def _to_config(self) -> DeliberationChatConfig:
        return DeliberationChatConfig(
            name=self._name,
            description=self._description,
            opening=[agent.dump_component() for agent in self._opening],
            circle=[agent.dump_component() for agent in self._circle],
            closing=[agent.dump_component() for agent in self._closing],
            termination_condition=self._condition.dump_component() if self._condition else None,
            max_turns=self._max_turns,
        )

    @classmethod
    def _from_config(cls, config: DeliberationChatConfig) -> Self:
        condition = config.termination_condition
        return cls(
            [ChatAgent.load_component(agent) for agent in config.circle],
            opening=[ChatAgent.load_component(agent) for agent in config.opening],
            closing=[ChatAgent.load_component(agent) for agent in config.closing],
            termination_condition=TerminationCondition.load_component(condition)
            if condition
            else None,
            max_turns=config.max_turns,
            name=config.name,
            description=config.description,
        )


async def _next(stream: AsyncGenerator[Message | Response, None]) -> Message | Response | None:
    """The next item; None at the end (a task cannot raise StopAsyncIteration)."""
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return None


def _as_messages(
    task: str | BaseChatMessage | Sequence[BaseChatMessage] | None,
) -> list[BaseChatMessage]:
    if task is None:
        return []
    if isinstance(task, str):
        return [TextMessage(content=task, source="user")]
    if isinstance(task, BaseChatMessage):
        return [task]
    if not task:
        raise ValueError("the task must not be an empty list")
    if any(not isinstance(message, BaseChatMessage) for message in task):
        raise ValueError("the task must be chat messages alone")
    return list(task)


def _factory_for(agents: Sequence[ChatAgent]) -> MessageFactory:
    factory = message_factory()
    for agent in agents:
        for message_type in agent.produced_message_types:
            if issubclass(message_type, StructuredMessage) and not factory.is_registered(
                message_type
            ):
                factory.register(message_type)
    return factory
