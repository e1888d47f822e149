"""From the transcript of a pair chat to a preference pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from agents.pairs.replies import ScorerReply
from agents.pairs.state import (
    CandidateAnswer,
    PairBrief,
    PairState,
    scores_of,
    violation_of,
)
from agents.turns import Turn, TurnMessage, state_after
from agents.words import words_of
from orchestration.deliberation.record import CoTRecord
from orchestration.pairs.audit import audit
from orchestration.pairs.pair import OFF_LIMITS, AuditFinding, Label, PreferencePair, Scorer, Side
from orchestration.pairs.recipe import PairCast
from orchestration.pairs.termination import PAIR_STOP_REASONS
from orchestration.prompts.reader import Prompt
from orchestration.runs.result import ChatEnd, common_fields

_FORBIDDEN = 0.3
"""Score from which an attempt touches what is off limits; lower than any other bound, since missing
one is worse than losing a pair."""


def pair_of(
    cast: PairCast,
    record: CoTRecord,
    brief: PairBrief,
    end: ChatEnd,
    find_repeated: Callable[[CandidateAnswer], str | None] = lambda _: None,
) -> PreferencePair:
    """The pair of one chat, audited.

    Args:
        cast: Who took part.
        record: What it is made of.
        brief: What the chat was given.
        end: The chat.
        find_repeated: Gives the id of an earlier kept pair that a rejected side nearly repeats, if
            there is one; called for a pair that nothing else speaks against.
    """
    if not brief.target:
        end = replace(end, stop_reason=OFF_LIMITS)
    about = Prompt(record.id, record.prompt, record.metadata)
    turns = [m.content for m in end.messages if isinstance(m, TurnMessage)]
    fields = common_fields(cast, about, turns, end, PAIR_STOP_REASONS)
    fields["provenance"] |= {"seeds": cast.seeds.hash, "record": record.provenance}
    state = state_after(PairState(brief), turns)

    def side(answer: CandidateAnswer, label: Label, scored: ScorerReply | None) -> Side:
        return Side(
            thoughts=answer.thoughts,
            response=answer.response,
            label=label,
            scores=scores_of(scored, cast.policy_set) if scored else [],
            score=violation_of(scored, brief.counted),
            words=len(words_of(answer.text)),
        )

    chosen = side(brief.chosen, "safe", state.chosen)
    best, rejected = state.best, None
    if best is not None and best.answer is not None:
        label: Label = "unsafe" if brief.kind == "violation" else "over_refusal"
        rejected = side(best.answer, label, best.scored)
    pair = PreferencePair(
        **fields,
        kind=brief.kind,
        target=brief.target,
        violated=_violated_by(rejected, brief),
        chosen=chosen,
        rejected=rejected,
        belief=best.belief if best is not None else None,
        scorer=_scorer(cast, turns),
        margin=_margin(chosen, rejected),
        attempts=len(state.attempts),
        first_score=state.attempts[0].score if state.attempts else None,
        generation=brief.generation,
        exemplars=brief.exemplars,
        rejected_by="temperature" if cast.baseline else "belief",
    )
    if pair.outcome == "completed":
        # Every attempt counts, since the transcript is published with the pair.
        scored = [attempt.scored for attempt in state.attempts if attempt.scored is not None]
        pair.findings = _findings(cast, pair, brief, scored, find_repeated)
        pair.set_aside = pair.findings[0].reason if pair.findings else None
    return pair


def _findings(
    cast: PairCast,
    pair: PreferencePair,
    brief: PairBrief,
    scored: Sequence[ScorerReply],
    find_repeated: Callable[[CandidateAnswer], str | None],
) -> list[AuditFinding]:
    """What speaks against training on a completed pair."""
    touches = any(_is_off_limits(cast, reply) for reply in scored)
    if touches or not brief.target:
        cites = "An attempt violates" if touches else "The record cites"
        detail = f"{cites} a policy or rule that is off limits."
        return [AuditFinding(reason=OFF_LIMITS, detail=detail)]
    findings = audit(pair, brief.benign, cast.recipe.audit)
    if findings or pair.rejected is None:
        return findings  # only what would be kept can repeat what is kept
    repeated = find_repeated(pair.rejected)
    return [] if repeated is None else audit(pair, brief.benign, cast.recipe.audit, repeated)


def _is_off_limits(cast: PairCast, scored: ScorerReply) -> bool:
    """Whether an attempt violates what is off limits, by its scores."""
    recipe = cast.recipe
    return recipe.off_limits_by_score and any(
        each.score >= _FORBIDDEN and not {each.policy, each.rule}.isdisjoint(recipe.off_limits)
        for each in scores_of(scored, cast.policy_set)
    )


def _scorer(cast: PairCast, turns: Sequence[Turn]) -> Scorer:
    persona = cast.personas[cast.recipe.scorer]
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
