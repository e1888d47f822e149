"""`PolicyAgent`: the base of all our agents. One turn is one typed reply, or a typed failure.

What a turn is asked for, and what it does, is a subclass's: `agents.roles` has those that
deliberate, `agents.pair_roles` those that make pairs.

A turn asks the persona's model; a reply that cannot be used gets one correction turn, which quotes
what is wrong; a refusal goes to the persona's fallback models. What comes out is a `Turn` with an
outcome, never an exception, as long as the endpoint answers. An endpoint that does not is the
caller's business: its error passes through as itself.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar, Self, cast

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import Response
from autogen_agentchat.messages import (
    BaseChatMessage,
    MessageFactory,
    MultiModalMessage,
    TextMessage,
)
from autogen_core import CancellationToken, Component
from autogen_core.models import LLMMessage, RequestUsage
from pydantic import BaseModel, field_serializer

from agents.layout import Briefing, correction
from agents.models.model import Answer, Model, NamedModelConfig
from agents.parsing import ReplyError, parse_reply, without_thinking
from agents.persona import Persona
from agents.replies import ReplyLimits, TypedReply
from agents.slim import slim
from agents.turns import Call, Reply, Role, Turn, TurnMessage, TurnOutcome, message_factory
from policies import PolicySet

_REFUSAL = re.compile(
    r"""\W*(
        ((i'?m|i\ am)\ ((so|very|really|truly)\ )?)?sorry\b(?!\ for\ the\b)
      | i\ (do\ |must\ )?apologi[sz]e\b(?!\ for\ the\b)
      | (as\ an?\ (ai|assistant|language\ model)\b[^.]{0,40}?,?\ )?
        (unfortunately,?\ |i'?m\ afraid\ (that\ )?)?
        (i|we)\ ?(\w+ly\ |must\ |have\ to\ )*
        ( can(no|')t | can\ not | won't | will\ not | decline
        | ('m|\ am|am|\ are)\ ?(unable|not\ able|not\ comfortable|not\ willing) )
        # Who finds nothing takes part, and only has the form wrong.
        (?!(\ to)?\ (see|find|think|spot|identify|detect|add|improve|tell)\b)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def looks_like_refusal(text: str) -> bool:
    """Whether prose that came instead of a typed reply reads like a refusal to take part.

    Asked only of replies that could not be parsed: it decides between two failures, never about
    the content of a chat. `refused` goes to the fallback models, `malformed` to a correction turn.
    In doubt it says no, since a correction turn costs little and a model that does refuse will do
    so again. So "I am not able to see a problem" is no refusal: that is a deliberator at work.
    """
    said = without_thinking(text).strip()[:200].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return bool(_REFUSAL.match(said))


class RefusedError(ReplyError):
    """The model, or a filter of its provider, declined to take part."""


class PolicyAgentConfig(BaseModel):
    """Declarative form of a `PolicyAgent`."""

    persona: Persona
    policies: PolicySet
    limits: ReplyLimits
    models: list[NamedModelConfig]

    @field_serializer("models")
    def _dump_models(self, models: list[NamedModelConfig]) -> list[dict[str, Any]]:
        # AutoGen dumps configs without None, which here means "leave it to the endpoint" and is not
        # always the default. Plain dicts keep theirs.
        return [model.model_dump(mode="json") for model in models]


AROUND_TURN: ContextVar[Callable[[PolicyAgent, Awaitable[Response]], Awaitable[Response]] | None]
"""Takes every turn of a task's agents and gives its response, such as telemetry; None if nobody
does."""
AROUND_TURN = ContextVar("AROUND_TURN", default=None)


class PolicyAgent(BaseChatAgent, Component[PolicyAgentConfig]):
    """An agent that reasons over policies and replies in a typed form.

    Works in a `DeliberationChat` and in AutoGen's own teams: it takes the first message that it
    sees for the user's prompt, other agents' `TurnMessage`s for turns, and any other message for
    the words of a guest.

    Args:
        persona: Who the agent is; its role must be the class's.
        briefing: Policies and limits, shared by all agents of a run.
        models: The persona's model, then its fallbacks. Not empty.

    Raises:
        ValueError: The persona has another role, or there is no model.
    """

    component_config_schema: type[PolicyAgentConfig] = PolicyAgentConfig
    role: ClassVar[Role]
    reply_type: ClassVar[type[TypedReply]]

    def __init__(self, persona: Persona, briefing: Briefing, models: Sequence[Model]) -> None:
        if persona.role != self.role:
            raise ValueError(f"persona '{persona.name}' is a {persona.role}, not a {self.role}")
        if not models:
            raise ValueError(f"persona '{persona.name}' has no model")
        super().__init__(persona.name, persona.description)
        self.persona = persona
        self.briefing = briefing
        self.models = tuple(models)
        self._seen: list[BaseChatMessage] = []

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        """Always `TurnMessage`."""
        return (TurnMessage,)

    @abstractmethod
    def fold(self, seen: Sequence[BaseChatMessage], turns: Sequence[Turn]) -> Any:
        """Where the chat stands."""

    @abstractmethod
    def instruction(self, seen: Sequence[BaseChatMessage], state: Any) -> str:
        """What the agent is told in this turn, beside the ground rules and the prompt."""

    @abstractmethod
    def request(
        self, prompt: str, turns: Sequence[Turn], instruction: str, state: Any
    ) -> list[LLMMessage]:
        """The messages of the turn's call."""

    @abstractmethod
    def round(self, turns: Sequence[Turn], state: Any) -> int:
        """The round of the circle that the turn belongs to; 0 outside of it."""

    def settle(self, state: Any, turn: Turn) -> None:
        """The turn is over: what it does to the state, and what of that it carries."""
        return

    def objection(self, reply: Any, state: Any) -> str | None:
        """What is wrong with a well-formed reply in this state; None if nothing is."""
        return None

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        """Takes a turn.

        Args:
            messages: What was said since this agent's last turn.
            cancellation_token: Cancels the model call under way.

        Returns:
            A `TurnMessage`; what kept it from a reply, if anything did, is its turn's `outcome`.

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
        data = self._data(seen)
        turns = [message.content for message in seen if isinstance(message, TurnMessage)]
        state = self.fold(seen, turns)
        instruction = self.instruction(seen, state)
        request = self.request(data[0], turns, instruction, state)
        reply, outcome, calls = await self._converse(request, data, state, cancellation_token)
        *discarded, last = calls
        turn = Turn(
            agent=self.name,
            persona=self.persona.name,
            role=self.role,
            round=self.round(turns, state),
            instruction=instruction,
            reply=reply,
            outcome=outcome,
            discarded=discarded,
            **dict(last),
        )
        self.settle(state, turn)
        usage = turn.total_usage
        message = TurnMessage(
            content=turn,
            source=self.name,
            models_usage=RequestUsage(usage.prompt_tokens, usage.completion_tokens),
        )
        # Only now: a turn that failed leaves the agent as it was, and can be tried again.
        self._seen = [*seen, message]
        slim(message)
        return Response(chat_message=message)

    def _data(self, seen: Sequence[BaseChatMessage]) -> list[str]:
        """The texts that are data: the prompt first, then what guests said."""
        if not seen or isinstance(seen[0], TurnMessage):
            raise ValueError(f"{self.name} was asked to speak before there was a prompt")
        if isinstance(seen[0], MultiModalMessage):
            raise ValueError(f"{self.name} reads text, and the prompt holds images; leave them out")
        return [m.to_model_text() for m in seen if not isinstance(m, TurnMessage)]

    async def _converse(
        self,
        request: list[LLMMessage],
        data: Sequence[str],
        state: Any,
        cancellation_token: CancellationToken,
    ) -> tuple[Reply | None, TurnOutcome, list[Call]]:
        """Asks until there is a usable reply or no further way; the last call is the one."""
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
                    return self._read(answer, data, state), "completed", calls
                except RefusedError as error:
                    call.problem = str(error)
                    outcome = "refused"
                    refusals += 1
                    if model is not self.models[-1]:
                        break
                    # Nobody else to ask: once more, without arguing. Filters err, and a reply that
                    # is sampled anew often passes.
                    messages = request
                except ReplyError as error:
                    call.problem = str(error)
                    corrections += 1
                    outcome = "truncated" if call.finish_reason == "length" else "malformed"
                    cut_off = outcome == "truncated"
                    problem = "it was cut off; be shorter" if cut_off else call.problem
                    messages = correction(request, call.raw, problem)
            if outcome != "refused":
                break
        return None, outcome, calls

    def _read(self, answer: Answer, data: Sequence[str], state: Any) -> Reply:
        """The reply in an answer.

        Raises:
            RefusedError: The model refused to take part.
            ReplyError: The answer is not what was asked for.
        """
        if answer.finish_reason == "content_filter":
            raise RefusedError("a filter of the provider stopped the reply")
        if answer.refusal is not None:
            raise RefusedError("the model refused to take part")
        try:
            reply: Any = parse_reply(answer.text, self.reply_type, self.briefing.contract, data)
        except ReplyError:
            if looks_like_refusal(answer.text):
                raise RefusedError("the model refused to take part") from None
            raise
        objection = self.objection(reply, state)
        if objection:
            raise ReplyError(objection)
        return cast("Reply", reply)

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        """Forgets everything that was said."""
        self._seen = []

    async def save_state(self) -> Mapping[str, Any]:
        """What was said so far, as JSON data.

        A guest's message of a type that only the guest knows is kept as its text: there would be
        nobody to build it again, and its text is all that an agent reads.
        """
        factory = self._message_factory()
        return {
            "seen": [
                (message if factory.is_registered(type(message)) else _as_text(message)).dump()
                for message in self._seen
            ]
        }

    async def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores what `save_state` gave."""
        factory = self._message_factory()
        self._seen = [cast("BaseChatMessage", factory.create(data)) for data in state["seen"]]

    def _message_factory(self) -> MessageFactory:
        factory = message_factory()
        for kind in self.produced_message_types:
            if not factory.is_registered(kind):
                factory.register(kind)
        return factory

    def _to_config(self) -> PolicyAgentConfig:
        return PolicyAgentConfig(
            persona=self.persona,
            policies=self.briefing.policy_set,
            limits=self.briefing.limits,
            models=[model.to_config() for model in self.models],
        )

    @classmethod
    def _from_config(cls, config: PolicyAgentConfig) -> Self:
        briefing = Briefing(config.policies, config.limits)
        return cls(config.persona, briefing, [Model.from_config(m) for m in config.models])


def call_of(model: str, answer: Answer) -> Call:
    """A model's reply, as turns have it."""
    return Call(
        model=model,
        served_model=answer.served_model,
        raw=answer.refusal or answer.text,
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        latency=round(answer.latency, 4),
        json_as=answer.json_as,
    )


def _as_text(message: BaseChatMessage) -> TextMessage:
    return TextMessage(content=message.to_model_text(), source=message.source)
