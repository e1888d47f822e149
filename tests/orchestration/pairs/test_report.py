"""The report on pairs: every figure, calculated by hand."""

from __future__ import annotations

from typing import Any

from agents.pairs.state import CandidateAnswer, Step
from orchestration.pairs.pair import AuditFinding, PreferencePair, Side
from orchestration.pairs.report import report, spread
from tests.orchestration.pairs.chats import CHOSEN


def side(label: Any, score: float | None, words: int) -> Side:
    answer = CandidateAnswer(
        thoughts=[Step(text="It is so.", policies=["illegal_activity"], rules=[])], response="Yes."
    )
    return Side(**answer.model_dump(), label=label, scores=[], score=score, words=words)


def pair(**given: Any) -> PreferencePair:
    """As much of a pair as the report reads."""
    chosen, rejected = given.pop("scores", (0.0, 0.9))
    reason = given.get("set_aside")
    made = {
        "kind": "violation",
        "outcome": "completed",
        "stop_reason": "violation",
        "target": "illegal_activity",
        "chosen": side("safe", chosen, given.pop("chosen_words", 40)),
        "rejected": side("unsafe", rejected, given.pop("rejected_words", 50)),
        "margin": round(rejected - chosen, 4),
        "attempts": 1,
        "first_score": rejected,
        "generation": 0,
        "rejected_by": "belief",
        "findings": [AuditFinding(reason=reason, detail="So it is.")] if reason else [],
        "set_aside": None,
        "response": CHOSEN.response,
    }
    return PreferencePair.model_construct(**(made | given))


PAIRS = [
    pair(scores=(0.0, 0.9), chosen_words=40, rejected_words=50),
    pair(scores=(0.1, 0.7), chosen_words=60, rejected_words=80, attempts=3, first_score=0.2),
    pair(
        kind="over_refusal",
        target="over_refusal",
        scores=(0.0, 0.8),
        chosen_words=50,
        rejected_words=20,
        generation=5,
    ),
    pair(set_aside="length", scores=(0.2, 1.0), chosen_words=9, rejected_words=900, generation=2),
    pair(
        set_aside="no_violation",
        findings=[
            AuditFinding(reason="no_violation", detail="None."),
            AuditFinding(reason="low_margin", detail="Little."),
        ],
        stop_reason="attempt_budget",
        scores=(0.0, 0.1),
        attempts=4,
        first_score=0.0,
        generation=2,
    ),
    pair(
        set_aside="off_limits",
        stop_reason="off_limits",
        target="",
        rejected=None,
        margin=None,
        attempts=0,
        first_score=None,
    ),
    pair(outcome="failed", stop_reason="failed"),
]


def test_counts_of_pairs_and_findings() -> None:
    found = report(PAIRS)
    assert (found.pairs, found.kept, found.contrast) == (6, 3, 1)
    assert found.set_aside == {"off_limits": 1, "no_violation": 1, "length": 1}
    assert found.findings == {"off_limits": 1, "no_violation": 1, "low_margin": 1, "length": 1}


def test_scores_of_all_pairs_and_lengths_of_the_kept() -> None:
    found = report(PAIRS)
    assert found.chosen_score is not None
    assert found.rejected_score is not None
    assert found.margin is not None
    assert (found.chosen_score.pairs, found.chosen_score.mean) == (5, 0.06)
    assert (found.rejected_score.median, found.rejected_score.mean) == (0.8, 0.7)
    assert (found.margin.low, found.margin.median, found.margin.high) == (0.1, 0.8, 0.9)
    assert found.chosen_words is not None
    assert found.rejected_words is not None
    assert (found.chosen_words.pairs, found.chosen_words.mean) == (3, 50.0)
    assert (found.rejected_words.low, found.rejected_words.high) == (20.0, 80.0)


def test_margins_by_target() -> None:
    rows = {
        each.policy: (each.pairs, each.kept, each.scored, each.margin and each.margin.mean)
        for each in report(PAIRS).by_policy
    }
    assert rows == {
        "(off limits)": (1, 0, 0, None),
        "illegal_activity": (4, 2, 4, 0.6),  # 0.9, 0.6, 0.8 and 0.1
        "over_refusal": (1, 1, 1, 0.8),
    }


def test_whether_beliefs_got_better() -> None:
    rows = [
        (g.policy, g.since, g.until, g.chats, g.succeeded, g.first_score, g.attempts)
        for g in report(PAIRS).generations
    ]
    assert rows == [
        ("illegal_activity", 0, 0, 2, 2, 0.55, 2.0),  # first scores 0.9 and 0.2; 1 and 3 attempts
        ("illegal_activity", 1, 3, 2, 1, 0.5, 1.0),  # 1.0 and 0.0; the second gave up
        ("over_refusal", 4, 15, 1, 1, 0.8, 1.0),
    ]


def test_a_baseline_has_no_generations() -> None:
    assert report([pair(rejected_by="temperature")]).generations == []


def test_a_spread_by_hand() -> None:
    found = spread([4.0, 1.0, 2.0, 3.0, 5.0])
    assert found is not None
    figures = (found.mean, found.low, found.quarter, found.median, found.three_quarters, found.high)
    assert figures == (3.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert spread([]) is None
