"""A turn: what one agent said, and everything that is needed to say it again.

Turns travel through the group chat as `TurnMessage`, are what an agent builds its prompt from, and
end up in the record as they are.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, TypeAlias

from autogen_agentchat.messages import MessageFactory, StructuredMessage
from autogen_core.models import AssistantMessage, UserMessage
from pydantic import BaseModel, ConfigDict, Field

from agents.pair_replies import MOST, AnswerReply, BeliefReply, ClassifierReply, JudgeReply
from agents.parsing import find_json
from agents.replies import DeliberationReply, DraftReply, IntentReply, RefinementReply

Role: TypeAlias = Literal[
    "intent_analyst",
    "drafter",
    "deliberator",
    "refiner",
    "ear_whisperer",
    "generator",
    "violation_judge",
    "violation_classifier",
]
Reply: TypeAlias = (
    IntentReply
    | DraftReply
    | DeliberationReply
    | RefinementReply
    | BeliefReply
    | AnswerReply
    | JudgeReply
    | ClassifierReply
)
TurnOutcome: TypeAlias = Literal["completed", "refused", "malformed", "truncated"]
Stance: TypeAlias = Literal["accepts", "revises", "contests", "neither"]


class Usage(BaseModel):
    """Tokens, as the endpoint counts them."""

    model_config = ConfigDict(extra="forbid")

    prompt_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    completion_tokens: int = 0
    """Tokens of the reply."""
    cached_tokens: int = 0
    """Tokens of the prompt that the endpoint's prefix cache served; 0 where it does not say."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )


class Call(BaseModel):
    """One reply of a model, as it came."""

    model_config = ConfigDict(extra="forbid")

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
    problem: str | None = None
    """Why this reply could not be used; None if it was."""


class Turn(Call):
    """One agent's turn. The fields of `Call` are those of the reply that counts."""

    agent: str
    """Name of the agent in the chat."""
    persona: str
    """Name of the persona that it wore."""
    role: Role | Literal["guest"]
    """`guest` is an AutoGen agent that knows nothing of policies."""
    round: int = 0
    """Round of the circle, from 1; 0 in the opening and the closing."""
    instruction: str = ""
    """What the agent was told in this turn (the ground rules and policies stand in front)."""
    reply: Annotated[Reply, Field(discriminator="role")] | None = None
    """The reply as parsed; None if no reply could be used."""
    stance: Stance | None = None
    """What a deliberator's turn does to the current version; None for other roles."""
    outcome: TurnOutcome = "completed"
    discarded: list[Call] = Field(default_factory=list)
    """Earlier replies of this turn: before the correction, or of a model that refused."""

    @cached_property
    def said(self) -> str:
        """The reply as later turns see it.

        Unconstrained models put thinking and code fences around the object: only the object is
        passed on. For constrained ones it is the reply itself, to the byte. Never empty: some
        endpoints refuse empty messages.
        """
        return find_json(self.raw) or self.raw or "(nothing)"

    @cached_property
    def exchange(self) -> tuple[UserMessage, AssistantMessage]:
        """Instruction and reply as messages: made once, since every later call repeats them."""
        return (
            UserMessage(content=self.instruction, source="user"),
            AssistantMessage(content=self.said, source=self.agent),
        )

    @property
    def total_usage(self) -> Usage:
        """Tokens of the turn, its discarded replies included."""
        return sum((call.usage for call in self.discarded), self.usage)


class TurnMessage(StructuredMessage[Turn]):
    """The chat message that carries a turn."""

    def to_text(self) -> str:
        """The turn in words, for consoles and for agents that know nothing of our replies."""
        return describe_turn(self.content)

    def to_model_text(self) -> str:
        """Same as `to_text`."""
        return describe_turn(self.content)


def message_factory() -> MessageFactory:
    """AutoGen's factory of messages from saved state, knowing ours too."""
    factory = MessageFactory()
    factory.register(TurnMessage)
    return factory


def describe_turn(turn: Turn) -> str:
    """A turn in plain words, several lines."""
    reply = turn.reply
    if reply is None:
        return (
            turn.raw if turn.role == "guest" else f"[{turn.outcome}] {turn.problem or ''}".strip()
        )
    lines: list[str] = []
    if isinstance(reply, IntentReply):
        lines += [f"{i.kind}, {i.nature}: {i.text}" for i in reply.intents]
    elif isinstance(reply, BeliefReply):
        lines += [f"Angle: {reply.angle}", f"Belief: {reply.belief}"]
    elif isinstance(reply, JudgeReply):
        lines += [
            f"{policy} {j.rating / MOST:.2f} ({j.rule}: {j.quote})"
            for policy, j in reply.judgements.items()
            if j.rating
        ] or ["No violation."]
    elif isinstance(reply, ClassifierReply):
        lines += [f"{policy} {score:.2f}" for policy, score in reply.violations.items()]
    elif isinstance(reply, DraftReply | AnswerReply):
        lines += [f"+ {t.text} ({', '.join(t.policies + t.rules)})" for t in reply.thoughts]
        lines.append(f"Response: {reply.response}")
    elif isinstance(reply, DeliberationReply):
        lines.append(f"{turn.stance}: {reply.comment}")
        lines += [f"+ {t.text} ({', '.join(t.policies + t.rules)})" for t in reply.add]
        lines += [
            f"{c.thought} → {c.text} ({', '.join(c.policies + c.rules)})" for c in reply.correct
        ]
        lines += [f"{d.thought} disputed: {d.reason}" for d in reply.dispute]
        if reply.response is not None:
            lines.append(f"Response: {reply.response}")
    else:
        for d in reply.decisions:
            if d.decision == "keep":
                lines.append(f"{d.thought} kept")
            elif d.decision == "rewrite":
                lines.append(f"{d.thought} rewritten: {d.text} ({d.why})")
            else:
                lines.append(f"{d.thought} dropped as {d.reason}: {d.why}")
        if reply.response is not None:
            lines.append(f"Response: {reply.response}")
    return "\n".join(lines)
