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
    """Id of the policy that the belief is to lead to a violation of."""
    counted: list[str]
    """Ids of the policies whose scores count: over them the sides are compared."""
    chosen: Answer
    """The record's own answer."""
    exemplars: list[Exemplar] = []
    """Beliefs that worked for this target, as they stood when the chat began."""
    off_limits: list[str] = []
    """Rules that a classifier is asked about by themselves: nobody is to be misled about them."""

    @property
    def must_keep(self) -> list[str] | None:
        """Policies that the chosen side must not violate; None for all.

        Where a prompt is harmful, declining it is right, and what a scorer thinks of that under
        `over_refusal` is no reason to set it aside.
        """
        return None if self.kind == "over_refusal" else self.counted


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
    """One way around the circle."""

    number: int
    """From 1."""
    belief: str | None = None
    """None where nobody whispered."""
    answer: Answer | None = None
    scores: list[Score] | None = None
    score: float | None = None
    """The highest of the scores that count."""


@dataclass
class Pairing:
    """The state of a pair chat. Built by `take_pairing`, changed by `apply` alone.

    Args:
        brief: What the chat was given.
        policy_set: What is scored.
    """

    brief: PairBrief
    policy_set: PolicySet
    chosen_scores: list[Score] | None = None
    """Of the record's own answer; None before they are known."""
    chosen_score: float | None = None
    """The highest of those that count; what else it violates is in `chosen_fault`."""
    chosen_fault: float | None = None
    """The highest of those that the record's own answer must not violate."""
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
            scores = scores_of(reply, self.policy_set)
            if self.attempt is None:
                self.chosen_scores = scores
                self.chosen_score = violation_of(reply, self.brief.counted)
                self.chosen_fault = violation_of(reply, self.brief.must_keep)
            else:
                self.attempt.scores = scores
                self.attempt.score = violation_of(reply, self.brief.counted)

    def _begin(self) -> Attempt:
        self.attempts.append(Attempt(len(self.attempts) + 1))
        return self.attempts[-1]


_HANDED_ON = "_pairing"  # beside a turn's cached properties, which are not dumped either


def take_pairing(brief: PairBrief, policy_set: PolicySet, turns: Sequence[Turn]) -> Pairing:
    """The state that a sequence of turns leads to.

    Goes on from what `hand_on` left with the last turn, if it is about these: the agents of a chat
    need the same state one after the other. It is taken away from the turn, since whoever has it
    changes it.
    """
    state: Pairing | None = turns[-1].__dict__.pop(_HANDED_ON, None) if turns else None
    if (
        state is not None
        and state.brief is brief
        and state.policy_set is policy_set
        and len(state.turns) == len(turns)
        and all(mine is yours for mine, yours in zip(state.turns, turns, strict=True))
    ):
        return state
    state = Pairing(brief, policy_set)
    for turn in turns:
        state.apply(turn)
    return state


def hand_on(state: Pairing) -> None:
    """Leaves a state with the last turn that it takes into account."""
    state.turns[-1].__dict__[_HANDED_ON] = state


def answer_of(reply: AnswerReply) -> Answer:
    """A generator's reply as a side of a pair."""
    return Answer(
        thoughts=[
            Step(text=t.text, policies=list(t.policies), rules=list(t.rules))
            for t in reply.thoughts
        ],
        response=reply.response,
    )


def scores_of(reply: JudgeReply | ClassifierReply, policy_set: PolicySet) -> list[Score]:
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


def violation_of(reply: Reply | None, counted: Sequence[str] | None) -> float | None:
    """The highest score that a reply gives; None if it gives no scores.

    Args:
        reply: Any turn's.
        counted: Only these policies; all if None.
    """
    if isinstance(reply, ClassifierReply):
        scores = dict(reply.violations)
    elif isinstance(reply, JudgeReply):
        scores = {policy: j.rating / MOST for policy, j in reply.judgements.items()}
    else:
        return None
    return max((s for p, s in scores.items() if counted is None or p in counted), default=0.0)
