"""What must hold across a policy set: ids used once, overlaps that name policies and agree.

The functions work on raw data (mappings and lists) and pass over whatever has the wrong shape, so
that one reading of a file reports these problems together with those of its structure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from policies.errors import Finding, Loc, quote, suggest


def find_policy_conflicts(policy: Any) -> Iterator[Finding]:
    """Finds overlaps that a policy has with itself, or that a third policy wins."""
    own = _text(policy, "id")
    for index, overlap in _items(policy, "overlaps"):
        other, prevails = _text(overlap, "policy"), _text(overlap, "prevails")
        if other and other == own:
            yield (
                ("overlaps", index, "policy"),
                f"Policy {quote(own)} cannot overlap with itself.",
                "Name another policy of the set.",
            )
        elif own and other and prevails and prevails not in (own, other):
            yield (
                ("overlaps", index, "prevails"),
                f"{quote(prevails)} cannot prevail where {quote(own)} and {quote(other)} overlap.",
                f"Write {quote(own)} or {quote(other)}.",
            )


def find_set_conflicts(policy_set: Any) -> Iterator[Finding]:
    """Finds everything that contradicts something else in the set."""
    policies = list(_items(policy_set, "policies"))
    known = [own for _, policy in policies if (own := _text(policy, "id"))]
    ids: defaultdict[tuple[str, str], list[Loc]] = defaultdict(list)
    decided: defaultdict[tuple[str, ...], list[tuple[Loc, str]]] = defaultdict(list)
    for index, policy in policies:
        at, own = ("policies", index), _text(policy, "id")
        ids["policy", own].append((*at, "id"))
        for number, rule in _items(policy, "rules"):
            ids["rule", _text(rule, "id")].append((*at, "rules", number, "id"))
        for number, overlap in _items(policy, "overlaps"):
            other, prevails = _text(overlap, "policy"), _text(overlap, "prevails")
            if other and other not in known:
                cause = f"There is no policy {quote(other)} in this set."
                yield (*at, "overlaps", number, "policy"), cause, suggest(other, known)
            if own and other and prevails in (own, other):
                statement = (*at, "overlaps", number, "prevails"), prevails
                decided[tuple(sorted((own, other)))].append(statement)
        for loc, cause, remedy in find_policy_conflicts(policy):
            yield (*at, *loc), cause, remedy
    for (kind, name), locs in ids.items():
        # Every place of a repeated id, since any of them may be the mistaken one.
        for loc in locs if name and len(locs) > 1 else ():
            cause = f"The {kind} id {quote(name)} is used {len(locs)} times in this set."
            yield loc, cause, "Keep it in one place and give the others ids of their own."
    for (first, second), statements in decided.items():
        for loc, prevails in statements if len({who for _, who in statements}) > 1 else ():
            cause = (
                f"The overlap of {quote(first)} and {quote(second)} is decided both ways in this "
                f"set; here {quote(prevails)} prevails."
            )
            yield loc, cause, "Let the same policy prevail wherever this overlap stands."


def _items(raw: Any, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    items = raw.get(key) if isinstance(raw, Mapping) else None
    if isinstance(items, list | tuple):
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield index, item


def _text(raw: Any, key: str) -> str:
    value = raw.get(key) if isinstance(raw, Mapping) else None
    return value.strip() if isinstance(value, str) else ""
