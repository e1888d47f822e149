"""What agents reply: one typed reply per role, and the JSON schema that asks for it.

The schema carries the policy ids, the rule ids and the length limits of the run, and nothing that
varies from prompt to prompt: an endpoint compiles and caches it once. A reply of a constrained
endpoint therefore cannot cite a policy that does not exist; a reply of an unconstrained one is held
to the same ids when it is parsed (`agents.parsing`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from policies import FieldError, PolicySet
from policies.errors import quote, shorten, suggest

KINDS = ("deliberation", "pairs")
"""The kinds of chats. Each is a folder in `agents/`, with the modules `replies`, `state` and
`agents`, and a section of the prompt texts. Nothing else at the root of `agents/` names them, since
reply types register themselves when their module is imported."""

ReplyText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)
]
"""Free text of a reply. This bound is for unconstrained endpoints; `ReplyLimits` is tighter."""


def limited(limit: str) -> dict[str, Any]:
    """Marks a string or list whose schema takes its upper bound from `ReplyLimits`."""
    return {"x-limit": limit}


ThoughtText = Annotated[ReplyText, Field(json_schema_extra=limited("thought_chars"))]
NoteText = Annotated[ReplyText, Field(json_schema_extra=limited("note_chars"))]
ResponseText = Annotated[ReplyText, Field(json_schema_extra=limited("response_chars"))]


class ReplyLimits(BaseModel, extra="forbid", frozen=True):
    """How long a reply may be, as the schema asks for it. Small models run on without limits."""

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


@dataclass(frozen=True)
class ReplyContract:
    """What a run's replies are held to: the ids that may be cited, and the limits."""

    policy_set: PolicySet
    limits: ReplyLimits = field(default_factory=ReplyLimits)

    def ids(self, what: str) -> Collection[str]:
        """The ids of the `policies` or of the `rules`."""
        return self.policy_set.policy_ids if what == "policies" else self.policy_set.owners


class ReplyPart(BaseModel, extra="ignore", frozen=True):
    """A reply, or a part of one."""

    @classmethod
    def schema_for(cls, contract: ReplyContract) -> dict[str, Any]:
        """The JSON schema that asks for it, with the ids and limits of a run."""
        return dict(_finish_schema(cls.model_json_schema(), contract))


class TypedReply(ReplyPart):
    """The reply of a role, which a subclass names by a field ``role: Literal["…"] = "…"``."""

    by_role: ClassVar[dict[str, type[TypedReply]]] = {}
    """The reply type of each role whose module has been imported, for reading turns back."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "role" in cls.model_fields:
            other = TypedReply.by_role.get(cls.role_name(), cls)
            if other.__qualname__ != cls.__qualname__:  # the same one again, as in a notebook, may
                raise ValueError(f"{cls.__qualname__} has the role of {other.__qualname__}")
            TypedReply.by_role[cls.role_name()] = cls

    @classmethod
    def role_name(cls) -> str:
        """The role whose reply it is."""
        return str(cls.model_fields["role"].default)

    def describe(self, stance: str | None) -> list[str]:
        """The reply in plain words, one line a part; `stance` is that of its turn."""
        return [f"{name}: {value}" for name, value in self if name != "role"]


class Citation(ReplyPart):
    """A thought with the policies and rules that it rests on."""

    text: ThoughtText
    policies: list[str] = Field(min_length=1, max_length=5, json_schema_extra={"x-ids": "policies"})
    rules: list[str] = Field(max_length=8, json_schema_extra={"x-ids": "rules"})

    @field_validator("policies", "rules")
    @classmethod
    def _known(cls, ids: list[str], info: ValidationInfo) -> list[str]:
        if isinstance(info.context, ReplyContract):
            known = info.context.ids(str(info.field_name))
            unknown = [shorten(name) for name in ids if name not in known]
            if unknown:
                do = "does" if len(unknown) == 1 else "do"
                use = f"use only: {', '.join(known)}"
                raise ValueError(f"{', '.join(unknown)} {do} not exist; {use}")
        return list(dict.fromkeys(ids))

    def __str__(self) -> str:
        return f"{self.text} ({', '.join(self.policies + self.rules)})"


@cache
def _load_roles() -> None:
    for kind in KINDS:
        import_module(f"agents.{kind}.replies")


def _check_role(name: str) -> str:
    _load_roles()
    if name not in TypedReply.by_role:
        raise FieldError(f"There is no role {quote(name)}.", suggest(name, TypedReply.by_role))
    return name


def _list_roles(schema: dict[str, Any]) -> None:
    _load_roles()
    schema["enum"] = list(TypedReply.by_role)


def _read_reply(data: Any) -> Any:
    if not isinstance(data, Mapping):
        return data
    return TypedReply.by_role[_check_role(str(data.get("role")))].model_validate(data)


Role: TypeAlias = Annotated[str, AfterValidator(_check_role), Field(json_schema_extra=_list_roles)]
"""What an agent does in a chat, and so which reply it gives."""

AnyReply: TypeAlias = Annotated[TypedReply, BeforeValidator(_read_reply), SerializeAsAny()]
"""A reply of any role: read and written as the type that its role has."""


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
        out["properties"].pop("role", None)  # set by us to tell replies apart, not by the model
        out["required"] = list(out["properties"])
        out["additionalProperties"] = False
    if "x-limit" in node:
        bound = "maxItems" if out["type"] == "array" else "maxLength"
        out[bound] = getattr(contract.limits, node["x-limit"])
    if "x-least" in node:
        out["minItems"] = min(out["maxItems"], getattr(contract.limits, node["x-least"]))
    if "x-ids" in node:
        out["items"] = {"type": "string", "enum": list(contract.ids(node["x-ids"]))}
        out["maxItems"] = min(out["maxItems"], 3)
    return out
