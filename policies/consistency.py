"""What must hold across a policy set: ids used once, overlaps that name policies and agree.

The functions work on raw data (mappings and lists) and pass over whatever has the wrong shape, so
that one reading of a file reports these problems together with those of its structure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from policies.problems import Finding, Loc, quote, suggest


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
    policy_ids: defaultdict[str, list[Loc]] = defaultdict(list)
    rule_ids: defaultdict[str, list[Loc]] = defaultdict(list)
    for index, policy in policies:
        if policy_id := _text(policy, "id"):
            policy_ids[policy_id].append(("policies", index, "id"))
        for number, rule in _items(policy, "rules"):
            if rule_id := _text(rule, "id"):
                rule_ids[rule_id].append(("policies", index, "rules", number, "id"))
    yield from _find_duplicates("policy", policy_ids)
    yield from _find_duplicates("rule", rule_ids)
    for index, policy in policies:
        for loc, cause, remedy in find_policy_conflicts(policy):
            yield ("policies", index, *loc), cause, remedy
        for number, overlap in _items(policy, "overlaps"):
            other = _text(overlap, "policy")
            if other and other not in policy_ids:
                yield (
                    ("policies", index, "overlaps", number, "policy"),
                    f"There is no policy {quote(other)} in this set.",
                    suggest(other, policy_ids),
                )
    yield from _find_contradictions(policies)


def _find_duplicates(kind: str, places: Mapping[str, list[Loc]]) -> Iterator[Finding]:
    """Reports every place of a repeated id, since any of them may be the mistaken one."""
    for name, locs in places.items():
        if len(locs) > 1:
            for loc in locs:
                yield (
                    loc,
                    f"The {kind} id {quote(name)} is used {len(locs)} times in this set.",
                    "Keep it in one place and give the others ids of their own.",
                )


def _find_contradictions(policies: list[tuple[int, Mapping[str, Any]]]) -> Iterator[Finding]:
    stated: defaultdict[frozenset[str], list[tuple[Loc, str]]] = defaultdict(list)
    for index, policy in policies:
        own = _text(policy, "id")
        for number, overlap in _items(policy, "overlaps"):
            other, prevails = _text(overlap, "policy"), _text(overlap, "prevails")
            if own and other and prevails in (own, other):
                loc: Loc = ("policies", index, "overlaps", number, "prevails")
                stated[frozenset((own, other))].append((loc, prevails))
    for pair, statements in stated.items():
        if len({prevails for _, prevails in statements}) > 1:
            first, second = (quote(policy_id) for policy_id in sorted(pair))
            for place, prevails in statements:
                yield (
                    place,
                    f"The overlap of {first} and {second} is decided both ways in this set; here "
                    f"{quote(prevails)} prevails.",
                    "Let the same policy prevail wherever this overlap stands.",
                )


def _items(raw: Any, key: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    items = raw.get(key) if isinstance(raw, Mapping) else None
    if isinstance(items, list | tuple):
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield index, item


def _text(raw: Any, key: str) -> str:
    value = raw.get(key) if isinstance(raw, Mapping) else None
    return value.strip() if isinstance(value, str) else ""
