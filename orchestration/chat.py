"""`DeliberationChat`: an AutoGen team that deliberates.

Opening agents speak once, the circle takes turns until the termination condition fires, closing
agents speak once. It drives its agents directly, in one coroutine, without a message runtime: a
chat then costs a fraction of a stock group chat, an exception reaches the caller as itself, and
cancelling the caller stops the chat where it stands.

For a circle alone it says the same messages in the same order as `RoundRobinGroupChat`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Literal, Self

from autogen_agentchat.base import ChatAgent, Response, TaskResult, Team, TerminationCondition
from autogen_agentchat.messages import (
    BaseChatMessage,
    MessageFactory,
    ModelClientStreamingChunkEvent,
    StructuredMessage,
    TextMessage,
)
from autogen_core import CancellationToken, Component, ComponentModel
from pydantic import BaseModel, ConfigDict, ValidationError

from agents.models.context import NO_CANCELLATION
from agents.turns import TurnMessage, TurnOutcome, message_factory
from orchestration.breath import breathe
from orchestration.interruption import Interruption
from orchestration.thread import Message, Slice, Thread, Watch


class DeliberationChatConfig(BaseModel):
    """Declarative form of a `DeliberationChat`."""

    name: str
    description: str
    opening: list[ComponentModel] = []
    circle: list[ComponentModel]
    closing: list[ComponentModel] = []
    termination_condition: ComponentModel | None = None
    max_turns: int | None = None


class DeliberationChatState(BaseModel):
    """What `save_state` gives: every message once; the rest names them by their place."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["DeliberationChatState"] = "DeliberationChatState"
    version: Literal[1] = 1
    thread: list[dict[str, Any]]
    public: list[int]
    heard: dict[str, int]
    watched: list[Slice]
    opened: int
    next: int
    turns: int
    closed: int
    stop_reason: str | None
    agents: dict[str, dict[str, Any]]


class DeliberationChat(Team, Component[DeliberationChatConfig]):
    """A group chat of opening, circle and closing.

    Like AutoGen's teams it is stateful: `run` without `reset` goes on where the last run stopped,
    the opening is not repeated, and the circle goes on with the next speaker. A run that failed, or
    that was stopped from outside, is gone on with by `run()` without a task: the speaker that did
    not come to its end is asked again.

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
        self._agents = agents
        self._condition = termination_condition
        self._max_turns = max_turns
        self._busy = False
        self._clear()

    def _clear(self) -> None:
        self._thread = Thread([agent.name for agent in self._agents])
        self._watch = Watch(self._condition, self._thread)
        self._opened = 0  # how many of the opening have spoken
        self._next = 0  # whose turn it is in the circle
        self._turns = 0  # turns of the circle since it last stopped
        self._closed = 0  # how many of the closing have spoken since the circle stopped
        self._stop_reason: str | None = None  # why the circle stopped, while the closing speaks

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
        return tuple(self._thread.messages)

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

        A consumer that stops before the end should close the stream (`aclose`); until then the chat
        counts as running.

        Args:
            task: The prompt; None goes on with what was said before.
            cancellation_token: Stops the chat at once, in the middle of a turn too.
            output_task_messages: Whether the task's messages are yielded and in the result.

        Raises:
            ValueError: The chat is running already, or the task is not one.
            asyncio.CancelledError: The token, or the caller's own task, was cancelled.
            Exception: Whatever an agent or the condition raised, as it is.
        """
        task_messages = _as_messages(task)
        if self._busy:
            raise ValueError("the chat is running already; wait for it to stop")
        result: list[Message] = []
        with self._occupied(), Interruption(cancellation_token) as interruption:
            if self._watch.fired_from_outside:
                # AutoGen's teams say it in these words.
                yield TaskResult(messages=[], stop_reason="The group chat has already terminated.")
                return
            # What was said is taken in before it is yielded: whoever stops listening at any yield
            # and goes on later finds the chat as it left it.
            if task_messages:
                self._hear(self._thread.add(task_messages))
                for message in task_messages if output_task_messages else ():
                    result.append(message)
                    yield message
            await self._check()
            while (speaker := self._speaker()) is not None:
                await breathe()
                response: Response | None = None
                failure: TurnOutcome | None = None
                token = cancellation_token or NO_CANCELLATION
                stream = speaker.on_messages_stream(self._thread.news_for(speaker.name), token)
                async with aclosing(stream):
                    while (item := await interruption.next_of(stream)) is not None:
                        if isinstance(item, Response):
                            if response is not None:
                                raise RuntimeError(f"{speaker.name} gave two responses in one turn")
                            response = item
                            failure = self._take(speaker, response)
                            item = response.chat_message
                        if not isinstance(item, ModelClientStreamingChunkEvent):
                            result.append(item)
                        yield item
                if response is None:
                    raise RuntimeError(f"{speaker.name} ended its turn without a response")
                if failure is not None:
                    await self._stop(failure)
                    break
                await self._check()
            reason = self._stop_reason
            self._stop_reason, self._closed = None, 0
            yield TaskResult(messages=result, stop_reason=reason)

    def _speaker(self) -> ChatAgent | None:
        """Who speaks next; None at the end."""
        if self._opened < len(self._opening):
            return self._opening[self._opened]
        if self._circle and self._stop_reason is None:
            return self._circle[self._next]
        if self._closed < len(self._closing):
            return self._closing[self._closed]
        return None

    def _take(self, agent: ChatAgent, response: Response) -> TurnOutcome | None:
        """Takes a finished turn into the chat; gives the outcome of a turn without a reply."""
        said = [*(response.inner_messages or ()), response.chat_message]
        self._hear(self._thread.add(said, agent.name))
        if self._opened < len(self._opening):
            self._opened += 1
        elif self._circle and self._stop_reason is None:
            self._next = (self._next + 1) % len(self._circle)
            self._turns += 1
        else:
            self._closed += 1
        message = response.chat_message
        if isinstance(message, TurnMessage) and message.content.outcome != "completed":
            return message.content.outcome
        return None

    def _hear(self, part: Slice) -> None:
        if self._stop_reason is None:  # what the closing says is no longer the condition's concern
            self._watch.parts.append(part)

    async def _check(self) -> None:
        """Stops the circle if it is time to."""
        if self._stop_reason is not None:
            return
        reason = await self._watch.look()
        if reason is None and self._max_turns is not None and self._turns >= self._max_turns:
            reason = f"Maximum number of turns {self._max_turns} reached."
        if reason is not None:
            await self._stop(reason)

    async def _stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._turns = 0
        await self._watch.reset()

    @contextmanager
    def _occupied(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _must_not_run(self, what: str) -> None:
        if self._busy:
            raise RuntimeError(
                f"the chat is running; it must stop before {what} "
                "(a stream that is not read to its end must be closed)"
            )

    async def reset(self) -> None:
        """Makes the chat and its agents as new; after a failure too.

        Raises:
            RuntimeError: The chat is running.
        """
        self._must_not_run("it can be reset")
        with self._occupied():
            await self._reset()

    async def _reset(self) -> None:
        for agent in self._agents:
            await agent.on_reset(CancellationToken())
        await self._watch.reset()
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
        """Everything that `load_state` needs to go on in another chat of the same agents; JSON.

        Raises:
            RuntimeError: The chat is running.
            ValueError: A message is of a type that no agent of the chat has declared, so that it
                could not be read back.
        """
        self._must_not_run("its state can be saved")
        factory = self._message_factory()
        for message in self._thread.messages:
            if not factory.is_registered(type(message)):
                raise ValueError(
                    f"a message of {message.source} cannot be saved: no agent declares its type, "
                    f"{type(message).__name__}, in produced_message_types"
                )
        with self._occupied():
            return DeliberationChatState(
                thread=[dict(message.dump()) for message in self._thread.messages],
                public=self._thread.public,
                heard=self._thread.heard,
                watched=self._watch.parts,
                opened=self._opened,
                next=self._next,
                turns=self._turns,
                closed=self._closed,
                stop_reason=self._stop_reason,
                agents={agent.name: dict(await agent.save_state()) for agent in self._agents},
            ).model_dump(mode="json")

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave, the termination condition's count included.

        Raises:
            RuntimeError: The chat is running.
            ValueError: It is not the state of a chat of these agents; the chat is as it was.
        """
        self._must_not_run("its state can be loaded")
        try:
            saved = DeliberationChatState.model_validate(state)
        except ValidationError as error:
            raise ValueError(f"this is not the state of a DeliberationChat: {error}") from error
        if set(saved.agents) != set(self._thread.heard):
            raise ValueError(
                f"this is the state of a chat of {', '.join(saved.agents)}, "
                f"and here are {', '.join(self._thread.heard)}"
            )
        factory = self._message_factory()
        messages = [factory.create(data) for data in saved.thread]
        with self._occupied():
            await self._reset()
            for agent in self._agents:
                await agent.load_state(saved.agents[agent.name])
            self._thread.messages, self._thread.public = messages, saved.public
            self._thread.heard = saved.heard
            self._watch.parts = saved.watched  # the condition sees them when the chat goes on
            self._opened, self._next = saved.opened, saved.next
            self._turns, self._closed = saved.turns, saved.closed
            self._stop_reason = saved.stop_reason

    def _message_factory(self) -> MessageFactory:
        factory = message_factory()
        for agent in self._agents:
            for kind in agent.produced_message_types:
                if issubclass(kind, StructuredMessage) and not factory.is_registered(kind):
                    factory.register(kind)
        return factory

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


def _as_messages(
    task: str | BaseChatMessage | Sequence[BaseChatMessage] | None,
) -> list[BaseChatMessage]:
    if task is None:
        return []
    if isinstance(task, str):
        return [TextMessage(content=task, source="user")]
    messages = [task] if isinstance(task, BaseChatMessage) else task
    if not isinstance(messages, Sequence) or any(
        not isinstance(message, BaseChatMessage) for message in messages
    ):
        raise ValueError("the task must be a text, a chat message, or a list of chat messages")
    if not messages:
        raise ValueError("the task must not be an empty list")
    return list(messages)
