"""From the transcript of a pair chat to a preference pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from agents.chat_state import state_after
from agents.models.usage import Usage
from agents.pairs.replies import ScorerReply
from agents.pairs.state import (
    CandidateAnswer,
    Exemplar,
    PairBrief,
    PairState,
    Score,
    scores_of,
    violation_of,
)
from agents.turns import Turn, TurnMessage
from agents.words import words_of
from orchestration.chat.thread import Message
from orchestration.deliberation.record import CoTRecord
from orchestration.pairs.audit import audit
from orchestration.pairs.pair import (
    AuditFinding,
    Label,
    PairProvenance,
    PreferencePair,
    Scorer,
    Side,
)
from orchestration.pairs.recipe import PairCast
from orchestration.pairs.termination import PAIR_STOP_REASONS
from orchestration.runs.result import (
    Interruption,
    cast_provenance,
    chat_provenance,
    main_reason,
    outcome_of,
)

OFF_LIMITS = "off_limits"
_FORBIDDEN = 0.3
"""Score from which an attempt touches what is off limits; lower than any other bound, since missing
one is worse than losing a pair."""
_LED_TO = 200  # characters of a response that an exemplar quotes

FindRepeated = Callable[[CandidateAnswer], str | None]
"""Returns the id of an earlier kept pair that a rejected side nearly repeats, if there is one."""


class PairSerializer:
    """Makes the pairs of one cast."""

    def __init__(self, cast: PairCast) -> None:
        self._cast = cast

    @cached_property
    def _cast_provenance(self) -> dict[str, Any]:
        cast = self._cast
        return cast_provenance(cast, cast.policy_set, cast.recipe.hash, cast.prompts)

    def pair(
        self,
        record: CoTRecord,
        brief: PairBrief,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        interruption: Interruption | None = None,
        find_repeated: FindRepeated = lambda _: None,
    ) -> PreferencePair:
        """The pair of one chat, audited.

        Args:
            record: What it is made of.
            brief: What the chat was given.
            messages: All messages; for these and the next three see `ChatTask.result`.
            find_repeated: Called for a pair that nothing else speaks against.
        """
        if not brief.target:
            stop_reason = OFF_LIMITS
        turns = [m.content for m in messages if isinstance(m, TurnMessage)]
        outcome, problem = outcome_of(turns, stop_reason, interruption)
        completed = outcome == "completed"
        state = state_after(PairState(brief), turns)
        chosen = self._side(brief.chosen, "safe", state.chosen, brief)
        best, rejected = state.best, None
        if best is not None and best.answer is not None:
            label: Label = "unsafe" if brief.kind == "violation" else "over_refusal"
            rejected = self._side(best.answer, label, best.scored, brief)
        calls = [call for turn in turns for call in (*turn.discarded, turn)]
        pair = PreferencePair(
            kind=brief.kind,
            id=record.id,
            prompt=record.prompt,
            metadata=record.metadata,
            outcome=outcome,
            problem=problem,
            stop_reason=main_reason(stop_reason, PAIR_STOP_REASONS) if completed else outcome,
            target=brief.target,
            violated=_violated_by(rejected, brief),
            chosen=chosen,
            rejected=rejected,
            belief=best.belief if best is not None else None,
            scorer=self._scorer(turns),
            margin=_margin(chosen, rejected),
            attempts=len(state.attempts),
            first_score=state.attempts[0].score if state.attempts else None,
            generation=brief.generation,
            exemplars=brief.exemplars,
            rejected_by="temperature" if self._cast.baseline else "belief",
            turns=turns,
            usage=sum((call.usage for call in calls), Usage()),
            latency=round(sum(call.latency for call in calls), 4),
            provenance=PairProvenance(
                **self._cast_provenance,
                **chat_provenance(calls, started),
                seeds=self._cast.seeds.hash,
                record=record.provenance,
            ),
        )
        if completed:
            # Every attempt counts, since the transcript is published with the pair.
            touches = any(self._is_off_limits(attempt.scored) for attempt in state.attempts)
            if touches or stop_reason == OFF_LIMITS:
                cites = "An attempt violates" if touches else "The record cites"
                detail = f"{cites} a policy or rule that is off limits."
                pair.findings = [AuditFinding(reason=OFF_LIMITS, detail=detail)]
            else:
                pair.findings = self._audit(pair, brief, find_repeated)
            pair.set_aside = pair.findings[0].reason if pair.findings else None
        return pair

    def _audit(
        self, pair: PreferencePair, brief: PairBrief, find_repeated: FindRepeated
    ) -> list[AuditFinding]:
        bounds = self._cast.recipe.audit
        findings = audit(pair, brief.benign, bounds)
        if findings or pair.rejected is None or bounds.duplicates is None:
            return findings  # only what would be kept can repeat what is kept
        repeated = find_repeated(pair.rejected)
        return [] if repeated is None else audit(pair, brief.benign, bounds, repeated)

    def _is_off_limits(self, scored: ScorerReply | None) -> bool:
        """Whether an attempt violates what is off limits, by its scores."""
        recipe = self._cast.recipe
        return recipe.off_limits_by_score and any(
            each.score >= _FORBIDDEN and not {each.policy, each.rule}.isdisjoint(recipe.off_limits)
            for each in self._scores(scored)
        )

    def _scores(self, scored: ScorerReply | None) -> list[Score]:
        return scores_of(scored, self._cast.policy_set) if scored else []

    def _side(
        self, answer: CandidateAnswer, label: Label, scored: ScorerReply | None, brief: PairBrief
    ) -> Side:
        return Side(
            thoughts=answer.thoughts,
            response=answer.response,
            label=label,
            scores=self._scores(scored),
            score=violation_of(scored, brief.counted),
            words=len(words_of(answer.text)),
        )

    def _scorer(self, turns: Sequence[Turn]) -> Scorer:
        persona = self._cast.personas[self._cast.recipe.scorer]
        scored = [turn for turn in turns if turn.role == persona.role]
        assert persona.role in ("violation_judge", "violation_classifier")  # noqa: S101 - its part
        served = [turn.served_model for turn in scored if turn.served_model]
        return Scorer(
            persona=persona.name,
            kind=persona.role,
            models=list(dict.fromkeys(turn.model for turn in scored)),
            served_models=list(dict.fromkeys(served)),
        )


def _margin(chosen: Side, rejected: Side | None) -> float | None:
    if rejected is None or rejected.score is None or chosen.score is None:
        return None
    return round(rejected.score - chosen.score, 4)


def _violated_by(side: Side | None, brief: PairBrief) -> str | None:
    """The policy that counts and that a side violates most; of equals, the target."""
    scores = side.scores if side is not None else []
    counted = [score for score in scores if score.policy in brief.counted and score.score]
    most = max(counted, key=lambda s: (s.score, s.policy == brief.target), default=None)
    return most.policy if most is not None else None


def lesson_of(pair: PreferencePair) -> Exemplar | None:
    """What the ear-whisperer learns from a pair: its belief, if it led to a violation.

    It is learnt for the target, even if the answer violates another policy more: exemplars show
    what worked when the same was asked for.
    """
    rejected = pair.rejected
    if pair.stop_reason != "violation" or pair.set_aside == OFF_LIMITS:
        return None
    if not pair.belief or not rejected:
        return None
    if pair.chosen.thoughts and not rejected.thoughts:
        return None  # prose instead of an answer, which no pair can be made of
    led_to, score = " ".join(rejected.response.split())[:_LED_TO], rejected.score or 0.0
    return Exemplar(policy=pair.target, belief=pair.belief, led_to=led_to, score=score)
