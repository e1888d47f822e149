"""Pairs as preference data in TRL's conversational format, and how many contrast pairs stay."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Any

from agents.pairs.state import OVER_REFUSAL
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import draw
from orchestration.runs.export import Wrapping, message


def as_dpo(pair: PreferencePair, wrapping: Wrapping) -> dict[str, Any]:
    """A kept pair as lists of messages, as TRL's DPOTrainer takes them.

    Trainers ignore the last two fields, which are for people.
    """
    assert pair.rejected is not None  # noqa: S101 - a kept pair has one
    sides = {
        name: [message("assistant", wrapping.message_of(side.thoughts, side.response))]
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    more = {"id": pair.id, "rejected_label": pair.rejected.label}
    return {"prompt": [message("user", pair.prompt)], **sides, **more}


def thinned(pairs: Iterable[PreferencePair], share: float) -> Iterator[PreferencePair]:
    """Pairs with at most so many contrast pairs among the kept ones.

    Args:
        pairs: The pairs; iterated over twice.
        share: Maximum share of the kept pairs, 0 to 1.
    """
    draws = array("d", (_draw(pair) for pair in pairs if pair.is_kept))
    contrast = sorted(filter(None, draws))
    others = len(draws) - len(contrast)
    room = len(contrast) if share >= 1 else int(others * share / (1 - share) + 1e-9)
    bound = contrast[room] if room < len(contrast) else 2.0
    return (pair for pair in pairs if _draw(pair) < bound)


def _draw(pair: PreferencePair) -> float:
    """Decides which contrast pairs stay: from their ids, the same in every run; 0 for others."""
    return draw(pair.id, b"thin") if pair.kind == OVER_REFUSAL else 0.0
