"""Personas: the shipped ones, a user's own, and the messages about broken ones."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import agents
from agents.persona import PERSONAS, Persona, find_persona
from policies import InputError, YamlError

YAML = """\
name: skeptic
role: deliberator
description: Doubts everything.
instructions: |
  You doubt.
"""


def write(folder: Path, text: str, name: str = "skeptic.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", list(PERSONAS.by_name()))
def test_a_shipped_persona_has_the_name_of_its_file_and_addresses_the_agent(name: str) -> None:
    persona = find_persona(name)

    assert persona.name == name
    assert persona.instructions.startswith("You ")
    assert persona.model == ("shieldgemma" if name == "shieldgemma" else None)
    assert re.fullmatch(r"[A-Z].*\.", persona.description)


def test_the_shipped_personas_fill_every_role() -> None:
    roles = Counter(find_persona(name).role for name in PERSONAS.by_name())

    assert roles.pop("deliberator") >= 5
    assert roles == {
        "intent_analyst": 1,
        "drafter": 1,
        "refiner": 1,
        "ear_whisperer": 1,
        "generator": 2,  # misled, and sampled
        "violation_judge": 1,
        "violation_classifier": 2,  # any model, and ShieldGemma
    }


def test_a_users_folder_adds_personas_and_hides_shipped_ones_of_the_same_name(
    tmp_path: Path,
) -> None:
    write(tmp_path, YAML)
    write(tmp_path, YAML.replace("skeptic", "risk_analyst"), "risk_analyst.yml")

    assert set(PERSONAS.by_name(tmp_path)) == {*PERSONAS.by_name(), "skeptic"}
    assert find_persona("skeptic", tmp_path).instructions == "You doubt."
    assert find_persona("risk_analyst", tmp_path).instructions == "You doubt."
    assert find_persona("risk_analyst").instructions != "You doubt."


def test_all_fields_of_a_persona_are_read(tmp_path: Path) -> None:
    more = "model: big\nfallback_models: [small, other]\ntemperature: 0\nmax_tokens: 16\n"
    persona = find_persona(write(tmp_path, YAML + more))

    assert (persona.model, persona.fallback_models) == ("big", ("small", "other"))
    assert (persona.temperature, persona.max_tokens) == (0.0, 16)


def test_a_file_with_another_name_than_its_persona_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, YAML, "doubter.yaml")

    with pytest.raises(InputError) as caught:
        find_persona("doubter", tmp_path)
    assert str(path) in str(caught.value)
    assert "'doubter'" in str(caught.value)
    assert "'skeptic'" in str(caught.value)


def test_the_message_about_another_name_gives_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, YAML, "doubter.yaml")

    with pytest.raises(YamlError) as caught:
        find_persona(path)
    assert [(p.line, p.remedy) for p in caught.value.problems] == [(1, "Give both the same name.")]


def test_an_unknown_persona_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    write(tmp_path, YAML)

    with pytest.raises(InputError) as caught:
        find_persona("sceptic", tmp_path)
    for name in [*PERSONAS.by_name(), "skeptic"]:
        assert name in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        PERSONAS.by_name(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("deliberator", "boss"), 2),
        (("skeptic", "Skeptic!"), 1),
        (("Doubts everything.", '"two\\nlines"'), 3),
        (("description:", "descriptions:"), 3),
        (("You doubt.", "\n"), 4),
        (("role: ", "role: ["), 3),
        (("name: skeptic", "name: &a skeptic"), 1),
        (("name: skeptic", "name: !!python/name:os.system skeptic"), 1),
    ],
)
def test_a_problem_is_reported_with_file_and_line(
    change: tuple[str, str], line: int, tmp_path: Path
) -> None:
    path = write(tmp_path, YAML.replace(*change))

    with pytest.raises(YamlError) as caught:
        find_persona("skeptic", tmp_path)
    assert f"{path}:{line}: " in str(caught.value)


def test_all_problems_of_a_persona_are_reported_at_once(tmp_path: Path) -> None:
    write(tmp_path, YAML.replace("deliberator", "boss") + "temperature: 9\nmood: bad\n")

    with pytest.raises(YamlError) as caught:
        find_persona("skeptic", tmp_path)
    assert [problem.line for problem in caught.value.problems] == [2, 6, 7]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"role": "drafter"},
        {"description": "Else."},
        {"instructions": "You do not."},
        {"model": "big"},
        {"fallback_models": ("a",)},
        {"temperature": 0.0},
        {"max_tokens": 17},
    ],
)
def test_the_hash_changes_with_any_content(change: dict[str, object], tmp_path: Path) -> None:
    persona = find_persona(write(tmp_path, YAML))

    assert Persona.model_validate({**persona.model_dump(), **change}).hash != persona.hash


@pytest.mark.parametrize(
    "same",
    [
        YAML + "# a comment\n",
        YAML.replace("instructions: |\n  You doubt.", 'instructions: "You doubt.  "'),
        "\n".join(reversed(YAML.replace("|\n ", "").splitlines())),
        YAML + "temperature: null\nfallback_models: []\n",
    ],
)
def test_the_hash_stays_with_the_same_content(same: str, tmp_path: Path) -> None:
    persona = find_persona(write(tmp_path, YAML))

    again = find_persona(write(tmp_path, same))
    assert again.hash == persona.hash
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", again.hash)


def test_the_example_of_the_documentation_is_a_persona(tmp_path: Path) -> None:
    readme = (Path(agents.__file__).parent / "README.md").read_text()
    example = readme.partition("```yaml\n")[2].partition("```")[0]

    as_it_is = find_persona(write(tmp_path, example, "privacy_advocate"))
    assert (as_it_is.model, as_it_is.max_tokens) == (None, 800)
    with_models = example.replace("# model", "model").replace("# fallback", "fallback")
    assert find_persona(write(tmp_path, with_models, "privacy_advocate")).fallback_models == (
        "small",
    )
