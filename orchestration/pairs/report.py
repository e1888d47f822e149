"""What a pair run has made: what was kept, how the sides differ, whether beliefs got better."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from pydantic import BaseModel

from orchestration.pairs.pair import KEPT, SET_ASIDE, PreferencePair

GENERATIONS = ((0, 0), (1, 3), (4, 15), (16, 63), (64, 255), (256, None))
"""Ranges of how often a policy's exemplars had been updated; chats are summed up by range."""


class Spread(BaseModel, extra="forbid"):
    """The distribution of a number over pairs: its mean, minimum, quartiles and maximum."""

    pairs: int
    mean: float
    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float


class Margins(BaseModel, extra="forbid"):
    """The completed pairs of one target policy."""

    policy: str
    pairs: int
    kept: int
    scored: int
    """Those with a rejected side, and so a margin."""
    margin: Spread | None
    """Score of the rejected side less that of the chosen one, kept or not."""


class Generation(BaseModel, extra="forbid"):
    """The chats of one policy that began with exemplars of about the same age."""

    policy: str
    since: int
    """Minimum number of updates of the policy's exemplars before the chat began."""
    until: int | None
    """Maximum number of them; None for no limit."""
    chats: int
    succeeded: int
    """Chats in which an attempt reached the threshold."""
    first_score: float | None
    """Mean score of the first attempts."""
    attempts: float | None
    """Mean number of attempts of the chats that succeeded."""


class PairReport(BaseModel, extra="forbid"):
    """Figures of a pair run's completed pairs."""

    pairs: int
    kept: int
    contrast: int
    """Kept pairs whose rejected side is an over-refusal."""
    set_aside: dict[str, int]
    """By the reason that counted first; with `kept` they add up to `pairs`."""
    findings: dict[str, int]
    """Pairs by finding, whether or not it counted first."""
    chosen_score: Spread | None
    """Of all pairs with both sides scored, as the next two."""
    rejected_score: Spread | None
    margin: Spread | None
    chosen_words: Spread | None
    """Length of the kept pairs' chosen sides."""
    rejected_words: Spread | None
    """Length of the kept pairs' rejected sides."""
    by_policy: list[Margins]
    generations: list[Generation]
    """Whether beliefs got better; empty for a baseline, which has no beliefs."""


class _Chat(NamedTuple):
    first_score: float | None
    attempts: int | None
    """None if none of them succeeded."""


def report(pairs: Iterable[PreferencePair]) -> PairReport:
    """Sums up pairs in one pass; those that are not completed are skipped."""
    reasons: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    contrast = 0
    scores: list[tuple[float, float]] = []
    words: list[tuple[int, int]] = []
    margins: defaultdict[str, list[float | None]] = defaultdict(list)
    chats: defaultdict[tuple[str, tuple[int, int | None]], list[_Chat]] = defaultdict(list)
    for pair in pairs:
        if pair.outcome != "completed":
            continue
        reasons[pair.reason] += 1
        findings.update({finding.reason for finding in pair.findings})
        target, rejected = pair.target or "(off limits)", pair.rejected
        margins[target].append(pair.margin)
        if pair.is_kept and rejected is not None:
            kept[target] += 1
            contrast += pair.kind == "over_refusal"
            words.append((pair.chosen.words, rejected.words))
        if pair.margin is not None and rejected is not None:
            scores.append((pair.chosen.score or 0.0, rejected.score or 0.0))
        if pair.attempts and pair.rejected_by == "belief":
            ages = next(ages for ages in reversed(GENERATIONS) if pair.generation >= ages[0])
            succeeded = pair.stop_reason == "violation" and pair.set_aside != "off_limits"
            chat = _Chat(pair.first_score, pair.attempts if succeeded else None)
            chats[target, ages].append(chat)
    return PairReport(
        pairs=reasons.total(),
        kept=reasons[KEPT],
        contrast=contrast,
        set_aside={reason: reasons[reason] for reason in SET_ASIDE if reasons[reason]},
        findings={reason: findings[reason] for reason in SET_ASIDE if findings[reason]},
        chosen_score=spread(chosen for chosen, _ in scores),
        rejected_score=spread(rejected for _, rejected in scores),
        margin=spread(margin for of in margins.values() for margin in of),
        chosen_words=spread(chosen for chosen, _ in words),
        rejected_words=spread(rejected for _, rejected in words),
        by_policy=[
            Margins(
                policy=policy,
                pairs=len(of),
                kept=kept[policy],
                scored=sum(margin is not None for margin in of),
                margin=spread(of),
            )
            for policy, of in sorted(margins.items())
        ],
        generations=[
            Generation(
                policy=policy,
                since=ages[0],
                until=ages[1],
                chats=len(of),
                succeeded=sum(chat.attempts is not None for chat in of),
                first_score=_mean(chat.first_score for chat in of),
                attempts=_mean(chat.attempts for chat in of),
            )
            for (policy, ages), of in sorted(chats.items())
        ],
    )


def spread(numbers: Iterable[float | None]) -> Spread | None:
    """The distribution of numbers; None if there are none."""
    found = [number for number in numbers if number is not None]
    if not found:
        return None
    two_or_more = [*found, *found] if len(found) == 1 else found
    quartiles = statistics.quantiles(two_or_more, n=4, method="inclusive")
    figures = (statistics.fmean(found), min(found), *quartiles, max(found))
    _, *names = Spread.model_fields
    rounded = {name: round(figure, 4) for name, figure in zip(names, figures, strict=True)}
    return Spread(pairs=len(found), **rounded)


def _mean(numbers: Iterable[float | None]) -> float | None:
    found = [number for number in numbers if number is not None]
    return round(statistics.fmean(found), 4) if found else None
