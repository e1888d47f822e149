"""What a policy is made of, what it may hold, and when its hash changes."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from policies import Policy, PolicySet
from tests.policies.samples import POLICY, YAML, small_set


def test_a_set_knows_its_ids_in_file_order() -> None:
    policy_set = PolicySet.model_validate(small_set())

    assert policy_set.policy_ids == ("fraud", "harm")
    assert policy_set.rule_ids == ("FD1", "FD2", "PH1")
    assert policy_set.owners["PH1"] == "harm"
    assert policy_set.get("harm").title == "Harm"


def test_an_unknown_id_is_a_key_error() -> None:
    policy_set = PolicySet.model_validate(small_set())

    with pytest.raises(KeyError):
        policy_set.get("nothing")
    with pytest.raises(KeyError):
        policy_set.owners["XX1"]


def test_policies_cannot_be_changed() -> None:
    policy = Policy.model_validate(POLICY)

    with pytest.raises(ValidationError):
        policy.title = "Other"


def test_a_copy_is_checked_and_has_a_hash_of_its_own() -> None:
    policy_set = PolicySet.model_validate(small_set())
    before = policy_set.hash

    changed = policy_set.model_copy(update={"policies": policy_set.policies[1:]})

    assert changed.policy_ids == ("harm",)
    assert changed.hash != before
    assert policy_set.model_copy().hash == before
    with pytest.raises(ValidationError):
        policy_set.model_copy(update={"policies": ()})


def test_a_set_survives_copying_and_pickling() -> None:
    policy_set = PolicySet.model_validate(small_set())

    assert copy.deepcopy(policy_set) == policy_set
    assert pickle.loads(pickle.dumps(policy_set)).hash == policy_set.hash


def test_the_hash_has_a_fixed_form_and_value() -> None:
    # A golden value: records that were written earlier must still match.
    assert Policy.model_validate(POLICY).hash == "sha256:eccf84d785c39a6b"
    assert PolicySet.model_validate(small_set()).hash == "sha256:38c61555b1a9af22"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "fraud_2"),
        ("title", "Frauds"),
        ("version", "1.1"),
        ("definition", "Deceiving someone."),
        ("rules", [{"id": "FD1", "text": "Do not write scams."}]),
        ("allowed", []),
        ("respond", {"help": "a", "help_safely": "b", "decline": "c"}),
        ("overlaps", []),
    ],
)
def test_the_hash_changes_with_every_part_of_the_content(key: str, value: Any) -> None:
    assert Policy.model_validate({**POLICY, key: value}).hash != Policy.model_validate(POLICY).hash


def test_the_hash_does_not_change_with_the_way_the_content_is_written() -> None:
    reordered = dict(reversed(list(POLICY.items())))
    rewrapped = {**POLICY, "definition": "  Deceiving\n   people. "}

    for same in (reordered, rewrapped):
        assert Policy.model_validate(same).hash == Policy.model_validate(POLICY).hash


def test_a_set_written_as_yaml_and_in_python_is_the_same(tmp_path: Any) -> None:
    from policies import load_policy_set

    path = tmp_path / "small.yaml"
    path.write_text(YAML)

    assert load_policy_set(path) == PolicySet.model_validate(small_set())


@pytest.mark.parametrize("policy_id", ["a", "Fraud", "1fraud", "fraud-deception", "f" * 49, "é_a"])
def test_a_policy_id_is_lower_snake_case(policy_id: str) -> None:
    with pytest.raises(ValidationError, match="not a valid policy id"):
        Policy.model_validate({**POLICY, "id": policy_id})


@pytest.mark.parametrize("rule_id", ["1", "FD 1", "", "FD/1", "F" * 25])
def test_a_rule_id_is_short_and_without_blanks(rule_id: str) -> None:
    with pytest.raises(ValidationError, match="not a valid rule id"):
        Policy.model_validate({**POLICY, "rules": [{"id": rule_id, "text": "x"}]})


@pytest.mark.parametrize("definition", ["", "  ", "x" * 2001, "bell \x07", "\x85\x00"])
def test_a_text_is_neither_empty_nor_endless_nor_binary(definition: str) -> None:
    with pytest.raises(ValidationError):
        Policy.model_validate({**POLICY, "definition": definition})


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        ({"policy": "fraud", "prevails": "fraud"}, "cannot overlap with itself"),
        ({"policy": "harm", "prevails": "other"}, "cannot prevail"),
    ],
)
def test_overlaps_are_checked_without_yaml_too(overlap: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Policy.model_validate({**POLICY, "overlaps": [overlap]})


def test_duplicate_ids_are_found_without_yaml_too() -> None:
    data = small_set()
    data["policies"][1]["rules"][0]["id"] = "FD1"

    with pytest.raises(ValidationError, match='rule id "FD1" is used 2 times'):
        PolicySet.model_validate(data)
