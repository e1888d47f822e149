"""The preference pair: a record's answer and its worse twin, with how that came about."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field

from agents.pairing import Answer, Exemplar, PairKind, Score
from agents.turns import Turn, Usage
from orchestration.record import Outcome, Provenance

SetAside: TypeAlias = Literal[
    "off_limits",
    "chosen_violates",
    "no_violation",
    "broken",
    "refusal",
    "leak",
    "equal_sides",
    "low_margin",
    "length",
    "duplicate",
]
"""Why a pair is not fit to train on; in the order in which the reasons count."""

SET_ASIDE: tuple[SetAside, ...] = get_args(SetAside)

KEPT = "kept"
"""What becomes of a pair that is fit to train on."""

Label: TypeAlias = Literal["safe", "unsafe", "over_refusal"]
"""What a side is: `unsafe` was written on purpose to violate the policies, `over_refusal` to refuse
what is harmless."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Side(Answer):
    """One side of a pair, with its scores."""

    label: Label
    scores: list[Score]
    """For every policy; empty where no scorer got to see it."""
    score: float | None
    """The highest of the scores that count for this kind of pair."""
    words: int
    """Length of thoughts and response together."""


class Finding(_Part):
    """Something that the audit has against a pair."""

    reason: SetAside
    detail: str
    """In a sentence. Quotes no text of the pair."""


class Scorer(_Part):
    """Who scored both sides."""

    persona: str
    kind: Literal["violation_judge", "violation_classifier"]
    """A judge writes ratings; a classifier's are the probabilities of its next token."""
    models: list[str]
    """Names of the models that scored, as `provenance.models` has them."""
    served_models: list[str] = []
    """What their endpoints say that they served."""


class PairProvenance(Provenance):
    """What a pair was made of and with; the policies are those of the record and `over_refusal`."""

    seeds: str
    """Hash of the first exemplars."""
    record: Provenance
    """That of the record whose answer is the chosen side."""


class PreferencePair(BaseModel):
    """A prompt, an answer to be preferred and one to be rejected.

    The rejected side was made to be bad. It is labelled so, and must not be taken for good data.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    kind: PairKind
    id: str
    """Id of the prompt, and of its record."""
    prompt: str
    """The prompt alone, clean of the belief."""
    metadata: dict[str, Any] = {}
    outcome: Outcome
    """How the chat ended; only a `completed` one can be kept."""
    problem: str | None = None
    stop_reason: str | None
    """`violation`, `attempt_budget`, `chosen_violates` or `off_limits`; or the outcome, if not
    `completed`."""
    set_aside: SetAside | None = None
    """Why it is not to be trained on, the first of `findings`; None if nothing is against it."""
    findings: list[Finding] = []
    """All that the audit has against it."""
    target: str
    """Policy that the belief was to lead to a violation of; empty if it is off limits."""
    violated: str | None
    """Policy that the rejected side violates most, of those that count."""
    chosen: Side
    rejected: Side | None
    """The best attempt; None if there was none."""
    belief: str | None
    """What the generator was made to believe. Provenance alone: it is no part of the data."""
    scorer: Scorer
    margin: float | None
    """Score of the rejected side less that of the chosen one."""
    attempts: int
    """Ways around the circle."""
    first_score: float | None = None
    """Score of the first attempt."""
    generation: int = Field(ge=0)
    """How often the target's exemplars had been updated when the chat began."""
    exemplars: list[Exemplar] = []
    """What the ear-whisperer was shown."""
    rejected_by: Literal["belief", "temperature"]
    """What makes the rejected side worse: a belief, or nothing but sampling again."""
    turns: list[Turn]
    """The transcript. Holds unsafe text."""
    usage: Usage
    latency: float
    """Seconds that the model calls took together."""
    provenance: PairProvenance

    @property
    def reason(self) -> str:
        """What becomes of it: `kept`, or the reason that it was set aside for."""
        return self.set_aside or KEPT

    @property
    def ways(self) -> int:
        """Ways around the circle."""
        return self.attempts

    @property
    def made_of(self) -> Provenance:
        """What it was made of and with."""
        return self.provenance

    @property
    def is_kept(self) -> bool:
        """Whether it is fit to train on."""
        return self.outcome == "completed" and self.set_aside is None
