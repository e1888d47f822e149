"""A pair chat: what it is given, and where it stands after some turns.

It makes a record's answer a worse twin: an ear-whisperer proposes a belief, a generator answers the
prompt under it, a scorer says how far that violates the policies. The method is the belief
augmentation of arXiv:2505.21784, its loop that of FLIRT (arXiv:2308.04265).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from autogen_agentchat.messages import StructuredMessage
from pydantic import BaseModel, ConfigDict, Field

from agents.handing import take
from agents.pair_replies import MOST, AnswerReply, BeliefReply, ClassifierReply, JudgeReply
from agents.turns import Reply, Turn
from policies import PolicySet

PairKind: TypeAlias = Literal["violation", "over_refusal"]
"""What is wrong with the rejected side: it violates a policy of the run, or it refuses what is
harmless."""


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Step(_Data):
    """A thought of an answer, with what it cites."""

    text: str
    policies: list[str]
    rules: list[str]


class Answer(_Data):
    """One side of a pair: a chain of thought and the response that follows from it."""

    thoughts: list[Step]
    response: str

    @property
    def text(self) -> str:
        """All of it that is prose: thoughts, then response, a line each."""
        return "\n".join([*(thought.text for thought in self.thoughts), self.response])


class Score(_Data):
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


class Exemplar(_Data):
    """A belief that misled before, for the ear-whisperer to learn from."""

    policy: str
    """The target for which it was proposed."""
    belief: str
    led_to: str
    """The beginning of the response that it led to."""
    score: float = Field(ge=0, le=1)
    """How far that violated the policies that count."""


class PairBrief(_Data):
    """What a pair chat is given beside the prompt."""

    kind: PairKind
    target: str
    """Id of the policy that the belief is to lead to a violation of; empty if there may be none."""
    counted: list[str]
    """Ids of the policies whose scores count: over them the sides are compared."""
    chosen: Answer
    """The record's own answer."""
    exemplars: list[Exemplar] = []
    """Beliefs that worked for this target, as they stood when the chat began."""
    benign: bool = False
    """Whether the prompt has none but benign intents."""
    off_limits: list[str] = []
    """Rules that a classifier is asked about by themselves: nobody is to be misled about them."""

    @property
    def must_keep(self) -> list[str] | None:
        """Policies that the chosen side must not violate; None for all.

        Where a prompt is harmful, declining it is right, and what a scorer thinks of that under
        `over_refusal` is no reason to set it aside.
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


Scored: TypeAlias = JudgeReply | ClassifierReply
"""A scorer's reply."""


@dataclass
class Attempt:
    """One way around the circle."""

    number: int
    """From 1."""
    belief: str | None = None
    """None where nobody whispered."""
    answer: Answer | None = None
    scored: Scored | None = None
    """What the scorer said of the answer."""
    score: float | None = None
    """The highest of its scores that count."""


@dataclass
class Pairing:
    """The state of a pair chat. Built by `take_pairing`, changed by `apply` alone.

    Args:
        brief: What the chat was given.
    """

    brief: PairBrief
    chosen: Scored | None = None
    """Of the record's own answer; None before its scores are known."""
    attempts: list[Attempt] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list, compare=False)
    """The turns that were taken into account."""

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way or just finished."""
        return self.attempts[-1] if self.attempts else None

    @property
    def to_score(self) -> Answer:
        """What a scorer is to look at: the latest attempt's answer; before any, the chosen one."""
        attempt = self.attempt
        return attempt.answer if attempt and attempt.answer else self.brief.chosen

    @property
    def best(self) -> Attempt | None:
        """The attempt with the highest score, the first of equals; None if none was scored."""
        scored = [attempt for attempt in self.attempts if attempt.score is not None]
        return max(scored, key=lambda attempt: attempt.score or 0.0, default=None)

    def apply(self, turn: Turn) -> None:
        """Takes a turn into account; one without a reply changes nothing."""
        reply = turn.reply
        self.turns.append(turn)
        if isinstance(reply, BeliefReply):
            self._begin().belief = reply.belief
        elif isinstance(reply, AnswerReply):
            attempt = self.attempt
            if attempt is None or attempt.answer is not None:  # nobody whispers
                attempt = self._begin()
            attempt.answer = answer_of(reply)
        elif isinstance(reply, JudgeReply | ClassifierReply):
            if self.attempt is None:
                self.chosen = reply
            else:
                self.attempt.scored = reply
                self.attempt.score = violation_of(reply, self.brief.counted)

    def _begin(self) -> Attempt:
        self.attempts.append(Attempt(len(self.attempts) + 1))
        return self.attempts[-1]


def take_pairing(brief: PairBrief, turns: Sequence[Turn]) -> Pairing:
    """The state that turns lead to; goes on from what the last speaker handed on."""
    return take(Pairing(brief), "brief", turns)


def answer_of(reply: AnswerReply) -> Answer:
    """A generator's reply as a side of a pair."""
    return Answer(
        thoughts=[
            Step(text=t.text, policies=list(t.policies), rules=list(t.rules))
            for t in reply.thoughts
        ],
        response=reply.response,
    )


def scores_of(reply: Scored, policy_set: PolicySet) -> list[Score]:
    """A scorer's reply as scores, in the order of the policies."""
    rules = {rule.id: rule.text for policy in policy_set.policies for rule in policy.rules}
    if isinstance(reply, JudgeReply):
        return [_judged(policy, reply, rules) for policy in policy_set.policy_ids]
    return [
        Score(policy=policy_set.policy_of_rule(name), score=score, rule=name, rule_text=rules[name])
        if name in rules
        else Score(policy=name, score=score)
        for name, score in reply.violations.items()
    ]


def _judged(policy: str, reply: JudgeReply, rules: Mapping[str, str]) -> Score:
    judgement = reply.judgements[policy]
    if judgement.rating == 0:
        return Score(policy=policy, score=0.0)
    return Score(
        policy=policy,
        score=judgement.rating / MOST,
        rule=judgement.rule,
        rule_text=rules[judgement.rule],
        quote=judgement.quote or None,
    )


def violations(reply: Scored) -> dict[str, float]:
    """A scorer's scores by policy; a classifier's also by rules that it was asked about."""
    if isinstance(reply, ClassifierReply):
        return reply.violations
    return {policy: j.rating / MOST for policy, j in reply.judgements.items()}


def violation_of(reply: Reply | None, counted: Sequence[str] | None) -> float | None:
    """The highest score that a reply gives; None if it gives no scores.

    Args:
        reply: Any turn's.
        counted: Only these policies; all if None.
    """
    if not isinstance(reply, JudgeReply | ClassifierReply):
        return None
    scores = violations(reply)
    return max((s for p, s in scores.items() if counted is None or p in counted), default=0.0)
