"""Parts of requests that are the same in very many calls."""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from typing import Any

from agents.models.dialects import dialects


class PreencodedJson(dict[str, Any]):
    """An unchanging part of requests, encoded once.

    A schema is up to 20 kB of JSON and is part of every call.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]
    """By identity: it does not change."""

    @cached_property
    def text(self) -> str:
        """As JSON."""
        return json.dumps(self)

    @cached_property
    def keywords(self) -> frozenset[str]:
        """The keywords of its schema that some endpoints do not take."""
        found: set[str] = set()
        _strip(dict(self), frozenset(), found)
        return frozenset(found)

    def without(self, keywords: frozenset[str]) -> PreencodedJson:
        """Without some keywords of schemas, at any depth."""
        return _without(self, keywords)


@lru_cache(maxsize=64)
def _without(form: PreencodedJson, keywords: frozenset[str]) -> PreencodedJson:
    return PreencodedJson(_strip(dict(form), keywords, set()))


def _strip(node: Any, keywords: frozenset[str], found: set[str]) -> Any:
    """A copy of a schema without keywords; notes those that it has."""
    if isinstance(node, list):
        return [_strip(item, keywords, found) for item in node]
    if not isinstance(node, dict):
        return node
    found |= dialects().keywords & node.keys()
    return {
        # The names of properties and definitions are no keywords, whatever they are.
        key: {name: _strip(each, keywords, found) for name, each in value.items()}
        if key in ("properties", "$defs") and isinstance(value, dict)
        else _strip(value, keywords, found)
        for key, value in node.items()
        if key not in keywords
    }
