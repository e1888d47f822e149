"""Renders policies into the prompt text that every agent reasons over.

The text is the prefix of every model call: it is compact, and equal to the byte for equal
policies, so that an endpoint's prefix cache can serve it. Versions, description and source are told
to people only, so changing one of them changes no prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

from policies.types import Policy, PolicySet


def render_policy_set(policy_set: PolicySet) -> str:
    """Renders all policies of a set, in file order, with a blank line between them."""
    return "\n".join(render_policy(policy) for policy in policy_set.policies)


def render_policy(policy: Policy) -> str:
    """Renders one policy, its ids exactly as models must cite them."""
    return "\n".join(_lines(policy)) + "\n"


def _lines(policy: Policy) -> Iterator[str]:
    yield f"## {policy.id}: {policy.title}"
    yield policy.definition
    yield "Rules:"
    for rule in policy.rules:
        yield f"- {rule.id}: {rule.text}"
    if policy.allowed:
        yield "Stays allowed:"
        for item in policy.allowed:
            yield f"- {item}"
    yield "How to respond:"
    yield f"- Help: {policy.respond.help}"
    yield f"- Help safely: {policy.respond.help_safely}"
    yield f"- Decline: {policy.respond.decline}"
    if policy.overlaps:
        yield "Overlaps:"
        yield from _overlap_lines(policy)


def _overlap_lines(policy: Policy) -> Iterator[str]:
    """One line for all overlaps that are decided alike and have the same note."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for overlap in policy.overlaps:
        verb = "Prevails over" if overlap.prevails == policy.id else "Yields to"
        grouped.setdefault((verb, overlap.note), []).append(overlap.policy)
    for (verb, note), others in grouped.items():
        yield f"- {verb} {', '.join(others)}{': ' if note else ''}{note}"
