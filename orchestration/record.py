"""The CoT record: one prompt's deliberation, whole enough to be read again turn by turn."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict

from agents.deliberation import RemovedThought, Thought
from agents.replies import Intent
from agents.turns import Turn, Usage

Outcome: TypeAlias = Literal[
    "completed", "refused", "malformed", "truncated", "failed", "over_budget"
]
"""How a prompt of a run ended. Only `completed` yields a record for training."""

OUTCOMES: tuple[Outcome, ...] = (
    "completed",
    "refused",
    "malformed",
    "truncated",
    "failed",
    "over_budget",
)


class Provenance(BaseModel):
    """What a record was made of and with."""

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
    personas: dict[str, str]
    """Hash of each persona, by its name."""
    models: dict[str, dict[str, Any]]
    """Configuration of each model that could be asked, sampling and seed included, by its name."""
    json_as: dict[str, list[str]] = {}
    """How each model was asked for JSON: `json_schema`, or what its endpoint knows instead
    (`json_object`, `text`). Models whose client does not say are left out."""
    started_at: str
    """UTC, ISO 8601: when the session's part of the chat began; replies may be older."""
    finished_at: str
    """UTC, ISO 8601."""


class Kept(Protocol):
    """What a journal keeps for a prompt, whatever else it holds."""

    id: str
    prompt: str
    metadata: dict[str, Any]
    outcome: Outcome
    problem: str | None
    turns: list[Turn]

    @property
    def made_of(self) -> Provenance:
        """What it was made of and with."""

    @property
    def reason(self) -> str | None:
        """What completed ones are counted by: why the chat stopped, or what became of a pair."""

    @property
    def ways(self) -> int:
        """Rounds of a deliberation, attempts at a pair."""

    def model_dump_json(self) -> str:
        """As the journal keeps it."""


class CoTRecord(BaseModel):
    """A prompt, the chain of thought that was deliberated for it, and how that came about."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    id: str
    """Id of the prompt, stable across runs."""
    prompt: str
    metadata: dict[str, Any] = {}
    """Whatever else the source said of the prompt."""
    outcome: Outcome
    problem: str | None = None
    """Why the outcome is not `completed`; None if it is."""
    stop_reason: str | None
    """Why the circle ended: `consensus`, `round_budget`, `token_budget`, or what another
    termination condition says; for other outcomes than `completed` the outcome itself."""
    rounds: int
    """Rounds in which somebody spoke."""
    intents: list[Intent]
    thoughts: list[Thought]
    """The final chain, in its order."""
    removed_thoughts: list[RemovedThought]
    """Thoughts that were corrected, rewritten or dropped on the way, in that order."""
    response: str | None
    """The final response; None only where the outcome is not `completed`."""
    response_by: str | None
    """Agent that wrote it."""
    ignored_references: int
    """How often an agent referred to a thought that does not exist (any more)."""
    turns: list[Turn]
    """The transcript."""
    usage: Usage
    """Tokens of all turns, discarded replies included."""
    latency: float
    """Seconds that the model calls of the used replies and the discarded ones took together."""
    provenance: Provenance

    @property
    def reason(self) -> str | None:
        """See `Kept`."""
        return self.stop_reason

    @property
    def ways(self) -> int:
        """See `Kept`."""
        return self.rounds

    @property
    def made_of(self) -> Provenance:
        """See `Kept`."""
        return self.provenance
