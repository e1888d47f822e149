"""Pairs as preference data: in TRL's conversational format, or whole."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias

from orchestration.export import Wrapping, message
from orchestration.pairs.pair import PreferencePair

PairFormat: TypeAlias = Literal["pairs", "dpo"]


def export_pairs(
    pairs: Iterable[PreferencePair], form: PairFormat, wrapping: Wrapping
) -> Iterator[str]:
    """One JSON object a line, for every pair that was kept.

    Args:
        pairs: Any pairs; those that were set aside are left out.
        form: `pairs` is the whole pair; `dpo` is `prompt`, `chosen` and `rejected` as lists of
            messages, as TRL's DPOTrainer takes them, with a label of what the rejected side is.
        wrapping: How thoughts are put before the response, on both sides alike.

    Yields:
        Lines without their line break.
    """
    for pair in pairs:
        if pair.is_kept:
            line = pair.model_dump(mode="json") if form == "pairs" else as_dpo(pair, wrapping)
            yield json.dumps(line, ensure_ascii=False)


def as_dpo(pair: PreferencePair, wrapping: Wrapping) -> dict[str, Any]:
    """A kept pair as messages. Trainers pass over the last two fields; people should not."""
    assert pair.rejected is not None  # noqa: S101 - a kept pair has one
    sides = {
        name: [message("assistant", wrapping.say(side.thoughts, side.response))]
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    return {
        "prompt": [message("user", pair.prompt)],
        **sides,
        "id": pair.id,
        "rejected_label": pair.rejected.label,
    }


class Thinned:
    """Thins contrast pairs out to a share of all; which stay follows from their ids.

    Args:
        pairs: The kept pairs' kinds and ids, in a first pass.
        share: The share of contrast pairs that is not to be exceeded, 0 to 1.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], share: float) -> None:
        draws = array("d")
        others = 0
        for kind, prompt_id in pairs:
            if kind == "over_refusal":
                draws.append(_draw(prompt_id))
            else:
                others += 1
        room = len(draws) if share >= 1 else int(others * share / (1 - share) + 1e-9)
        ranked = sorted(draws)
        self._bound = ranked[room] if room < len(ranked) else 2.0

    def holds(self, pair: PreferencePair) -> bool:
        """Whether a pair stays."""
        return pair.kind != "over_refusal" or _draw(pair.id) < self._bound


def _draw(prompt_id: str) -> float:
    digest = hashlib.blake2b(prompt_id.encode("utf-8", "replace"), digest_size=8, person=b"thin")
    return int.from_bytes(digest.digest(), "big") / 2**64
