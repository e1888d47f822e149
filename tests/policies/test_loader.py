"""Finding, loading and checking policy sets, and the sets that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies import (
    InputError,
    PolicySet,
    YamlError,
    check_policy_set,
    load_policy_set,
    render_policy_set,
    shipped_policy_sets,
)
from tests.policies.samples import YAML, bend

SECOND_RULE = ("      - id: PH1", "      - id: FD1")


def check(text: str, tmp_path: Path) -> list[str]:
    """Every problem as `line: sentences`."""
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return [
        f"{problem.line}: {problem.cause} {problem.remedy}" for problem in check_policy_set(path)
    ]


def test_a_bare_name_is_a_shipped_set() -> None:
    assert load_policy_set("aidsafe").id == "aidsafe"
    assert sorted(shipped_policy_sets()) == ["aidsafe", "mlcommons", "over_refusal"]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_file(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(YAML)

    assert load_policy_set(kind(path)).id == "small"


def test_a_file_in_this_folder_needs_only_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.yml").write_text(YAML)
    monkeypatch.chdir(tmp_path)

    assert load_policy_set("my.yml").id == "small"


def test_an_unknown_name_lists_the_shipped_sets_and_suggests_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        load_policy_set("aidsave")

    assert "aidsafe, mlcommons" in str(caught.value)
    assert 'Did you mean "aidsafe"?' in str(caught.value)


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    assert check(YAML, tmp_path) == []
    assert check_policy_set("aidsafe") == []


def test_a_duplicate_rule_id_is_reported_on_both_lines(tmp_path: Path) -> None:
    assert check(bend(SECOND_RULE), tmp_path) == [
        f'{line}: The rule id "FD1" is used 2 times in this set. '
        "Keep it in one place and give the others ids of their own."
        for line in (11, 30)
    ]


def test_a_duplicate_policy_id_is_reported_on_both_lines(tmp_path: Path) -> None:
    said = check(
        bend(("  - id: harm", "  - id: fraud"), ("overlaps:", "overlaps: []\n    x:")), tmp_path
    )

    assert [line for line in said if 'policy id "fraud" is used 2 times' in line] == [
        line for line in said if line.startswith(("6:", "26:"))
    ]


def test_an_overlap_must_name_a_policy_of_the_set(tmp_path: Path) -> None:
    text = bend(("- policy: harm", "- policy: harms"), ("prevails: harm", "prevails: fraud"))

    assert check(text, tmp_path) == [
        '22: There is no policy "harms" in this set. Did you mean "harm"?'
    ]


def test_a_policy_cannot_overlap_with_itself(tmp_path: Path) -> None:
    text = bend(("- policy: harm", "- policy: fraud"), ("prevails: harm", "prevails: fraud"))

    assert check(text, tmp_path) == [
        '22: Policy "fraud" cannot overlap with itself. Name another policy of the set.'
    ]


def test_only_one_of_the_two_can_prevail(tmp_path: Path) -> None:
    assert check(bend(("prevails: harm", "prevails: harms")), tmp_path) == [
        '23: "harms" cannot prevail where "fraud" and "harm" overlap. Write "fraud" or "harm".'
    ]


def test_two_policies_may_not_both_prevail(tmp_path: Path) -> None:
    other = "overlaps:\n      - policy: fraud\n        prevails: fraud\n"
    text = YAML.removesuffix("overlaps: []\n") + other

    said = check(text, tmp_path)

    assert [line.split(":")[0] for line in said] == ["23", "40"]
    assert all("decided both ways" in line and "same policy prevail" in line for line in said)
    assert 'here "harm" prevails' in said[0]
    assert 'here "fraud" prevails' in said[1]


def test_both_policies_may_state_the_same(tmp_path: Path) -> None:
    other = "overlaps:\n      - policy: fraud\n        prevails: harm\n"

    assert check(YAML.removesuffix("overlaps: []\n") + other, tmp_path) == []


def test_conflicts_and_mistakes_of_form_are_reported_together_in_file_order(tmp_path: Path) -> None:
    text = bend(SECOND_RULE, ("title: Small set", "titel: Small set"), ("Do not forge.", "no"))

    said = check(text, tmp_path)

    assert [line.split(":")[0] for line in said] == ["1", "2", "11", "14", "30"]


@pytest.mark.parametrize(
    "text",
    [
        "policies: 3\n",
        "policies: [1, [2], null]\n",
        "policies:\n  - rules: {a: b}\n    overlaps: [x, {policy: 3, prevails: []}]\n",
        "policies:\n  - id: 7\n    rules: [{id: [1]}]\n    overlaps: 4\n",
    ],
)
def test_checks_cope_with_any_shape(text: str, tmp_path: Path) -> None:
    assert check(text, tmp_path)


@pytest.mark.parametrize(("name", "most"), [("aidsafe", 7_000), ("mlcommons", 12_000)])
def test_a_shipped_set_stays_within_its_budget_of_characters(name: str, most: int) -> None:
    assert len(render_policy_set(load_policy_set(name))) <= most


@pytest.mark.parametrize("name", sorted(shipped_policy_sets()))
def test_every_overlap_of_a_shipped_set_names_policies_of_it(name: str) -> None:
    policy_set = load_policy_set(name)

    for policy in policy_set.policies:
        for overlap in policy.overlaps:
            assert {overlap.policy, overlap.prevails} <= set(policy_set.policy_ids)


@pytest.mark.parametrize("name", sorted(shipped_policy_sets()))
def test_every_shipped_policy_says_what_stays_allowed(name: str) -> None:
    policy_set = load_policy_set(name)

    assert policy_set.id == name
    assert all(policy.allowed for policy in policy_set.policies)


def test_aidsafe_has_the_five_policies_of_the_paper() -> None:
    policy_set = load_policy_set("aidsafe")

    assert policy_set.policy_ids == (
        "hate_harassment_violence",
        "fraud_deception",
        "physical_harm",
        "illegal_activity",
        "respect_helpfulness",
    )
    assert all(4 <= len(policy.rules) <= 6 for policy in policy_set.policies)
    prefixes = ("HV", "FD", "PH", "IA", "RH")
    for policy, prefix in zip(policy_set.policies, prefixes, strict=True):
        numbered = [f"{prefix}{number}" for number in range(1, len(policy.rules) + 1)]
        assert [rule.id for rule in policy.rules] == numbered


def test_helpfulness_yields_to_every_policy_on_harm() -> None:
    policy_set = load_policy_set("aidsafe")
    overlaps = policy_set.get("respect_helpfulness").overlaps

    assert {overlap.prevails for overlap in overlaps} == set(policy_set.policy_ids) - {
        "respect_helpfulness"
    }


def test_mlcommons_has_a_policy_for_each_of_twelve_hazards() -> None:
    policy_set = load_policy_set("mlcommons")

    assert len(policy_set.policies) == 12
    assert all(2 <= len(policy.rules) <= 4 for policy in policy_set.policies)
    assert "not an official document" in policy_set.source


def test_the_example_in_the_readme_is_a_policy_set(tmp_path: Path) -> None:
    readme = (Path(shipped_policy_sets()["aidsafe"]).parent / "README.md").read_text()
    example = readme.split("```yaml\n")[1].split("```")[0]
    path = tmp_path / "example.yaml"
    path.write_text(example)

    assert isinstance(load_policy_set(path), PolicySet)


def test_loading_a_bad_file_raises_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(bend(SECOND_RULE))

    with pytest.raises(YamlError) as caught:
        load_policy_set(path)

    assert list(caught.value.problems) == check_policy_set(path)
