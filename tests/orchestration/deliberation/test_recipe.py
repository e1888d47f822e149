"""Recipes: YAML that says who takes part, and the casts that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from agents.persona import PERSONAS, find_persona
from agents.prompt_texts import find_prompts
from orchestration.deliberation.job import DeliberationJob
from orchestration.deliberation.recipe import RECIPES, Cast, Recipe, load_recipe
from policies import InputError, YamlError, load_policy_set
from tests.orchestration.chat.speakers import TASK, said
from tests.scripted import agreeable, cast, persona, scripted

HEAD = "name: mine\ndescription: Mine.\n"
CIRCLE = "circle: [policy_auditor, risk_analyst]\n"


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def recipe(**more: Any) -> Recipe:
    circle = ("policy_auditor", "risk_analyst")
    return Recipe(**{"name": "mine", "description": "Mine.", "circle": circle, **more})


# Files


@pytest.mark.parametrize("name", RECIPES.by_name())
async def test_a_shipped_recipe_loads_and_plays(name: str) -> None:
    shipped = load_recipe(name)
    assert shipped.name == name
    model, _ = scripted(agreeable)
    made = Cast(shipped, load_policy_set("aidsafe"), {"default": model})
    done = await made.make_chat().run(task=TASK)
    assert done.stop_reason == "consensus"
    assert set(shipped.circle) < set(said(done.messages))


def test_the_default_recipe_is_shipped() -> None:
    assert {"default", "small"} <= set(RECIPES.by_name())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"quorum": 1, "rounds": 7, "token_budget": 9_000, "description": "Größer: ja, 'sehr'."},
        {"circle": ("a", "b", "c"), "limits": {"thoughts": 3, "response_chars": 90}},
        {"intent_analyst": "x1", "drafter": "x2", "refiner": "x3", "quorum": 2},
    ],
)
def test_a_recipe_goes_through_yaml(tmp_path: Path, more: dict[str, Any]) -> None:
    made = recipe(**more)
    text = yaml.safe_dump(made.model_dump(mode="json"), allow_unicode=True)
    read = load_recipe(write(tmp_path, text))
    assert read == made
    assert read.hash == made.hash


@pytest.mark.parametrize("name", RECIPES.by_name())
def test_a_shipped_recipe_goes_through_yaml(tmp_path: Path, name: str) -> None:
    made = load_recipe(name)
    assert load_recipe(write(tmp_path, yaml.safe_dump(made.model_dump(mode="json")))) == made


@pytest.mark.parametrize(
    ("text", "line", "cause", "remedy"),
    [
        (
            "circle:\n- policy_auditor\n- risk_analyst\n- policy_auditor\n",
            6,
            "'policy_auditor' is in the circle twice",
            "Name every persona once",
        ),
        (CIRCLE + "quorum: 3\n", 4, "quorum of 3 cannot be reached", "from 1 to 2, or to all"),
        (CIRCLE + "quorum: 0\n", 4, "quorum of 0 cannot be reached", "from 1 to 2, or to all"),
        (CIRCLE + "quorum: most\n", 4, 'neither a number nor all, but "most"', "or all"),
        (CIRCLE + "quorum: true\n", 4, "neither a number nor all, but true", "or all"),
        (CIRCLE + "round: 2\n", 4, '"round" is not known here', 'Did you mean "rounds"?'),
        (CIRCLE + "rounds: 0\n", 4, '"rounds" must be at least 1 (got 0)', "Change the number"),
        (CIRCLE + "rounds: yes\n", 4, '"rounds" must be a whole number', "Write a whole number"),
        (CIRCLE + "rounds: '2'\n", 4, '"rounds" must be a whole number', "without quotes"),
        (CIRCLE + "token_budget: 0\n", 4, '"token_budget" must be at least 1', "Change"),
        (CIRCLE + "limits:\n  thoughts: 0\n", 5, '"thoughts" must be at least 1', "Change"),
        ("circle: []\n", 3, '"circle" has 0 items and needs at least 1', "Add what is missing"),
        ("circle: policy_auditor\n", 3, '"circle" must be a list', "Write each item"),
        ("rounds: 2\n", None, "circle", ""),
    ],
)
def test_a_bad_recipe_is_refused_with_line_and_remedy(
    tmp_path: Path, text: str, line: int | None, cause: str, remedy: str
) -> None:
    path = write(tmp_path, HEAD + text)
    with pytest.raises(YamlError) as caught:
        load_recipe(path)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert line is None or problem.line == line
    assert cause in problem.cause
    assert remedy in problem.remedy


def test_all_problems_of_a_recipe_are_told_together(tmp_path: Path) -> None:
    text = HEAD + "circle: [a, a]\nquorum: 3\nrounds: 0\nspeed: high\n"
    with pytest.raises(YamlError) as caught:
        load_recipe(write(tmp_path, text))
    assert [problem.line for problem in caught.value.problems] == [3, 4, 5, 6]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"circle": ("a", "a")}, "'a' is in the circle twice"),
        ({"quorum": 3}, "quorum of 3 cannot be reached"),
        ({"quorum": True}, "neither a number nor all"),
        ({"rounds": 0}, "greater than or equal to 1"),
        ({"speed": "high"}, "Extra inputs are not permitted"),
    ],
)
def test_a_bad_recipe_cannot_be_made_in_code_either(more: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        recipe(**more)


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match=r"There is no recipe 'defualt'.*default, .*small"):
        load_recipe("defualt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.yaml: There is no such file"):
        load_recipe(str(tmp_path / "nothing.yaml"))


def test_what_changes_a_recipe_changes_its_hash() -> None:
    hashes = {recipe(**more).hash for more in ({}, {"rounds": 4}, {"quorum": 1}, {"refiner": "r"})}
    assert len(hashes) == 4


# Casts


def test_prompts_of_ones_own_stand_beside_the_recipe(tmp_path: Path) -> None:
    own = {"request": "Wrong: {problem}.", "cut_off": "too long"}
    prompts = {"name": "own", "description": "Mine.", "correction": own}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(prompts))
    made = load_recipe(write(tmp_path, HEAD + CIRCLE + "prompts: own.yaml\n"))
    shipped = load_recipe(write(tmp_path, HEAD + CIRCLE))

    made_cast = load(made)
    assert made_cast.prompts.name == "own"
    assert made_cast.briefing.prompts is made_cast.prompts
    for name in ("deliberation", "pairs"):
        assert made_cast.prompts.section(name) == find_prompts("default").section(name)
    assert made.hash == shipped.hash  # the prompts have a hash of their own
    assert (
        DeliberationJob(made_cast).fingerprints()["recipe"]
        == (DeliberationJob(load(shipped)).fingerprints()["recipe"])
    )


def test_prompts_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match="There is no prompts file 'defualt'"):
        load(recipe(prompts="defualt"))
    with pytest.raises(YamlError, match=r"nowhere\.yaml"):
        load(recipe(prompts="nowhere.yaml"))


def load(made: Recipe, folder: Path | None = None, **models: Any) -> Cast:
    given = {name: scripted([], name)[0] for name in ("default", *models)}
    return Cast(made, load_policy_set("aidsafe"), given, folder)


def add_persona(folder: Path, **fields: Any) -> None:
    text = yaml.safe_dump({"description": "Mine.", "instructions": "Be brief.", **fields})
    (folder / f"{fields['name']}.yaml").write_text(text, encoding="utf-8")


def test_an_unknown_persona_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match="There is no persona 'judge'") as caught:
        load(recipe(circle=("policy_auditor", "judge")))
    assert "policy_auditor" in caught.value.remedy


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        (
            {"circle": ("drafter",)},
            "'mine' needs a persona of role deliberator, but 'drafter' has the role drafter",
        ),
        ({"refiner": "risk_analyst"}, "role refiner, but 'risk_analyst' has the role deliberator"),
        ({"drafter": "refiner"}, "role drafter, but 'refiner' has the role refiner"),
        ({"intent_analyst": "drafter"}, "role intent_analyst, but 'drafter' has the role drafter"),
    ],
)
def test_a_persona_in_the_wrong_place_is_named(places: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load(recipe(**places))
    assert "right role" in caught.value.remedy


@pytest.mark.parametrize("field", ["model", "fallback_models"])
def test_a_model_that_is_not_configured_is_named(tmp_path: Path, field: str) -> None:
    value: Any = "large" if field == "model" else ["large"]
    add_persona(tmp_path, name="judge", role="deliberator", **{field: value})
    made = recipe(circle=("judge",))
    with pytest.raises(InputError, match="'judge' names the model 'large', which") as caught:
        load(made, tmp_path)
    assert "default" in caught.value.remedy
    assert [model.name for model in load(made, tmp_path, large=True).models_in_use] == (
        ["default", "large"]
    )


def test_a_persona_that_was_not_given_is_named() -> None:
    model, _ = scripted([])
    with pytest.raises(InputError, match="names the persona 'drafter', which is unknown"):
        Cast(
            recipe(),
            load_policy_set("aidsafe"),
            {"default": model},
            {"intent_analyst": persona("intent_analyst", "intent_analyst")},
        )


async def test_a_persona_of_ones_own_takes_part(tmp_path: Path) -> None:
    add_persona(tmp_path, name="judge", role="deliberator")
    model, client = scripted(agreeable)
    made = Cast(
        recipe(circle=("policy_auditor", "judge")),
        load_policy_set("aidsafe"),
        {"default": model},
        tmp_path,
    )
    done = await made.make_chat().run(task=TASK)
    assert "judge" in said(done.messages)
    assert any("You are now the judge: Mine." in str(r[-1].content) for r in client.requests)


async def test_a_cast_makes_a_new_chat_for_every_prompt() -> None:
    made, _ = cast()
    first, second = made.make_chat(), made.make_chat()
    await first.run(task=TASK)
    assert second.messages == ()
    assert (await second.run(task=TASK)).stop_reason == "consensus"


async def test_a_model_may_be_wrapped_for_each_chat() -> None:
    made, _ = cast()
    wrapped: list[str] = []

    def wrap(model: Any) -> Any:
        wrapped.append(model.name)
        return model

    made.make_chat(wrap)
    assert wrapped == ["default"] * 6


async def test_the_budgets_of_a_recipe_end_its_circle() -> None:
    def never_agrees(messages: Any, arguments: Any) -> Any:
        reply = agreeable(messages, arguments)
        return {**reply, "verdict": "revise"} if "verdict" in reply else reply

    by_rounds, _ = cast(never_agrees, rounds=2)
    assert (await by_rounds.make_chat().run(task=TASK)).stop_reason == "round_budget"
    by_tokens, _ = cast(never_agrees, rounds=2, token_budget=1)
    done = await by_tokens.make_chat().run(task=TASK)
    assert done.stop_reason == "token_budget"
    assert said(done.messages) == ["user", "intent_analyst", "drafter", "refiner"]


PAIR_ROLES = ("ear_whisperer", "generator", "violation_judge", "violation_classifier")


def test_every_shipped_persona_has_a_place_in_some_recipe_or_can_have_one() -> None:
    roles = {name: find_persona(path).role for name, path in PERSONAS.by_name().items()}
    for name, role in roles.items():
        if role in PAIR_ROLES:
            continue  # those of pair recipes
        place: dict[str, Any] = {"circle": (name,)} if role == "deliberator" else {role: name}
        load(recipe(**place))
