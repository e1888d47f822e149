"""What a run makes of a prompt, whatever its kind: outcome, provenance, transcript."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Literal, Protocol, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict

from agents.prompt_texts import PromptTexts
from agents.turns import Call, Turn
from orchestration.chat.cast import BaseCast
from policies import PolicySet

Outcome: TypeAlias = Literal[
    "completed", "refused", "malformed", "truncated", "failed", "over_budget"
]
"""How a prompt of a run ended. Only `completed` yields data for training."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Interruption: TypeAlias = tuple[Outcome, str]
"""Outcome and reason, if a chat was interrupted."""


class Provenance(BaseModel):
    """What a result was made of and with."""

    model_config = ConfigDict(extra="forbid")

    aidsafe: str
    """Version of aidsafe."""
    autogen: str
    """Version of autogen-agentchat."""
    python: str
    policy_set: str
    """Id and version of the policy set, as `id@version`."""
    policy_set_hash: str
    policies: dict[str, str]
    """Hash of each policy, by its id."""
    recipe: str
    recipe_hash: str
    prompts: str
    """Name of the prompt texts."""
    prompts_hash: str
    personas: dict[str, str]
    """Hash of each persona, by its name."""
    termination: dict[str, Any] | None = None
    """The termination condition, if a script set another one than the recipe's."""
    models: dict[str, dict[str, Any]]
    """Configuration of each model that could be asked, sampling and seed included, by its name."""
    json_as: dict[str, list[str]] = {}
    """How each model was asked for JSON: `json_schema`, or what its endpoint supports instead
    (`json_object`, `text`). Models whose client does not say are left out."""
    started_at: str
    """UTC, ISO 8601: when the last session's part of the chat began; replies may be older."""
    finished_at: str
    """UTC, ISO 8601."""


class RunResult(Protocol):
    """What a run makes of a prompt, and stores in its journal."""

    id: str
    prompt: str
    metadata: dict[str, Any]
    outcome: Outcome
    problem: str | None

    @property
    def turns(self) -> Sequence[Turn]:
        """The transcript."""

    @property
    def provenance(self) -> Provenance:
        """What it was made of and with."""

    @property
    def reason(self) -> str | None:
        """What completed results are counted by, such as why the chat stopped."""

    @property
    def rounds_or_attempts(self) -> int:
        """How often the circle was completed."""

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """As the journal stores it."""


def ending_of(result: RunResult) -> str:
    """How a result's chat ended; the journal counts results of the same ending together."""
    return f"{result.reason}/{result.rounds_or_attempts}"


def split_ending(ending: str) -> tuple[str, int]:
    """Reason and number of rounds or attempts of an ending."""
    reason, _, number = ending.rpartition("/")
    return reason, int(number)


def cast_provenance(
    cast: BaseCast, policy_set: PolicySet, recipe_hash: str, prompts: PromptTexts
) -> dict[str, Any]:
    """The fields of a provenance that are the same in all results of a cast."""
    return {
        "aidsafe": version("aidsafe"),
        "autogen": version("autogen-agentchat"),
        "python": platform.python_version(),
        "policy_set": f"{policy_set.id}@{policy_set.version}",
        "policy_set_hash": policy_set.hash,
        "policies": {policy.id: policy.hash for policy in policy_set.policies},
        "recipe": cast.recipe_name,
        "recipe_hash": recipe_hash,
        "prompts": prompts.name,
        "prompts_hash": prompts.hash,
        "personas": {name: persona.hash for name, persona in cast.personas.items()},
        "models": {model.name: model.config.public() for model in cast.models_in_use},
    }


def chat_provenance(calls: Sequence[Call], started: datetime) -> dict[str, Any]:
    """The fields of a provenance that differ from chat to chat."""
    json_as: dict[str, list[str]] = {}
    for call in calls:
        if call.json_as is not None and call.json_as not in json_as.setdefault(call.model, []):
            json_as[call.model].append(call.json_as)
    return {
        "json_as": json_as,
        "started_at": started.isoformat(timespec="milliseconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def outcome_of(
    turns: Sequence[Turn], stop_reason: str | None, interruption: Interruption | None
) -> tuple[Outcome, str | None]:
    """How a chat ended: its outcome, and the problem if that is not `completed`."""
    if interruption is not None:
        return interruption
    if turns and turns[-1].outcome != "completed":
        return turns[-1].outcome, f"{turns[-1].agent}: {turns[-1].problem}"
    if stop_reason is None:
        return "failed", "The chat did not end."
    return "completed", None


def main_reason(reason: str | None, known: Sequence[str]) -> str | None:
    """The first known reason where several conditions fired in the same turn, else as it is."""
    parts = (reason or "").split(", ")
    return next((one for one in known if one in parts), reason)
