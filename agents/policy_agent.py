"""`PolicyAgent`: the base of all our agents. One turn is one typed reply, or a typed failure.

A turn asks the persona's model; a reply that cannot be used gets one correction turn, which quotes
what is wrong; a refusal goes to the persona's fallback models. The result is a `Turn` with an
outcome, never an exception, as long as the endpoint answers. If it does not, its error passes
through unchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Self, cast

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import BaseChatMessage, MultiModalMessage, TextMessage
from autogen_core import CancellationToken, Component
from autogen_core.models import AssistantMessage, LLMMessage, RequestUsage, UserMessage
from pydantic import BaseModel, Field, field_serializer

from agents.layout import Briefing
from agents.models.config import NamedModelConfig
from agents.models.model import ChatModel, Model, ModelReply
from agents.parsing import ReplyError, looks_like_refusal, parse_reply
from agents.persona import Persona
from agents.prompt_texts import AnyPromptTexts, default_prompts, fill
from agents.replies import ReplyLimits, TypedReply
from agents.turns import (
    Call,
    ChatState,
    Turn,
    TurnMessage,
    TurnOutcome,
    message_factory,
    share_fields_set,
    state_after,
    store_state,
)
from policies import PolicySet

_MOST_QUOTED = 100_000
"""Characters of a reply that is repeated in a correction turn."""


class RefusedError(ReplyError):
    """The model, or a filter of its provider, declined to take part."""


class PolicyAgentConfig(BaseModel):
    """Declarative form of a `PolicyAgent`."""

    persona: Persona
    policies: PolicySet
    limits: ReplyLimits
    prompts: AnyPromptTexts = Field(default_factory=default_prompts)
    models: list[NamedModelConfig]
    name: str = ""

    @field_serializer("models")
    def _dump_models(self, models: list[NamedModelConfig]) -> list[dict[str, Any]]:
        # AutoGen dumps configs without None, which here means "leave it to the endpoint" and is not
        # always the default. Plain dicts keep theirs.
        return [model.model_dump(mode="json") for model in models]


AROUND_TURN: ContextVar[Callable[[PolicyAgent, Awaitable[Response]], Awaitable[Response]] | None]
"""Wraps every turn of the agents in the current context, as telemetry does; None for no wrapper."""
AROUND_TURN = ContextVar("AROUND_TURN", default=None)


class PolicyAgent(BaseChatAgent, Component[PolicyAgentConfig]):
    """An agent that reasons over policies and replies in a typed form.

    Works in a `DeliberationChat` and in AutoGen's own teams. The first message that it sees is the
    user's prompt; `TurnMessage`s are turns; any other message is what a guest says.

    A subclass that sets `reply_type` is the agent of that reply's role.

    Args:
        persona: Who the agent is; its role must be the class's.
        briefing: What all agents of a run share.
        models: The persona's model, then its fallbacks. Not empty.
        name: Name of the agent, where one persona takes part twice; the persona's if left out.

    Raises:
        ValueError: The persona has another role, or there is no model.
    """

    component_config_schema: type[PolicyAgentConfig] = PolicyAgentConfig
    section: ClassVar[str]
    """The section of the prompt texts for this kind of chat."""
    role: ClassVar[str]
    reply_type: ClassVar[type[TypedReply]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "reply_type" in vars(cls):
            cls.role = cls.reply_type.role_name()

    def __init__(
        self, persona: Persona, briefing: Briefing, models: Sequence[ChatModel], name: str = ""
    ) -> None:
        if persona.role != self.role:
            raise ValueError(f"persona '{persona.name}' is a {persona.role}, not a {self.role}")
        if not models:
            raise ValueError(f"persona '{persona.name}' has no model")
        super().__init__(name or persona.name, persona.description)
        self.persona = persona
        self.briefing = briefing
        self.models = tuple(models)
        self._seen: list[BaseChatMessage] = []

    @classmethod
    def make(
        cls, persona: Persona, briefing: Briefing, models: Sequence[ChatModel], name: str = ""
    ) -> Self:
        """An agent of the subclass for the persona's role. Arguments as of the class.

        Raises:
            ValueError: There is none, or see the class.
        """
        for agent in cls.__subclasses__():
            if agent.role == persona.role:
                return agent(persona, briefing, models, name)
        raise ValueError(f"persona '{persona.name}' is a {persona.role}: no {cls.__name__}")

    @property
    def texts(self) -> Any:
        """The prompt texts of this kind of chat."""
        return self.briefing.prompts.section(self.section)

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """`TurnMessage`; and what else is to be read back from saved state."""
        return (TurnMessage,)

    @abstractmethod
    def start(self, seen: Sequence[BaseChatMessage]) -> ChatState:
        """The state of the chat before its first turn."""

    @abstractmethod
    def instruction(self, seen: Sequence[BaseChatMessage], state: Any) -> str:
        """The instruction of this turn, besides the ground rules and the prompt."""

    @abstractmethod
    def request(self, prompt: str, instruction: str, state: Any) -> list[LLMMessage]:
        """The messages of the turn's call."""

    def round(self, state: Any) -> int:
        """The round of the circle that the turn belongs to; 0 outside of it."""
        return 0

    def objection(self, reply: Any, state: Any) -> str | None:
        """What is wrong with a well-formed reply in this state; None if nothing is."""
        return None

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        """Takes a turn, after the messages since this agent's last one; gives a `TurnMessage`.

        Raises:
            ValueError: There is no prompt yet, or it holds images.
            EndpointError: The model's endpoint gave no reply.
        """
        turn = self._take_turn(messages, cancellation_token)
        around = AROUND_TURN.get()
        return await (turn if around is None else around(self, turn))

    async def _take_turn(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        seen = [*self._seen, *messages]
        data = self.data_in(seen)
        turns = [message.content for message in seen if isinstance(message, TurnMessage)]
        state = state_after(self.start(seen), turns)
        instruction = self.instruction(seen, state)
        request = self.request(data[0], instruction, state)
        reply, outcome, calls = await self.converse(request, data, state, cancellation_token)
        *discarded, last = calls
        turn = Turn(
            agent=self.name,
            persona=self.persona.name,
            role=self.role,
            round=self.round(state),
            instruction=instruction,
            reply=reply,
            outcome=outcome,
            discarded=discarded,
            **dict(last),
        )
        turn.stance = state.apply(turn)
        store_state(state)
        tokens = turn.total_usage
        usage = RequestUsage(tokens.prompt_tokens, tokens.completion_tokens)
        message = TurnMessage(content=turn, source=self.name, models_usage=usage)
        # Only now: a turn that failed leaves the agent as it was, and can be taken again.
        self._seen = [*seen, message]
        share_fields_set(message)
        return Response(chat_message=message)

    def data_in(self, seen: Sequence[BaseChatMessage]) -> list[str]:
        """The texts that are data: the prompt first, then what guests said."""
        if not seen or isinstance(seen[0], TurnMessage):
            raise ValueError(f"{self.name} was asked to speak before there was a prompt")
        if isinstance(seen[0], MultiModalMessage):
            raise ValueError(f"{self.name} reads text, and the prompt holds images; leave them out")
        return [m.to_model_text() for m in seen if not isinstance(m, TurnMessage)]

    async def converse(
        self,
        request: list[LLMMessage],
        data: Sequence[str],
        state: Any,
        cancellation_token: CancellationToken,
    ) -> tuple[TypedReply | None, TurnOutcome, list[Call]]:
        """Calls models until there is a usable reply or no option left; the last call counts."""
        texts = self.briefing.prompts.section("correction")
        calls: list[Call] = []
        outcome: TurnOutcome = "malformed"
        for model in self.models:
            messages = request
            refusals = corrections = 0
            while refusals < 2 and corrections < 2:
                answer = await model.ask(
                    messages,
                    response_format=self.briefing.response_format(self.reply_type),
                    temperature=self.persona.temperature,
                    max_tokens=self.persona.max_tokens,
                    cancellation_token=cancellation_token,
                    reseed=refusals if messages is request else 0,
                )
                call = call_of(model.name, answer)
                calls.append(call)
                try:
                    return self.read(answer, data, state), "completed", calls
                except RefusedError as error:
                    call.problem = str(error)
                    outcome = "refused"
                    refusals += 1
                    if model is not self.models[-1]:
                        break
                    # No other model is left: the same request once more, with another seed, since
                    # filters err and a new sample often passes.
                    messages = request
                except ReplyError as error:
                    call.problem = str(error)
                    corrections += 1
                    cut_off = call.finish_reason == "length"
                    outcome = "truncated" if cut_off else "malformed"
                    problem = texts.cut_off if cut_off else call.problem
                    correction = fill(texts.request, problem=problem)
                    messages = [
                        *request,
                        AssistantMessage(content=_quoted(call.raw), source="assistant"),
                        UserMessage(content=correction, source="user"),
                    ]
            if outcome != "refused":
                break
        return None, outcome, calls

    def read(self, answer: ModelReply, data: Sequence[str], state: Any) -> TypedReply:
        """The typed reply in a model's reply.

        Raises:
            ReplyError: It is not what was asked for; `RefusedError`, if the model refused.
        """
        if answer.finish_reason == "content_filter":
            raise RefusedError("a filter of the provider stopped the reply")
        if answer.refusal is not None:
            raise RefusedError("the model refused to take part")
        try:
            reply = parse_reply(answer.text, self.reply_type, self.briefing, data)
        except ReplyError:
            if looks_like_refusal(answer.text):
                raise RefusedError("the model refused to take part") from None
            raise
        if objection := self.objection(reply, state):
            raise ReplyError(objection)
        return reply

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forgets all messages."""
        self._seen = []

    async def save_state(self) -> Mapping[str, Any]:
        """The messages so far, as JSON data."""
        factory = message_factory(self.produced_message_types)
        # Of a guest's message of an unknown type the text is enough: agents read no more of it.
        known = (
            message
            if factory.is_registered(type(message))
            else TextMessage(content=message.to_model_text(), source=message.source)
            for message in self._seen
        )
        return {"seen": [message.dump() for message in known]}

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave."""
        factory = message_factory(self.produced_message_types)
        self._seen = [cast("BaseChatMessage", factory.create(data)) for data in state["seen"]]

    def _to_config(self) -> PolicyAgentConfig:
        return self.component_config_schema(
            persona=self.persona,
            policies=self.briefing.policy_set,
            limits=self.briefing.limits,
            prompts=self.briefing.prompts,
            models=[NamedModelConfig(name=m.name, config=m.config) for m in self.models],
            name=self.name,
        )

    @classmethod
    def _from_config(cls, config: PolicyAgentConfig) -> Self:
        briefing = Briefing(config.policies, config.limits, config.prompts)
        models = [Model(model.name, model.config) for model in config.models]
        return cls(config.persona, briefing, models, config.name)


def _quoted(raw: str) -> str:
    """A reply that could not be used, as its correction quotes it.

    Never empty, since some endpoints refuse empty messages; and not without end: nobody should pay
    for that.
    """
    return (raw or "(nothing)") if len(raw) <= _MOST_QUOTED else f"({len(raw):,} characters)"


def call_of(model: str, answer: ModelReply) -> Call:
    """A model's reply, as turns have it."""
    return Call(
        model=model,
        served_model=answer.served_model,
        raw=answer.refusal or answer.text,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        latency=round(answer.latency, 4),
        json_as=answer.json_as,
        adapted=answer.adapted,
    )
