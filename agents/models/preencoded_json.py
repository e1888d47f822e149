"""Parts of requests that are the same in very many calls."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any


class PreencodedJson(dict[str, Any]):
    """An unchanging part of requests, encoded once.

    A schema is up to 20 kB of JSON and is part of every call.
    """

    @cached_property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(self)

    @cached_property
    def without_lengths(self) -> PreencodedJson:
        """Without bounds on string lengths, at any depth."""
        return PreencodedJson(_without_lengths(dict(self)))


def _without_lengths(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_lengths(value)
            for key, value in node.items()
            # A property may have this name, but its value is a schema; a length is a number.
            if not (key in ("minLength", "maxLength") and isinstance(value, int))
        }
    return [_without_lengths(item) for item in node] if isinstance(node, list) else node
