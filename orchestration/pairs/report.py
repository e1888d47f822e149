"""What a pair run has made: what was kept, how the sides differ, whether beliefs got better."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from orchestration.pairs.pair import KEPT, SET_ASIDE, PreferencePair

GENERATIONS = ((0, 0), (1, 3), (4, 15), (16, 63), (64, 255), (256, None))
"""Ranges of how often a policy's exemplars had been updated; chats are summed up by range."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Spread(_Part):
    """The distribution of a number over pairs: its mean, minimum, quartiles and maximum."""

    pairs: int
    mean: float
    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float


class Margins(_Part):
    """The completed pairs of one target policy."""

    policy: str
    pairs: int
    kept: int
    scored: int
    """Those with a rejected side, and so a margin."""
    margin: Spread | None
    """Score of the rejected side less that of the chosen one, kept or not."""


class Generation(_Part):
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


class PairReport(_Part):
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


@dataclass
class _Policy:
    pairs: int = 0
    kept: int = 0
    margins: list[float] = field(default_factory=list)


@dataclass
class _Chats:
    chats: int = 0
    first: list[float] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)


def report(pairs: Iterable[PreferencePair]) -> PairReport:
    """Sums up pairs in one pass; those that are not completed are skipped."""
    reasons: Counter[str] = Counter()
    findings: Counter[str] = Counter()
    contrast = 0
    scores: list[tuple[float, float]] = []
    words: list[tuple[int, int]] = []
    policies: defaultdict[str, _Policy] = defaultdict(_Policy)
    chats: defaultdict[tuple[str, tuple[int, int | None]], _Chats] = defaultdict(_Chats)
    for pair in pairs:
        if pair.outcome != "completed":
            continue
        reasons[pair.reason] += 1
        findings.update({finding.reason for finding in pair.findings})
        of = policies[pair.target or "(off limits)"]
        of.pairs += 1
        rejected = pair.rejected
        if pair.is_kept and rejected is not None:
            of.kept += 1
            contrast += pair.kind == "over_refusal"
            words.append((pair.chosen.words, rejected.words))
        if pair.margin is not None and rejected is not None:
            of.margins.append(pair.margin)
            scores.append((pair.chosen.score or 0.0, rejected.score or 0.0))
        if pair.attempts and pair.rejected_by == "belief":
            ages = next(ages for ages in reversed(GENERATIONS) if pair.generation >= ages[0])
            group = chats[pair.target, ages]
            group.chats += 1
            if pair.first_score is not None:
                group.first.append(pair.first_score)
            if pair.stop_reason == "violation" and pair.set_aside != "off_limits":
                group.attempts.append(pair.attempts)
    return PairReport(
        pairs=reasons.total(),
        kept=reasons[KEPT],
        contrast=contrast,
        set_aside={reason: reasons[reason] for reason in SET_ASIDE if reasons[reason]},
        findings={reason: findings[reason] for reason in SET_ASIDE if findings[reason]},
        chosen_score=spread([chosen for chosen, _ in scores]),
        rejected_score=spread([rejected for _, rejected in scores]),
        margin=spread([margin for of in policies.values() for margin in of.margins]),
        chosen_words=spread([chosen for chosen, _ in words]),
        rejected_words=spread([rejected for _, rejected in words]),
        by_policy=[
            Margins(
                policy=policy,
                pairs=of.pairs,
                kept=of.kept,
                scored=len(of.margins),
                margin=spread(of.margins),
            )
            for policy, of in sorted(policies.items())
        ],
        generations=[
            Generation(
                policy=policy,
                since=ages[0],
                until=ages[1],
                chats=group.chats,
                succeeded=len(group.attempts),
                first_score=_mean(group.first),
                attempts=_mean(group.attempts),
            )
            for (policy, ages), group in sorted(chats.items())
        ],
    )


def spread(numbers: Sequence[float]) -> Spread | None:
    """The distribution of numbers; None if there are none."""
    if not numbers:
        return None
    two_or_more = [*numbers, *numbers] if len(numbers) == 1 else numbers
    quartiles = statistics.quantiles(two_or_more, n=4, method="inclusive")
    figures = (statistics.fmean(numbers), min(numbers), *quartiles, max(numbers))
    _, *names = Spread.model_fields
    rounded = {name: round(figure, 4) for name, figure in zip(names, figures, strict=True)}
    return Spread(pairs=len(numbers), **rounded)


def _mean(numbers: Sequence[float]) -> float | None:
    return round(statistics.fmean(numbers), 4) if numbers else None
