"""Pairs as preference data: in TRL's conversational format, or whole."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from agents.pairs.state import OVER_REFUSAL
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import draw
from orchestration.runs.export import ExportOptions, Wrapping, message


def export_pairs(
    read: Callable[[], Iterable[PreferencePair]], form: str, options: ExportOptions
) -> Iterator[str]:
    """One JSON object a line, for every kept pair. See `Kind.lines`.

    `pairs` is the whole pair; `dpo` is `prompt`, `chosen` and `rejected` as lists of messages, as
    TRL's DPOTrainer takes them, with a label of what the rejected side is.
    """
    share = options.contrast_share
    bound = None if share is None else _contrast_bound(read(), share)
    for pair in read():
        if pair.is_kept and (bound is None or _draw(pair) < bound):
            whole = form == "pairs"
            line = pair.model_dump(mode="json") if whole else _as_dpo(pair, options.wrapping)
            yield json.dumps(line, ensure_ascii=False)


def _as_dpo(pair: PreferencePair, wrapping: Wrapping) -> dict[str, Any]:
    """A kept pair as messages. Trainers ignore the last two fields, which are for people."""
    assert pair.rejected is not None  # noqa: S101 - a kept pair has one
    sides = {
        name: [message("assistant", wrapping.message_of(side.thoughts, side.response))]
        for name, side in (("chosen", pair.chosen), ("rejected", pair.rejected))
    }
    more = {"id": pair.id, "rejected_label": pair.rejected.label}
    return {"prompt": [message("user", pair.prompt)], **sides, **more}


def _contrast_bound(pairs: Iterable[PreferencePair], share: float) -> float:
    """The draw below which contrast pairs stay, so that they are at most a share of all."""
    draws = array("d", (_draw(pair) for pair in pairs if pair.is_kept))
    contrast = sorted(filter(None, draws))
    others = len(draws) - len(contrast)
    room = len(contrast) if share >= 1 else int(others * share / (1 - share) + 1e-9)
    return contrast[room] if room < len(contrast) else 2.0


def _draw(pair: PreferencePair) -> float:
    """Decides which contrast pairs stay: from their ids, the same in every run; 0 for others."""
    return draw(pair.id, b"thin") if pair.kind == OVER_REFUSAL else 0.0
