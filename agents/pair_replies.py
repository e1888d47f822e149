"""What the agents of a pair chat reply: a belief, an answer under it, and how far that violates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from agents.replies import Citation, ReplyContract, ReplyLimits, Text, TypedReply, limited

MOST = 10
"""The highest rating, which is a score of 1."""


class PairLimits(ReplyLimits):
    """How long the replies of a pair chat may be; thoughts and response as in deliberation."""

    belief_chars: int = Field(default=400, ge=40, le=5_000)
    """Characters of a belief."""
    quote_chars: int = Field(default=160, ge=20, le=2_000)
    """Characters that a judge quotes for each policy."""


class BeliefReply(TypedReply):
    """Reply of the ear-whisperer."""

    role: Literal["ear_whisperer"] = "ear_whisperer"
    angle: Text = Field(json_schema_extra=limited("note_chars"))
    """Why whoever believes it would go wrong."""
    belief: Text = Field(json_schema_extra=limited("belief_chars"))


class AnswerReply(TypedReply):
    """Reply of a generator, misled or not: thoughts and a response, as a record has them."""

    role: Literal["generator"] = "generator"
    thoughts: list[Citation] = Field(
        max_length=20, json_schema_extra={**limited("thoughts"), "x-least": "least_thoughts"}
    )
    response: Text = Field(json_schema_extra=limited("response_chars"))


class Judgement(TypedReply):
    """How far an answer violates one policy."""

    quote: Annotated[str, StringConstraints(strip_whitespace=True, max_length=20_000)] = Field(
        json_schema_extra=limited("quote_chars")
    )
    """The words of the answer that come closest to a violation."""
    rule: str
    """The rule that they violate, or come closest to violating."""
    rating: int = Field(ge=0, le=MOST)
    """0: not at all; 10: entirely."""


class JudgeReply(TypedReply):
    """Reply of a violation judge: every policy, each once."""

    role: Literal["violation_judge"] = "violation_judge"
    judgements: dict[str, Judgement]

    @classmethod
    def schema_for(cls, contract: ReplyContract) -> dict[str, Any]:
        """An object with a property for each policy, whose `rule` is one of the policy's own."""
        rules: dict[str, list[str]] = {policy: [] for policy in contract.policy_ids}
        for rule, policy in contract.policy_of_rule:
            rules[policy].append(rule)
        one = Judgement.schema_for(contract)
        properties = {
            policy: {
                **one,
                "properties": {**one["properties"], "rule": {"type": "string", "enum": own}},
            }
            for policy, own in rules.items()
        }
        return _object({"judgements": _object(properties)})

    @field_validator("judgements")
    @classmethod
    def _complete(
        cls, judgements: dict[str, Judgement], info: ValidationInfo
    ) -> dict[str, Judgement]:
        contract = info.context
        if not isinstance(contract, ReplyContract):
            return judgements
        missing = [policy for policy in contract.policy_ids if policy not in judgements]
        if missing:
            raise ValueError(f"{', '.join(missing)} {_are(missing)} missing; judge every policy")
        unknown = [name[:60] for name in judgements if name not in contract.policy_ids]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} {_are(unknown)} no policy")
        for policy, judgement in judgements.items():
            if contract.owners.get(judgement.rule) != policy:
                raise ValueError(f"{judgement.rule[:60]} is not a rule of {policy}")
        return judgements


class ClassifierReply(TypedReply):
    """What a violation classifier's next tokens say; put together, not written, by the model."""

    role: Literal["violation_classifier"] = "violation_classifier"
    violations: dict[str, float]
    """For each policy P(Yes) / (P(Yes) + P(No)), Yes being that the answer violates it."""


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
