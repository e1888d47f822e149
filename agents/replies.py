"""What agents reply: one typed reply per role, and the JSON schema that asks for it.

The schema carries the policy ids, the rule ids and the length limits of the run, and nothing that
varies from prompt to prompt: an endpoint compiles and caches it once. A reply of a constrained
endpoint therefore cannot cite a policy that does not exist; a reply of an unconstrained one is held
to the same ids when it is parsed (`agents.parsing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from agents.models.fixed import Fixed
from policies import PolicySet

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
"""Free text of a reply. This bound is for unconstrained endpoints; `ReplyLimits` is tighter."""


def limited(limit: str) -> dict[str, Any]:
    """Marks a field whose schema takes its upper bound from `ReplyLimits`."""
    return {"x-limit": limit}


class ReplyLimits(BaseModel):
    """How long a reply may be, as the schema asks for it. Small models run on without limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    intents: int = Field(default=6, ge=1, le=20)
    """Intents in one reply of the intent analyst."""
    thoughts: int = Field(default=8, ge=1, le=20)
    """Thoughts in a draft."""
    least_thoughts: int = Field(default=1, ge=1, le=20)
    """Fewest thoughts in a draft."""
    changes: int = Field(default=4, ge=1, le=20)
    """Thoughts that one deliberator adds in a turn, and as many that it corrects and disputes."""
    decisions: int = Field(default=24, ge=1, le=100)
    """Decisions of the refiner: it judges the thoughts of all rounds. Others are kept."""
    thought_chars: int = Field(default=700, ge=40, le=5_000)
    """Characters of one intent or thought."""
    note_chars: int = Field(default=400, ge=20, le=5_000)
    """Characters of a comment or a reason."""
    response_chars: int = Field(default=4_000, ge=80, le=20_000)
    """Characters of a response."""


class ReplyContract(BaseModel):
    """What a run's replies are held to: the ids that may be cited, and the limits."""

    model_config = ConfigDict(frozen=True)

    policy_of_rule: tuple[tuple[str, str], ...]
    """Pairs of rule id and the policy id that it belongs to."""
    policy_ids: tuple[str, ...]
    """Ids of the policies, in the order of the set."""
    limits: ReplyLimits = ReplyLimits()

    @classmethod
    def of(cls, policy_set: PolicySet, limits: ReplyLimits) -> ReplyContract:
        """The contract of a policy set."""
        pairs = tuple((rule.id, p.id) for p in policy_set.policies for rule in p.rules)
        return cls(policy_of_rule=pairs, policy_ids=policy_set.policy_ids, limits=limits)

    @cached_property
    def owners(self) -> dict[str, str]:
        """Policy id of each rule id. Treat as read-only."""
        return dict(self.policy_of_rule)


class TypedReply(BaseModel):
    """A reply of a role, or a part of one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def schema_for(cls, contract: ReplyContract) -> dict[str, Any]:
        """The JSON schema that asks for it, with the ids and limits of a run."""
        schema: dict[str, Any] = _finish_schema(cls.model_json_schema(), contract)
        return schema


class Intent(TypedReply):
    """One thing that the user wants, by the words or behind them."""

    text: Text = Field(json_schema_extra=limited("thought_chars"))
    kind: Literal["explicit", "implicit"]
    nature: Literal["benign", "harmful"]


class Citation(TypedReply):
    """A thought with the policies and rules that it rests on."""

    text: Text = Field(json_schema_extra=limited("thought_chars"))
    policies: list[str] = Field(min_length=1, max_length=5, json_schema_extra={"x-ids": "policies"})
    rules: list[str] = Field(max_length=8, json_schema_extra={"x-ids": "rules"})

    @field_validator("policies", "rules")
    @classmethod
    def _known(cls, ids: list[str], info: ValidationInfo) -> list[str]:
        if not isinstance(info.context, ReplyContract):
            return list(dict.fromkeys(ids))
        contract = info.context
        known = contract.policy_ids if info.field_name == "policies" else contract.owners
        unknown = [i if len(i) <= 60 else f"{i[:57]}..." for i in ids if i not in known]
        if unknown:
            do = "does" if len(unknown) == 1 else "do"
            raise ValueError(f"{', '.join(unknown)} {do} not exist; use only: {', '.join(known)}")
        return list(dict.fromkeys(ids))


class _Numbered(TypedReply):
    thought: int
    """Number of the thought that is meant."""


# Fields come in the order that a model should fill them in, the base classes' from right to left:
# number first, then the text, then the citation.
class Correction(Citation, _Numbered):
    """A new wording (and citation) of a thought that stands already."""


class Dispute(_Numbered):
    """An objection to a thought, left for others to settle."""

    reason: Text = Field(json_schema_extra=limited("note_chars"))


class IntentReply(TypedReply):
    """Reply of the intent analyst."""

    role: Literal["intent_analyst"] = "intent_analyst"
    intents: list[Intent] = Field(min_length=1, max_length=20, json_schema_extra=limited("intents"))


class DraftReply(TypedReply):
    """Reply of the drafter: the first thoughts and the first response."""

    role: Literal["drafter"] = "drafter"
    thoughts: list[Citation] = Field(
        min_length=1,
        max_length=20,
        json_schema_extra={**limited("thoughts"), "x-least": "least_thoughts"},
    )
    response: Text = Field(json_schema_extra=limited("response_chars"))


class DeliberationReply(TypedReply):
    """Reply of a deliberator: a verdict on the current version, and what it changes in it."""

    role: Literal["deliberator"] = "deliberator"
    comment: Text = Field(json_schema_extra=limited("note_chars"))
    verdict: Literal["accept", "revise"]
    add: list[Citation] = Field(max_length=20, json_schema_extra=limited("changes"))
    correct: list[Correction] = Field(max_length=20, json_schema_extra=limited("changes"))
    dispute: list[Dispute] = Field(max_length=20, json_schema_extra=limited("changes"))
    response: Text | None = Field(json_schema_extra=limited("response_chars"))


class Keep(_Numbered):
    """The thought stays as it is."""

    decision: Literal["keep"]


class _Rewriting(_Numbered):
    decision: Literal["rewrite"]


class Rewrite(Citation, _Rewriting):
    """The thought stays in a new wording."""

    why: Text = Field(json_schema_extra=limited("note_chars"))


DropReason: TypeAlias = Literal["deceptive", "redundant", "repetitive", "policy_inconsistent"]


class Drop(_Numbered):
    """The thought goes, for one of the paper's reasons."""

    decision: Literal["drop"]
    reason: DropReason
    why: Text = Field(json_schema_extra=limited("note_chars"))


class RefinementReply(TypedReply):
    """Reply of the refiner: what becomes of the thoughts, and the final response."""

    role: Literal["refiner"] = "refiner"
    decisions: list[Annotated[Keep | Rewrite | Drop, Field(discriminator="decision")]] = Field(
        max_length=100, json_schema_extra=limited("decisions")
    )
    response: Text | None = Field(json_schema_extra=limited("response_chars"))


def response_format(reply_type: type[TypedReply], contract: ReplyContract) -> Fixed:
    """The JSON schema for a reply, as `response_format` takes it.

    Args:
        reply_type: The reply of a role.
        contract: Ids and limits of the run.

    Returns:
        ``{"type": "json_schema", "json_schema": {"name", "strict", "schema"}}``. Every property is
        required and no other is allowed, as OpenAI's strict mode wants it.
    """
    schema = {
        "name": reply_type.__name__,
        "strict": True,
        "schema": reply_type.schema_for(contract),
    }
    return Fixed(type="json_schema", json_schema=schema)


def _finish_schema(node: Any, contract: ReplyContract) -> Any:
    if isinstance(node, list):
        return [_finish_schema(item, contract) for item in node]
    if not isinstance(node, Mapping):
        return node
    out: dict[str, Any] = {
        key: {name: _finish_schema(part, contract) for name, part in value.items()}
        if key in ("properties", "$defs")  # their keys are names, not words of JSON Schema
        else _finish_schema(value, contract)
        for key, value in node.items()
        if key not in ("title", "description", "default", "discriminator")
        and not key.startswith("x-")
    }
    if "oneOf" in out:  # OpenAI's strict mode knows anyOf alone; the variants exclude each other
        out["anyOf"] = out.pop("oneOf")
    if "properties" in out:
        out["properties"].pop("role", None)  # ours, to tell replies apart; not the model's to say
        out["required"] = list(out["properties"])
        out["additionalProperties"] = False
    if "x-limit" in node:
        _set_bound(out, getattr(contract.limits, node["x-limit"]))
    if "x-least" in node:
        out["minItems"] = min(out["maxItems"], getattr(contract.limits, node["x-least"]))
    if "x-ids" in node:
        ids = list(contract.policy_ids if node["x-ids"] == "policies" else contract.owners)
        out["items"] = {"type": "string", "enum": ids}
        out["maxItems"] = min(out["maxItems"], 3)
    return out


def _set_bound(node: dict[str, Any], bound: int) -> None:
    for variant in node.get("anyOf", [node]):
        if variant.get("type") == "string":
            variant["maxLength"] = bound
        elif variant.get("type") == "array":
            variant["maxItems"] = bound


def rule_owners(contract: ReplyContract, rules: Sequence[str]) -> list[str]:
    """Policies that the rules belong to, in order and once each; unknown rules are passed over."""
    owners = contract.owners
    return list(dict.fromkeys(owners[rule] for rule in rules if rule in owners))
