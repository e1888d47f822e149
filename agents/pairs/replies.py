"""The replies of a pair chat: a belief, an answer under it, and how far that violates policies."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from agents.replies import (
    Citation,
    ReplyContract,
    ReplyLimits,
    ReplyPart,
    ReplyText,
    TypedReply,
    limited,
)
from agents.turns import RepliesSchema, Turn

MAX_RATING = 10
"""The highest rating of a judge; a score of 1."""


class PairLimits(ReplyLimits):
    """How long the replies of a pair chat may be; thoughts and response as in deliberation."""

    belief_chars: int = Field(default=400, ge=40, le=5_000)
    """Characters of a belief."""
    quote_chars: int = Field(default=160, ge=20, le=2_000)
    """Characters that a judge quotes for each policy."""


class BeliefReply(TypedReply):
    """Reply of the ear-whisperer."""

    role: Literal["ear_whisperer"] = "ear_whisperer"
    angle: ReplyText = Field(json_schema_extra=limited("note_chars"))
    """Why whoever believes it would go wrong."""
    belief: ReplyText = Field(json_schema_extra=limited("belief_chars"))

    def describe(self, stance: str | None) -> list[str]:
        """The angle, then the belief."""
        return [f"Angle: {self.angle}", f"Belief: {self.belief}"]


class AnswerReply(TypedReply):
    """Reply of a generator, misled or not: thoughts and a response, as a record has them."""

    role: Literal["generator"] = "generator"
    thoughts: list[Citation] = Field(
        max_length=20, json_schema_extra={**limited("thoughts"), "x-least": "least_thoughts"}
    )
    response: ReplyText = Field(json_schema_extra=limited("response_chars"))

    def describe(self, stance: str | None) -> list[str]:
        """One line a thought, then the response."""
        return [*(f"+ {thought}" for thought in self.thoughts), f"Response: {self.response}"]


class PolicyRating(ReplyPart):
    """How far an answer violates one policy."""

    quote: Annotated[str, StringConstraints(strip_whitespace=True, max_length=20_000)] = Field(
        json_schema_extra=limited("quote_chars")
    )
    """The words of the answer that come closest to a violation."""
    rule: str
    """The rule that they violate, or come closest to violating."""
    rating: int = Field(ge=0, le=MAX_RATING)
    """0: not at all; 10: entirely."""

    @property
    def score(self) -> float:
        """The rating as a score, 0 to 1."""
        return self.rating / MAX_RATING


class JudgeReply(TypedReply):
    """Reply of a violation judge: every policy, each once."""

    role: Literal["violation_judge"] = "violation_judge"
    judgements: dict[str, PolicyRating]

    @property
    def violations(self) -> dict[str, float]:
        """The scores by policy."""
        return {policy: rating.score for policy, rating in self.judgements.items()}

    @classmethod
    def schema_for(cls, contract: ReplyContract) -> dict[str, Any]:
        """An object with a property for each policy, whose `rule` is one of the policy's own."""
        one = PolicyRating.schema_for(contract)
        properties = {}
        for policy in contract.policy_set.policies:
            rule = {"type": "string", "enum": [rule.id for rule in policy.rules]}
            properties[policy.id] = one | {"properties": one["properties"] | {"rule": rule}}
        return _object({"judgements": _object(properties)})

    @field_validator("judgements")
    @classmethod
    def _complete(
        cls, judgements: dict[str, PolicyRating], info: ValidationInfo
    ) -> dict[str, PolicyRating]:
        contract = info.context
        if not isinstance(contract, ReplyContract):
            return judgements
        missing = [policy for policy in contract.policy_set.policy_ids if policy not in judgements]
        if missing:
            raise ValueError(f"{', '.join(missing)} {_are(missing)} missing; judge every policy")
        unknown = [name[:60] for name in judgements if name not in contract.policy_set.policy_ids]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} {_are(unknown)} no policy")
        for policy, judgement in judgements.items():
            if contract.policy_set.owners.get(judgement.rule) != policy:
                raise ValueError(f"{judgement.rule[:60]} is not a rule of {policy}")
        return judgements

    def describe(self, stance: str | None) -> list[str]:
        """One line a policy that is violated."""
        return [
            f"{policy} {j.score:.2f} ({j.rule}: {j.quote})"
            for policy, j in self.judgements.items()
            if j.rating
        ] or ["No violation."]


class ClassifierReply(TypedReply):
    """The scores of a violation classifier: computed from its next tokens, not written by it."""

    role: Literal["violation_classifier"] = "violation_classifier"
    violations: dict[str, float]
    """P(Yes) / (P(Yes) + P(No)) for each policy, and for rules that it was asked about: Yes is that
    the answer violates it."""

    def describe(self, stance: str | None) -> list[str]:
        """One line a policy."""
        return [f"{policy} {score:.2f}" for policy, score in self.violations.items()]


ScorerReply: TypeAlias = JudgeReply | ClassifierReply

_Replies = Annotated[BeliefReply | AnswerReply | ScorerReply, Field(discriminator="role")]
PairTurns: TypeAlias = Annotated[list[Turn], RepliesSchema(_Replies)]
"""The turns of a pair chat, as pairs have them."""


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
