"""Exemplar pools: what the ear-whisperer learns from, and how a belief that worked enters them.

The four strategies are those of FLIRT (arXiv:2308.04265), the in-context feedback loop that the
whisperer's is built on. The seeds that a pool begins with are YAML that anyone can edit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from rapidfuzz import fuzz

from agents.pairing import Exemplar
from agents.persona import Line
from orchestration.recipe import Name
from policies import InputError, load_yaml
from policies.types import PolicyId, Text

SHIPPED = Path(__file__).parent / "seeds"

Strategy: TypeAlias = Literal["scoring", "fifo", "lifo", "scoring_diverse"]
"""Which exemplar of a full pool makes room for a new one; `updated` has the rules."""

# Objectives that are equal on paper differ in their last bits, by the order of the additions. The
# tolerance keeps those bits from deciding who stays; it is far below any difference that means
# something.
_TOLERANCE = 1e-9


def updated(
    pool: Sequence[Exemplar], new: Exemplar, strategy: Strategy, size: int, diversity: float = 0.5
) -> tuple[Exemplar, ...]:
    """The pool after a belief has worked.

    A belief that stands in the pool already (the same text but for case and white space) is never
    added a second time, whatever the strategy. The pool stays as it is, except that the exemplar
    takes over the new score and `led_to`, in its place, if the new score is higher.

    While the pool has fewer than `size` exemplars, the new one is appended, whatever the strategy.
    Once it is full:

    - `fifo`: the first, which is the oldest, leaves; the new one is appended.
    - `lifo`: the last, which is the newest, leaves; the new one takes its place at the end. So the
      seeds stay, but for the last.
    - `scoring`: the new one takes the place of the lowest-scored exemplar, the first of equals, if
      it scores at least as high; else the pool stays as it is.
    - `scoring_diverse`: the new one is tried in every place, and takes the one where the objective
      is highest, the first of equals, if that is at least the objective of the pool as it is; else
      the pool stays as it is. The objective is mean(score) + diversity * (1 - mean similarity). The
      similarity is the mean over all pairs of rapidfuzz's `token_sort_ratio` / 100, between beliefs
      without regard to case; 0 for a pool of one. Objectives within 1e-9 count as equal.

    Args:
        pool: The exemplars so far, at most `size`; the caller cuts longer seeds before.
        new: The exemplar that may enter.
        strategy: Which exemplar makes room.
        size: How many exemplars the pool holds when it is full.
        diversity: Weight of the beliefs' difference against their scores; `scoring_diverse` alone
            uses it.

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
    tried = [_placed(pool, new, place) for place in range(size)]
    objectives = [_objective(each, diversity) for each in tried]
    least = max(*objectives, _objective(pool, diversity)) - _TOLERANCE
    return next(
        (each for each, value in zip(tried, objectives, strict=True) if value >= least),
        tuple(pool),
    )


def _placed(pool: Sequence[Exemplar], new: Exemplar, place: int) -> tuple[Exemplar, ...]:
    return (*pool[:place], new, *pool[place + 1 :])


def _plain(belief: str) -> str:
    return " ".join(belief.casefold().split())


def _objective(pool: Sequence[Exemplar], diversity: float) -> float:
    beliefs = [_plain(exemplar.belief) for exemplar in pool]
    alike = [fuzz.token_sort_ratio(one, other) / 100 for one, other in combinations(beliefs, 2)]
    similarity = sum(alike) / len(alike) if alike else 0.0
    return sum(exemplar.score for exemplar in pool) / len(pool) + diversity * (1 - similarity)


class Seed(BaseModel):
    """An exemplar that a pool begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    belief: Text
    """A false belief, in one or two plain sentences that fit many prompts."""
    led_to: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400)]
    """What it led to, described and not quoted."""
    score: float = Field(ge=0, le=1, strict=True)
    """How far that violated the policy. An estimate: nobody has measured it."""


Seeded = Annotated[tuple[Seed, ...], Field(min_length=1)]


class Seeds(BaseModel):
    """The seeds of one file: what the exemplar pools of a run begin with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Name of the seeds."""
    description: Line
    """One line: what they are for."""
    any: Seeded
    """For policies that have none of their own."""
    policies: Mapping[PolicyId, Seeded] = {}
    """By policy id, the most useful first: a small pool takes those alone."""

    @cached_property
    def hash(self) -> str:
        """Fingerprint of the seeds' content, as records cite it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def of(self, policy: str, size: int) -> tuple[Exemplar, ...]:
        """The pool that a policy begins with.

        Args:
            policy: Its id, which the exemplars bear even if their seeds are those of `any`.
            size: How many exemplars at most; the first are taken.
        """
        return tuple(
            Exemplar(policy=policy, belief=seed.belief, led_to=seed.led_to, score=seed.score)
            for seed in self.policies.get(policy, self.any)[:size]
        )


def seed_files() -> dict[str, Path]:
    """The shipped seeds by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_seeds(name_or_path: str) -> Seeds:
    """Reads seeds.

    Args:
        name_or_path: Name of shipped seeds, or path of a YAML file.

    Raises:
        InputError: There are no such seeds.
        YamlError: With every problem of the file.
    """
    files = seed_files()
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not is_path and name_or_path not in files:
        raise InputError(
            f"There are no seeds '{name_or_path}'.",
            f"Use one of {', '.join(files)}, or the path of a seeds YAML.",
        )
    return load_yaml(Path(name_or_path) if is_path else files[name_or_path], Seeds)
