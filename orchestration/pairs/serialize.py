"""From the transcript of a pair chat to a preference pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from agents.pairing import (
    Answer,
    Exemplar,
    PairBrief,
    Scored,
    Step,
    scores_of,
    take_pairing,
    violation_of,
)
from agents.turns import Turn, TurnMessage, Usage
from agents.words import words_of
from orchestration.pairs.audit import audit
from orchestration.pairs.pair import (
    Finding,
    Label,
    PairProvenance,
    PreferencePair,
    Scorer,
    Side,
)
from orchestration.pairs.recipe import PairCast
from orchestration.pairs.termination import PAIR_STOP_REASONS
from orchestration.record import CoTRecord
from orchestration.runs.job import BrokeOff
from orchestration.serialize import ended, main_reason, of_chat, origin
from orchestration.thread import Message

OFF_LIMITS = "off_limits"
_FORBIDDEN = 0.3
"""Score from which on a rejected side is not kept, where a policy or rule is off limits; lower than
any other bound, since here a miss is worse than a pair too few."""
_LED_TO = 200  # characters of a response, as an exemplar has it


class Task(NamedTuple):
    """What a pair is to be made of."""

    record: CoTRecord
    brief: PairBrief
    generation: int
    """How often the target's exemplars had been updated when the chat began."""


class PairSerializer:
    """Makes the pairs of one cast.

    Args:
        cast: Who makes them.
        repeats: Gives the id of an earlier kept pair that a rejected side nearly repeats, if there
            is one.
    """

    def __init__(self, cast: PairCast, repeats: Callable[[Answer], str | None]) -> None:
        self._cast = cast
        self._repeats = repeats

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return origin(self._cast, self._cast.policy_set, self._cast.recipe)

    def pair(
        self,
        task: Task,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        broke_off: BrokeOff | None,
    ) -> PreferencePair:
        """The pair of one chat, audited.

        Args:
            task: What the chat was about.
            messages: All that was said.
            stop_reason: As the chat's `TaskResult` has it; None if it did not come to its end.
            started: When the chat began, in UTC.
            broke_off: The outcome and its reason, if something broke the chat off.
        """
        record, brief, generation = task
        turns = [m.content for m in messages if isinstance(m, TurnMessage)]
        if not brief.target:
            stop_reason = OFF_LIMITS
        outcome, problem = ended(turns, stop_reason, broke_off)
        completed = outcome == "completed"
        reason = main_reason(stop_reason, PAIR_STOP_REASONS) if completed else outcome
        state = take_pairing(brief, turns)
        chosen = self._side(brief.chosen, "safe", state.chosen, brief)
        best = state.best
        rejected: Side | None = None
        if best is not None and best.answer is not None:
            label: Label = "unsafe" if brief.kind == "violation" else "over_refusal"
            rejected = self._side(best.answer, label, best.scored, brief)
        margin = None
        if rejected is not None and rejected.score is not None and chosen.score is not None:
            margin = round(rejected.score - chosen.score, 4)
        belief = best.belief if best is not None else None
        findings: list[Finding] = []
        if completed:
            # The transcript goes with the pair: whichever attempt it was.
            touches = any(self._is_off_limits(attempt.scored) for attempt in state.attempts)
            findings = self._audit(record, brief, chosen, rejected, reason, margin, belief, touches)
        calls = [call for turn in turns for call in (*turn.discarded, turn)]
        first = state.attempts[0].score if state.attempts else None
        return PreferencePair(
            kind=brief.kind,
            id=record.id,
            prompt=record.prompt,
            metadata=record.metadata,
            outcome=outcome,
            problem=problem,
            stop_reason=reason,
            set_aside=findings[0].reason if findings else None,
            findings=findings,
            target=brief.target,
            violated=violated_by(rejected, brief) if rejected is not None else None,
            chosen=chosen,
            rejected=rejected,
            belief=belief,
            scorer=self._scorer(turns),
            margin=margin,
            attempts=len(state.attempts),
            first_score=first,
            generation=generation,
            exemplars=brief.exemplars,
            rejected_by="temperature" if self._cast.baseline else "belief",
            turns=turns,
            usage=sum((call.usage for call in calls), Usage()),
            latency=round(sum(call.latency for call in calls), 4),
            provenance=PairProvenance(
                **self._fixed,
                **of_chat(calls, started),
                seeds=self._cast.seeds.hash,
                record=record.provenance,
            ),
        )

    def _audit(
        self,
        record: CoTRecord,
        brief: PairBrief,
        chosen: Side,
        rejected: Side | None,
        reason: str | None,
        margin: float | None,
        belief: str | None,
        touches: bool,
    ) -> list[Finding]:
        """What there is against the pair."""
        if reason == OFF_LIMITS:
            detail = "The record cites a policy or rule that no bad answer is made about."
            return [Finding(reason="off_limits", detail=detail)]
        if touches:
            detail = "An attempt violates a policy or rule that no bad answer is made about."
            return [Finding(reason="off_limits", detail=detail)]
        bounds = self._cast.recipe.audit

        def look(duplicate_of: str | None) -> list[Finding]:
            return audit(
                kind=brief.kind,
                benign=brief.benign,
                prompt=record.prompt,
                belief=belief,
                chosen=chosen,
                rejected=rejected,
                stop_reason=reason,
                margin=margin,
                bounds=bounds,
                duplicate_of=duplicate_of,
            )

        findings = look(None)
        if findings or rejected is None or bounds.duplicates is None:
            return findings  # only what would be kept can repeat what is kept
        repeated = self._repeats(rejected)
        return look(repeated) if repeated is not None else []

    def _is_off_limits(self, scored: Scored | None) -> bool:
        """Whether an attempt's scores say that it violates what is off limits."""
        recipe = self._cast.recipe
        if scored is None or not recipe.off_limits_by_score:
            return False
        return any(
            each.score >= _FORBIDDEN
            and (each.policy in recipe.off_limits or each.rule in recipe.off_limits)
            for each in scores_of(scored, self._cast.policy_set)
        )

    def _side(self, answer: Answer, label: Label, scored: Scored | None, brief: PairBrief) -> Side:
        return Side(
            thoughts=answer.thoughts,
            response=answer.response,
            label=label,
            scores=scores_of(scored, self._cast.policy_set) if scored else [],
            score=violation_of(scored, brief.counted),
            words=len(words_of(answer.text)),
        )

    def _scorer(self, turns: Sequence[Turn]) -> Scorer:
        persona = self._cast.personas[self._cast.recipe.scorer]
        scored = [turn for turn in turns if turn.role == persona.role]
        assert persona.role in ("violation_judge", "violation_classifier")  # noqa: S101 - its place
        return Scorer(
            persona=persona.name,
            kind=persona.role,
            models=list(dict.fromkeys(turn.model for turn in scored)),
            served_models=list(
                dict.fromkeys(turn.served_model for turn in scored if turn.served_model)
            ),
        )


def chosen_answer(record: CoTRecord) -> Answer:
    """A record's thoughts and response."""
    thoughts = [
        Step(text=t.text, policies=list(t.policies), rules=list(t.rules)) for t in record.thoughts
    ]
    return Answer(thoughts=thoughts, response=record.response or "")


def violated_by(side: Side, brief: PairBrief) -> str | None:
    """The policy of those that count that a side violates most; the target, of equals."""
    counted = [score for score in side.scores if score.policy in brief.counted and score.score]
    most = max(counted, key=lambda s: (s.score, s.policy == brief.target), default=None)
    return most.policy if most is not None else None


def lesson_of(pair: PreferencePair) -> Exemplar | None:
    """What the whisperer learns from a pair: its belief, if that led to a violation.

    It is learnt for the target, whichever policy the answer then violated most: the whisperer is
    shown what worked where it was asked for the same.
    """
    if pair.stop_reason != "violation" or pair.set_aside == "off_limits":
        return None
    if not pair.belief or not pair.rejected:
        return None
    if pair.chosen.thoughts and not pair.rejected.thoughts:
        return None  # prose in place of an answer: no pair can come of it
    response = " ".join(pair.rejected.response.split())
    return Exemplar(
        policy=pair.target,
        belief=pair.belief,
        led_to=response[:_LED_TO],
        score=pair.rejected.score or 0.0,
    )
