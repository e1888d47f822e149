"""The preference pair: a record's answer, a worse one, and how that was made."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, Field
from rich.text import Text

from agents.models.usage import Usage
from agents.pairs.replies import PairTurns
from agents.pairs.state import OVER_REFUSAL, CandidateAnswer, Exemplar, PairKind, Score
from orchestration.chat.html import Section, Shown, transcript
from orchestration.chat.view import clean, plain
from orchestration.runs.result import Outcome, Provenance

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
"""Why a pair is not fit to train on; the first that applies is the reason."""

SET_ASIDE: tuple[SetAside, ...] = get_args(SetAside)
OFF_LIMITS = "off_limits"
KEPT = "kept"
"""The `reason` of a pair that is fit to train on."""

Label: TypeAlias = Literal["safe", "unsafe", "over_refusal"]
"""`unsafe` was written on purpose to violate the policies, `over_refusal` to refuse what is
harmless."""
_UNSAFE = "Unsafe on purpose"
_ON_PURPOSE: dict[Label, str] = {
    "safe": "",
    "unsafe": _UNSAFE,
    "over_refusal": "Refuses on purpose",
}


class Side(CandidateAnswer):
    """One side of a pair, with its scores."""

    label: Label
    scores: list[Score]
    """For every policy; empty if it was not scored."""
    score: float | None
    """The highest of the scores that count for this kind of pair."""
    words: int
    """Words of thoughts and response."""


class AuditFinding(BaseModel, extra="forbid"):
    """Something that speaks against training on a pair."""

    reason: SetAside
    detail: str
    """One sentence, which quotes no text of the pair."""


class Scorer(BaseModel, extra="forbid"):
    """The scorer of both sides."""

    persona: str
    kind: Literal["violation_judge", "violation_classifier"]
    """A judge writes ratings; a classifier's scores are probabilities of its next token."""
    models: list[str]
    """Names of the models that scored, as in `provenance.models`."""
    served_models: list[str] = []
    """The models that their endpoints reported."""


class PairProvenance(Provenance):
    """What a pair was made of and with; the policies include `over_refusal`."""

    seeds: str
    """Hash of the first exemplars."""
    record: Provenance
    """Provenance of the record."""


class PreferencePair(Shown, BaseModel, extra="forbid"):
    """A prompt, an answer to be preferred and one to be rejected.

    The rejected side was made to be bad, is labelled so, and must not be used as good data.
    """

    schema_version: Literal[1] = 1
    kind: PairKind
    id: str
    """Id of the prompt, and of its record."""
    prompt: str
    """The prompt alone, without the belief."""
    metadata: dict[str, Any] = {}
    outcome: Outcome
    """How the chat ended; only a `completed` one can be kept."""
    problem: str | None = None
    stop_reason: str | None
    """`violation`, `attempt_budget`, `chosen_violates` or `off_limits`; or the outcome, if not
    `completed`."""
    set_aside: SetAside | None = None
    """Why it is not fit to train on, the first of `findings`; None if there are none."""
    findings: list[AuditFinding] = []
    """All findings of the audit."""
    target: str
    """Policy that the rejected side was to violate; empty if the record is off limits."""
    violated: str | None
    """Policy that the rejected side violates most, of those that count."""
    chosen: Side
    rejected: Side | None
    """The best attempt; None if there was none."""
    belief: str | None
    """What the generator was made to believe; provenance, and no part of the training data."""
    scorer: Scorer
    margin: float | None
    """Score of the rejected side less that of the chosen one."""
    attempts: int
    """Rounds of the chat."""
    first_score: float | None = None
    """Score of the first attempt."""
    generation: int = Field(ge=0)
    """How often the target's exemplars had been updated when the chat began."""
    exemplars: list[Exemplar] = []
    """What the ear-whisperer was shown."""
    rejected_by: Literal["belief", "temperature"]
    """What makes the rejected side worse: a belief, or only sampling again."""
    turns: PairTurns
    """The transcript, which contains unsafe text."""
    usage: Usage
    latency: float
    """Seconds of all model calls."""
    provenance: PairProvenance

    @property
    def reason(self) -> str:
        """`kept`, or why it was set aside."""
        return self.set_aside or KEPT

    @property
    def rounds_or_attempts(self) -> int:
        """See `RunResult`."""
        return self.attempts

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for name in ("id", "outcome", "reason", "target", "margin"):
            yield name, getattr(self, name)

    @property
    def is_kept(self) -> bool:
        """Whether it is fit to train on."""
        return self.outcome == "completed" and self.set_aside is None

    @property
    def kept_text(self) -> str | None:
        """The text of the rejected side; None if the pair is not kept."""
        return self.rejected.text if self.rejected is not None and self.is_kept else None

    def sections(self, show_unsafe: bool = False) -> Iterator[Section]:
        """See `Shown`.

        Args:
            show_unsafe: Whether a problem is shown, which may quote unsafe text.
        """
        yield Section(plain(self.prompt, style="italic"))
        if self.outcome == "completed":
            yield Section(plain(f"{self.reason}, stopped by {self.stop_reason}", style="bold"))
        else:
            agent = self.turns[-1].agent if self.turns else "the first turn"
            problem = self.problem or "" if show_unsafe else agent
            yield Section(plain(f"{self.outcome}: {problem}", style="bold red"))
        for finding in self.findings:
            yield Section(plain(f"{finding.reason}: {finding.detail}", style="yellow"))
        if self.belief is not None:
            yield Section(plain("belief (false)", "red"), plain(self.belief), unsafe=_UNSAFE)
        yield self._side_section("chosen", self.chosen)
        if self.rejected is not None:
            yield self._side_section("rejected", self.rejected)
        yield transcript(self.turns, _UNSAFE)

    def _side_section(self, name: str, side: Side) -> Section:
        score = "not scored" if side.score is None else f"score {side.score:.2f}"
        style = "bold green" if name == "chosen" else "bold red"
        head = plain(f"{name} ({side.label}, {score}, {side.words} words)", style=style)
        body = [
            plain(f"{number}. {t.text} [{', '.join([*t.policies, *t.rules])}]")
            for number, t in enumerate(side.thoughts, 1)
        ]
        body.append(plain(f"Response: {side.response}"))
        for each in side.scores:
            if each.score:
                rule = f", {each.rule}: {each.rule_text}" if each.rule else ""
                counts = (each.policy == OVER_REFUSAL) == (self.kind == "over_refusal")
                note = "" if counts else " (does not count for this kind of pair)"
                line = f"\n  {each.policy} {each.score:.2f}{rule}{note}"
                head.append(clean(line), style="not bold dim")
                if each.quote:
                    body.append(plain(f"    {each.policy}: “{each.quote}”", style="dim"))
        return Section(head, Text("\n").join(body), unsafe=_ON_PURPOSE[side.label])
