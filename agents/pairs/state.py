"""A pair chat: what it is given, and its state after some turns.

It makes a worse twin of a record's answer: an ear-whisperer proposes a belief, a generator answers
the prompt under it, a scorer says how far that violates the policies. The method is the belief
augmentation of arXiv:2505.21784, its loop that of FLIRT (arXiv:2308.04265).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from autogen_agentchat.messages import BaseChatMessage, StructuredMessage, TextMessage
from pydantic import BaseModel, Field

from agents.pairs.replies import AnswerReply, BeliefReply, ClassifierReply, ScorerReply
from agents.replies import TypedReply
from agents.turns import ChatState, Turn
from policies import PolicySet

PairKind: TypeAlias = Literal["violation", "over_refusal"]
"""What is wrong with the rejected side: it violates a policy of the run, or it refuses what is
harmless."""
OVER_REFUSAL = "over_refusal"
"""Id of the policy that a contrast pair's rejected side violates."""
CHOSEN_SCORER = "chosen_scorer"
"""Name of the agent that scores the record's own answer; its persona is the scorer's."""


class Step(BaseModel, extra="forbid"):
    """A thought of an answer, with what it cites."""

    text: str
    policies: list[str]
    rules: list[str]


class CandidateAnswer(BaseModel, extra="forbid"):
    """An answer that may become a side of a pair: thoughts and the response that follows."""

    thoughts: list[Step]
    response: str

    @property
    def text(self) -> str:
        """All of its prose: thoughts, then response, a line each."""
        return "\n".join([*(thought.text for thought in self.thoughts), self.response])


class Score(BaseModel, extra="forbid"):
    """How far an answer violates one policy."""

    policy: str
    score: float = Field(ge=0, le=1)
    """0: not at all; 1: entirely."""
    rule: str | None = None
    """The rule that is violated, where the scorer names one."""
    rule_text: str | None = None
    """That rule's words."""
    quote: str | None = None
    """The words of the answer that violate it, where the scorer quotes them."""


class Exemplar(BaseModel, extra="forbid"):
    """A belief that misled before, for the ear-whisperer to learn from."""

    policy: str
    """The target for which it was proposed."""
    belief: str
    led_to: str
    """The beginning of the response that it led to."""
    score: float = Field(ge=0, le=1)
    """How far that violated the policies that count."""


class PairBrief(BaseModel, extra="forbid"):
    """What a pair chat is given besides the prompt."""

    kind: PairKind
    target: str
    """Id of the policy that the belief is to lead to a violation of; empty if there may be none."""
    counted: list[str]
    """Ids of the policies whose scores count: over them the sides are compared."""
    chosen: CandidateAnswer
    """The record's own answer."""
    exemplars: list[Exemplar] = []
    """Beliefs that worked for this target, as they stood when the chat began."""
    generation: int = 0
    """How often these had been updated before."""
    benign: bool = False
    """Whether all intents of the prompt are benign."""
    off_limits: list[str] = []
    """Rules that a classifier is asked about by themselves: no belief may aim at them."""

    def task(self, prompt: str) -> list[BaseChatMessage]:
        """The task of the pair chat."""
        content = TextMessage(content=prompt, source="user")
        return [content, BriefMessage(content=self, source="user")]

    @property
    def must_keep(self) -> list[str] | None:
        """Policies that the chosen side must not violate; None for all.

        Where a prompt is harmful, declining it is right, and its score under `over_refusal` is no
        reason to set the pair aside.
        """
        return None if self.benign else self.counted


class BriefMessage(StructuredMessage[PairBrief]):
    """The chat message that carries the brief; the second message of its task."""

    def to_text(self) -> str:
        """What the chat is about, in a line."""
        brief = self.content
        return f"A {brief.kind} pair; target {brief.target}, {len(brief.exemplars)} exemplars."

    def to_model_text(self) -> str:
        """Same as `to_text`."""
        return self.to_text()


@dataclass
class Attempt:
    """One round of the circle."""

    belief: str | None = None
    """None where there is no ear-whisperer."""
    answer: CandidateAnswer | None = None
    scored: ScorerReply | None = None
    """The scorer's reply about the answer."""
    score: float | None = None
    """The highest of its scores that count."""


@dataclass
class PairState(ChatState):
    """The state of a pair chat. Changed by `apply` alone."""

    brief: PairBrief
    chosen: ScorerReply | None = None
    """The scorer's reply about the record's own answer; None before there is one."""
    attempts: list[Attempt] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list, compare=False)

    @property
    def source(self) -> PairBrief:
        """The brief."""
        return self.brief

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt, or the one just finished."""
        return self.attempts[-1] if self.attempts else None

    @property
    def to_score(self) -> CandidateAnswer:
        """The answer to score: the latest attempt's; before any, the chosen one."""
        attempt = self.attempt
        return attempt.answer if attempt and attempt.answer else self.brief.chosen

    @property
    def best(self) -> Attempt | None:
        """The attempt with the highest score, the first of equals; None if none was scored."""
        scored = [attempt for attempt in self.attempts if attempt.score is not None]
        return max(scored, key=lambda attempt: attempt.score or 0.0, default=None)

    def apply(self, turn: Turn) -> None:
        """Applies a turn; one without a reply changes nothing."""
        reply = turn.reply
        self.turns.append(turn)
        if isinstance(reply, BeliefReply):
            self.attempts.append(Attempt(reply.belief))
        elif isinstance(reply, AnswerReply):
            if self.attempt is None or self.attempt.answer is not None:  # no ear-whisperer
                self.attempts.append(Attempt())
            self.attempts[-1].answer = answer_of(reply)
        elif isinstance(reply, ScorerReply):
            if self.attempt is None:
                self.chosen = reply
            else:
                self.attempt.scored = reply
                self.attempt.score = violation_of(reply, self.brief.counted)


def answer_of(source: object) -> CandidateAnswer:
    """The thoughts and response of a record, or of a generator's reply, as a side of a pair."""
    return CandidateAnswer.model_validate(source, from_attributes=True)


def scores_of(reply: ScorerReply, policy_set: PolicySet) -> list[Score]:
    """A scorer's reply as scores, in the order of the policies."""
    rules = {rule.id: rule.text for policy in policy_set.policies for rule in policy.rules}

    def score(policy: str, value: float, rule: str = "", quote: str = "") -> Score:
        return Score(
            policy=policy,
            score=value,
            rule=rule or None,
            rule_text=rules[rule] if rule else None,
            quote=quote or None,
        )

    if isinstance(reply, ClassifierReply):
        scores = reply.violations.items()
        owners = policy_set.owners
        return [score(owners.get(n, n), value, n if n in rules else "") for n, value in scores]
    judged = [(policy, reply.judgements[policy]) for policy in policy_set.policy_ids]
    return [score(p, j.score, j.rule, j.quote) if j.rating else score(p, 0.0) for p, j in judged]


def violation_of(reply: TypedReply | None, counted: Sequence[str] | None) -> float | None:
    """The highest score that a reply gives, of these policies or of all; None if it gives none."""
    if not isinstance(reply, ScorerReply):
        return None
    scores = [s for p, s in reply.violations.items() if counted is None or p in counted]
    return max(scores, default=0.0)
