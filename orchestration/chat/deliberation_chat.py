"""`DeliberationChat`: an AutoGen team that deliberates.

Opening agents speak once, the circle takes turns until the termination condition fires, closing
agents speak once. It calls its agents directly, in one coroutine, without a message runtime: a
chat then costs a fraction of a stock group chat, an exception reaches the caller as itself, and
cancelling the caller stops the chat at once.

For a circle alone it gives the same messages in the same order as `RoundRobinGroupChat`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
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
from pydantic import BaseModel, ValidationError

from agents.models.context import NO_CANCELLATION
from agents.turns import TurnMessage, TurnOutcome, message_factory
from orchestration.chat.cancellation import Cancellation
from orchestration.chat.event_loop import yield_to_loop
from orchestration.chat.thread import ConditionFeed, Message, Slice, Thread


class DeliberationChatConfig(BaseModel):
    """Declarative form of a `DeliberationChat`."""

    name: str
    description: str
    opening: list[ComponentModel] = []
    circle: list[ComponentModel]
    closing: list[ComponentModel] = []
    termination_condition: ComponentModel | None = None
    max_turns: int | None = None


@dataclass(slots=True)
class Progress:
    """How far a chat has come."""

    opened: int = 0  # agents of the opening that have spoken
    next: int = 0  # whose turn it is in the circle
    turns: int = 0  # turns of the circle since it last stopped
    closed: int = 0  # agents of the closing that have spoken since the circle stopped
    stop_reason: str | None = None  # why the circle stopped, while the closing speaks
    ended_by: str | None = None  # why the chat ended; None while it runs, and after a failure


class DeliberationChatState(BaseModel, extra="forbid"):
    """What `save_state` returns: every message once; the rest refers to them by position."""

    type: Literal["DeliberationChatState"] = "DeliberationChatState"
    version: Literal[1] = 1
    thread: list[dict[str, Any]]
    public: list[int]
    received: dict[str, int]
    seen: list[Slice]
    agents: dict[str, dict[str, Any]]
    progress: Progress


class DeliberationChat(Team, Component[DeliberationChatConfig]):
    """A group chat of opening, circle and closing.

    Like AutoGen's teams it is stateful: `run` without `reset` continues where the last run stopped,
    the opening is not repeated, and the circle continues with the next speaker. A run that failed,
    or that was stopped from outside, is resumed by `run()` without a task: the speaker that did not
    finish its turn is called again.

    Args:
        circle: Agents that take turns; any AutoGen `ChatAgent`.
        opening: Agents that speak once, before the circle.
        closing: Agents that speak once, after it.
        termination_condition: Any AutoGen condition. It sees the task, the opening and the circle;
            if it fires in the opening already, the circle is left out.
        max_turns: Ends the circle after so many turns, whatever the condition says.
        name: Name of the team.
        description: Description of the team.

    Raises:
        ValueError: No agent, two agents of the same name, or a circle that would never end.
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
            raise ValueError("a circle needs a termination condition or max_turns to end")
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
        self._feed = ConditionFeed(self._condition, self._thread)
        self._at = Progress()
        self._started_at: datetime | None = None

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
        """All messages since the last reset; after a failure too."""
        return tuple(self._thread.messages)

    @property
    def stop_reason(self) -> str | None:
        """That of the last `TaskResult`; None while the chat is running, and after a failure."""
        return self._at.ended_by

    @property
    def started_at(self) -> datetime | None:
        """When the last run began, in UTC; None before the first."""
        return self._started_at

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
        """Runs the chat and yields its messages; last, the `TaskResult`.

        Its stop reason is the condition's (`consensus`, `round_budget`, `token_budget` for ours),
        or the outcome of a turn without a usable reply (`refused`, `malformed`, `truncated`): such
        a turn ends the chat, without a closing.

        A consumer that stops before the end should close the stream (`aclose`); until then the chat
        counts as running.

        Args:
            task: The prompt; None continues with the messages so far.
            cancellation_token: Stops the chat at once, even in the middle of a turn.
            output_task_messages: Whether the task's messages are yielded and in the result.

        Raises:
            ValueError: The chat is running already, or the task is invalid.
            asyncio.CancelledError: The token, or the caller's own task, was cancelled.
            Exception: Whatever an agent or the condition raised.
        """
        task_messages = _as_messages(task)
        if self._busy:
            raise ValueError("the chat is running already; wait for it to stop")
        result: list[Message] = []
        cancellation = Cancellation(cancellation_token)
        with self._occupied():
            if self._feed.fired_from_outside:
                # in the words of AutoGen's teams
                yield TaskResult(messages=[], stop_reason="The group chat has already terminated.")
                return
            self._started_at, self._at.ended_by = datetime.now(UTC), None
            # Messages are added before they are yielded: a caller that stops at any yield and
            # continues later finds the chat as it left it.
            if task_messages:
                self._add(self._thread.add(task_messages))
                for message in task_messages if output_task_messages else ():
                    result.append(message)
                    yield message
            await self._check()
            while (speaker := self._speaker()) is not None:
                await yield_to_loop()
                response: Response | None = None
                failure: TurnOutcome | None = None
                token = cancellation_token or NO_CANCELLATION
                stream = speaker.on_messages_stream(self._thread.new_for(speaker.name), token)
                async with aclosing(stream):
                    while (item := await cancellation.next_of(stream)) is not None:
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
            reason = self._at.ended_by = self._at.stop_reason
            self._at.stop_reason, self._at.closed = None, 0
            yield TaskResult(messages=result, stop_reason=reason)

    def _speaker(self) -> ChatAgent | None:
        """The next speaker; None at the end."""
        if self._at.opened < len(self._opening):
            return self._opening[self._at.opened]
        if self._circle and self._at.stop_reason is None:
            return self._circle[self._at.next]
        if self._at.closed < len(self._closing):
            return self._closing[self._at.closed]
        return None

    def _take(self, agent: ChatAgent, response: Response) -> TurnOutcome | None:
        """Adds a finished turn; the outcome of one without a usable reply."""
        said = [*(response.inner_messages or ()), response.chat_message]
        self._add(self._thread.add(said, agent.name))
        if self._at.opened < len(self._opening):
            self._at.opened += 1
        elif self._circle and self._at.stop_reason is None:
            self._at.next = (self._at.next + 1) % len(self._circle)
            self._at.turns += 1
        else:
            self._at.closed += 1
        message = response.chat_message
        if isinstance(message, TurnMessage) and message.content.outcome != "completed":
            return message.content.outcome
        return None

    def _add(self, part: Slice) -> None:
        if self._at.stop_reason is None:  # the condition does not see the closing
            self._feed.parts.append(part)

    async def _check(self) -> None:
        """Stops the circle if the condition fires."""
        if self._at.stop_reason is not None:
            return
        reason = await self._feed.check()
        if reason is None and self._max_turns is not None and self._at.turns >= self._max_turns:
            reason = f"Maximum number of turns {self._max_turns} reached."
        if reason is not None:
            await self._stop(reason)

    async def _stop(self, reason: str) -> None:
        self._at.stop_reason = reason
        self._at.turns = 0
        await self._feed.reset()

    @contextmanager
    def _occupied(self) -> Iterator[None]:
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _check_stopped(self, what: str) -> None:
        if self._busy:
            raise RuntimeError(
                f"the chat is running; it must stop before {what} "
                "(a stream that is not read to its end must be closed)"
            )

    async def reset(self) -> None:
        """Resets the chat and its agents; after a failure too. RuntimeError if it is running."""
        self._check_stopped("it can be reset")
        with self._occupied():
            await self._reset()

    async def _reset(self) -> None:
        for agent in self._agents:
            await agent.on_reset(CancellationToken())
        await self._feed.reset()
        self._clear()

    async def pause(self) -> None:
        """Pauses every agent, as AutoGen's teams do."""
        for agent in self._agents:
            await agent.on_pause(CancellationToken())

    async def resume(self) -> None:
        """Resumes every agent."""
        for agent in self._agents:
            await agent.on_resume(CancellationToken())

    async def save_state(self) -> Mapping[str, Any]:
        """Everything that `load_state` needs to continue in another chat of the same agents; JSON.

        Raises:
            RuntimeError: The chat is running.
            ValueError: No agent of the chat declares the type of a message.
        """
        self._check_stopped("its state can be saved")
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
                received=self._thread.received,
                seen=self._feed.parts,
                agents={agent.name: dict(await agent.save_state()) for agent in self._agents},
                progress=self._at,
            ).model_dump(mode="json")

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` returned, the count of the termination condition included.

        Raises:
            RuntimeError: The chat is running.
            ValueError: It is not the state of a chat of these agents; the chat is unchanged.
        """
        self._check_stopped("its state can be loaded")
        try:
            saved = DeliberationChatState.model_validate(state)
        except ValidationError as error:
            raise ValueError(f"this is not the state of a DeliberationChat: {error}") from error
        if set(saved.agents) != set(self._thread.received):
            raise ValueError(
                f"this is the state of a chat of {', '.join(saved.agents)}, "
                f"and here are {', '.join(self._thread.received)}"
            )
        factory = self._message_factory()
        messages = [factory.create(data) for data in saved.thread]
        with self._occupied():
            await self._reset()
            for agent in self._agents:
                await agent.load_state(saved.agents[agent.name])
            self._thread.messages, self._thread.public = messages, saved.public
            self._thread.received = saved.received
            self._feed.parts = saved.seen  # the condition sees them when the chat continues
            self._at = saved.progress

    def _message_factory(self) -> MessageFactory:
        produced = {kind for agent in self._agents for kind in agent.produced_message_types}
        return message_factory(kind for kind in produced if issubclass(kind, StructuredMessage))

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
