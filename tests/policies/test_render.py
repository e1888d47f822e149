"""The text that models see."""

from __future__ import annotations

import hashlib

import pytest

from policies import (
    Policy,
    PolicySet,
    load_policy_set,
    render_policy,
    render_policy_set,
    shipped_policy_sets,
)
from tests.policies.samples import POLICY, small_set


def test_a_policy_is_rendered_in_full() -> None:
    assert render_policy(Policy.model_validate(POLICY)) == (
        "## fraud: Fraud\n"
        "Deceiving people.\n"
        "Rules:\n"
        "- FD1: Do not write scams.\n"
        "- FD2: Do not forge.\n"
        "Stays allowed:\n"
        "- How scams work.\n"
        "How to respond:\n"
        "- Help: When safe.\n"
        "- Help safely: In part.\n"
        "- Decline: When harmful.\n"
        "Overlaps:\n"
        "- Yields to harm: on injury\n"
    )


def test_overlaps_that_are_decided_alike_share_a_line() -> None:
    overlaps = [
        {"policy": "aa", "prevails": "aa"},
        {"policy": "bb", "prevails": "fraud"},
        {"policy": "cc", "prevails": "cc"},
    ]
    rendered = render_policy(Policy.model_validate({**POLICY, "overlaps": overlaps}))

    assert rendered.endswith("Overlaps:\n- Yields to aa, cc\n- Prevails over bb\n")


def test_what_a_policy_does_not_have_leaves_no_heading() -> None:
    bare = Policy.model_validate({**POLICY, "allowed": [], "overlaps": []})

    assert "Stays allowed" not in render_policy(bare)
    assert "Overlaps" not in render_policy(bare)


def test_line_breaks_within_a_text_become_single_spaces() -> None:
    wrapped = {**POLICY, "definition": "Deceiving\n\n   people\tfor\r\ngain."}

    assert "\nDeceiving people for gain.\n" in render_policy(Policy.model_validate(wrapped))


def test_a_set_is_its_policies_in_file_order() -> None:
    policy_set = PolicySet.model_validate(small_set())

    assert render_policy_set(policy_set) == "\n".join(map(render_policy, policy_set.policies))


@pytest.mark.parametrize("key", ["title", "version", "description", "source"])
def test_what_is_for_people_does_not_change_the_prompt(key: str) -> None:
    data = small_set()
    before = render_policy_set(PolicySet.model_validate(data))

    assert render_policy_set(PolicySet.model_validate({**data, key: "2.0"})) == before


@pytest.mark.parametrize("name", sorted(shipped_policy_sets()))
def test_the_rendering_is_clean_and_shows_every_id(name: str) -> None:
    policy_set = load_policy_set(name)
    text = render_policy_set(policy_set)

    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    assert all(line == line.strip() for line in text.splitlines())
    assert "  " not in text
    for policy_id in policy_set.policy_ids:
        assert f"## {policy_id}: " in text
    for rule_id in policy_set.rule_ids:
        assert f"\n- {rule_id}: " in text


@pytest.mark.parametrize(
    ("name", "digest"), [("aidsafe", "2f8cf435f643444f"), ("mlcommons", "cb2d40034e8be515")]
)
def test_the_rendering_is_stable_to_the_byte(name: str, digest: str) -> None:
    # If the wording was changed on purpose, raise its version and put the new digest here.
    text = render_policy_set(load_policy_set(name))

    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
