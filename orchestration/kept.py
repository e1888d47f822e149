"""What a journal keeps for a prompt, read back without knowing which it is."""

from __future__ import annotations

import json

from orchestration.pairs.pair import PreferencePair
from orchestration.record import CoTRecord


def read_kept(text: str) -> CoTRecord | PreferencePair:
    """A record or a pair from its JSON.

    Raises:
        ValueError: It is neither (pydantic's ValidationError is one).
    """
    data = json.loads(text)
    if isinstance(data, dict) and "rejected_by" in data:
        return PreferencePair.model_validate(data)
    return CoTRecord.model_validate(data)
