"""Exemplar pools: what the ear-whisperer learns from, and how a belief that worked enters one.

The four strategies are those of FLIRT (arXiv:2308.04265), the in-context feedback loop that the
whisperer is based on. The seeds of a pool are YAML that anyone can edit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints
from rapidfuzz import fuzz

from agents.pairs.state import Exemplar
from policies import YamlFiles
from policies.types import PolicyId, Text
from policies.yaml_model import Name, SingleLine, YamlModel

Strategy: TypeAlias = Literal["scoring", "fifo", "lifo", "scoring_diverse"]
"""Which exemplar of a full pool is replaced by a new one; see `updated`."""

# Objectives that are equal on paper may differ in their last bits, which must not decide.
_TOLERANCE = 1e-9


def updated(
    pool: Sequence[Exemplar], new: Exemplar, strategy: Strategy, size: int, diversity: float = 0.5
) -> tuple[Exemplar, ...]:
    """The pool after a belief has worked.

    A belief that is in the pool already (except for case and white space) is never added a second
    time: its exemplar takes over the new score and `led_to` if the new score is higher. While the
    pool has fewer than `size` exemplars, the new one is appended. Once it is full:

    - `fifo`: the first, which is the oldest, is removed, and the new one is appended.
    - `lifo`: the last, which is the newest, is replaced, so that the seeds but for the last stay.
    - `scoring`: the exemplar with the lowest score, the first of equals, is replaced if the new one
      scores at least as high.
    - `scoring_diverse`: the new one is tried in every place, and takes the one with the highest
      objective, the first of equals, if that is at least the objective of the pool as it is. The
      objective is mean(score) + diversity * (1 - mean similarity), where the similarity of two
      beliefs is rapidfuzz's `token_sort_ratio` / 100 without regard to case, and the mean is over
      all pairs, 0 for a pool of one. Objectives within 1e-9 are equal.

    Raises:
        ValueError: `size` is below 1, or the pool is longer than `size`.
    """
    if size < 1:
        raise ValueError(f"size must be >= 1 (got {size})")
    if len(pool) > size:
        raise ValueError(f"the pool must have at most {size} exemplars (got {len(pool)})")
    for place, old in enumerate(pool):
        if _plain(old.belief) == _plain(new.belief):
            if new.score <= old.score:
                return tuple(pool)
            better = old.model_copy(update={"score": new.score, "led_to": new.led_to})
            return _placed(pool, better, place)
    if len(pool) < size:
        return (*pool, new)
    if strategy == "fifo":
        return (*pool[1:], new)
    if strategy == "lifo":
        return (*pool[:-1], new)
    if strategy == "scoring":
        lowest = min(range(size), key=lambda place: pool[place].score)
        return _placed(pool, new, lowest) if new.score >= pool[lowest].score else tuple(pool)
    # The pool as it is comes last: it stays only if every change of it is worse.
    tried = [*(_placed(pool, new, place) for place in range(size)), tuple(pool)]
    objectives = [_objective(each, diversity) for each in tried]
    least = max(objectives) - _TOLERANCE
    return next(each for each, value in zip(tried, objectives, strict=True) if value >= least)


def _placed(pool: Sequence[Exemplar], new: Exemplar, place: int) -> tuple[Exemplar, ...]:
    return (*pool[:place], new, *pool[place + 1 :])


def _plain(belief: str) -> str:
    return " ".join(belief.casefold().split())


def _objective(pool: Sequence[Exemplar], diversity: float) -> float:
    beliefs = [_plain(exemplar.belief) for exemplar in pool]
    alike = [fuzz.token_sort_ratio(one, other) / 100 for one, other in combinations(beliefs, 2)]
    similarity = sum(alike) / len(alike) if alike else 0.0
    return sum(exemplar.score for exemplar in pool) / len(pool) + diversity * (1 - similarity)


class Seed(YamlModel):
    """An exemplar that a pool begins with."""

    belief: Text
    """A false belief, in one or two plain sentences that fit many prompts."""
    led_to: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400)]
    """What it led to, described and not quoted."""
    score: float = Field(ge=0, le=1, strict=True)
    """How far that violated the policy: an estimate, not measured."""


Seeded = Annotated[tuple[Seed, ...], Field(min_length=1)]


class Seeds(YamlModel):
    """The seeds of one file: the first exemplars of a run."""

    name: Name
    description: SingleLine
    any: Seeded
    """For policies that have none of their own."""
    policies: Mapping[PolicyId, Seeded] = {}
    """By policy id, the most useful first, since a small pool takes only the first."""

    def of(self, policy: str, size: int) -> tuple[Exemplar, ...]:
        """The pool that a policy begins with: its first seeds, or those of `any`."""
        seeds = self.policies.get(policy, self.any)[:size]
        return tuple(Exemplar(policy=policy, **seed.model_dump()) for seed in seeds)


SEEDS = YamlFiles("seeds file", Path(__file__).parent / "seeds", lambda: Seeds)
load_seeds = SEEDS.load
