"""Prompt texts: the shipped ones, a user's own, and the messages about broken ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from autogen_agentchat.base import ChatAgent
from autogen_agentchat.messages import TextMessage
from autogen_core import CancellationToken

import agents
from agents.deliberation.agents import DeliberationAgent
from agents.layout import Briefing
from agents.policy_agent import PolicyAgent
from agents.prompt_texts import (
    PROMPTS,
    PromptTexts,
    default_prompts,
    fill,
    find_prompts,
    prompts_model,
    read_prompts,
)
from agents.replies import KINDS
from policies import InputError, YamlError, load_policy_set
from tests.agents.golden_chats import captured
from tests.scripted import accepts, persona, scripted

SECTIONS = ["correction", *KINDS]
OWN = """\
name: own
description: Of my own.
correction:
  request: "Wrong: {problem}."
  cut_off: too long
"""


CHANGES = """\
too long
deliberation:
  changes:
    summary: "{x} {changes}."
    one_thought: thought {numbers}
    thoughts: thoughts
"""


def write(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def shipped(**changes: Any) -> dict[str, Any]:
    """The shipped texts as plain data, under a name of their own."""
    return default_prompts().model_dump() | {"name": "own", **changes}


def texts_in(node: dict[str, Any], path: str = "") -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every text below a node: where it stands, its key, its path."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from texts_in(value, f"{path}.{key}")
        elif path:
            yield node, key, f"{path}.{key}"


# The shipped ones --------------------------------------------------------------------------------


def test_the_shipped_prompts_have_every_section_and_a_hash() -> None:
    prompts = default_prompts()

    assert list(PROMPTS.by_name()) == ["default"]
    assert prompts.name == "default"
    assert all(prompts.section(name) is not None for name in SECTIONS)
    assert re.fullmatch(r"sha256:[0-9a-f]{16}", prompts.hash)


async def test_every_text_of_the_file_is_in_some_message() -> None:
    data = shipped()
    marks = []
    for node, key, path in texts_in(data):
        node[key] += f"~{path}~"
        marks.append(f"~{path}~")

    said = json.dumps(await captured(read_prompts(data)))

    assert [mark for mark in marks if mark not in said] == []


def test_they_survive_json_and_yaml(tmp_path: Path) -> None:
    prompts = default_prompts()
    data = json.loads(prompts.model_dump_json())

    assert read_prompts(data) == prompts == read_prompts(prompts)
    assert read_prompts(data).hash == prompts.hash
    path = write(tmp_path, yaml.safe_dump(data, allow_unicode=True), "default.yaml")
    assert find_prompts(path) == prompts


# Placeholders -------------------------------------------------------------------------------------


def test_a_placeholder_is_replaced_once_and_its_value_never_scanned() -> None:
    assert fill("{a}{b?} {A} { a } {a b}", a="{b}{a}", b=1) == "{b}{a}1 {A} { a } {a b}"
    assert fill("100%, %s, %(a)s, {a}%", a="%s %(a)s") == "100%, %s, %(a)s, %s %(a)s%"
    assert fill("{text}", text=r"\1 \g<0> {text}") == r"\1 \g<0> {text}"


@pytest.mark.parametrize(
    ("change", "line", "cause", "remedy"),
    [
        (("{problem}", "{problme}"), 4, "the unknown placeholder {problme}", "{problem}"),
        (("{problem}", "it"), 4, "lacks the placeholder {problem}", "are: {problem}"),
        (("too long", "no {problem} again"), 5, "unknown placeholder {problem}", "are: none"),
        (("request:", "reqest:"), 4, '"reqest" is not known', 'Did you mean "request"?'),
        (("too long", "[too, long]"), 5, '"cut_off" must be a text', "Write one text"),
        (("too long", ""), 5, '"cut_off" has no value', "Write one"),
        (("correction:", "corrections:"), 3, '"corrections" is not known', '"correction"'),
        (("too long\n", CHANGES), 8, "unknown placeholder {x}", "{agent?}, {changes}"),
        (("too long\n", CHANGES), 10, "lacks the placeholder {numbers}", "{numbers}"),
        (("name: own", "name: Own!"), 1, '"name" has the wrong form', "must match"),
        (("name: own", "name: other"), 1, "called 'own', but the prompts in it 'other'", "same"),
        (("name: own", "name: &a own"), 1, "", ""),
        (("too long", "!!python/name:os.system"), 5, "", ""),
    ],
)
def test_a_problem_is_reported_with_line_and_remedy(
    change: tuple[str, str], line: int, cause: str, remedy: str, tmp_path: Path
) -> None:
    path = write(tmp_path, OWN.replace(*change))

    with pytest.raises(YamlError) as caught:
        find_prompts(str(path))
    found = [p for p in caught.value.problems if p.line == line]
    assert found, caught.value
    assert any(cause in p.cause and remedy in p.remedy for p in found), caught.value


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    broken = OWN.replace("{problem}", "{no} {nope}").replace("description:", "describe:")

    with pytest.raises(YamlError) as caught:
        find_prompts(write(tmp_path, broken))
    assert [problem.line for problem in caught.value.problems] == [1, 2, 4]
    assert "{no}" in str(caught.value)
    assert "{nope}" in str(caught.value)
    assert "{problem}" in str(caught.value)


def test_prompts_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no prompts file 'defualt'. Use one of default"):
        find_prompts("defualt")
    with pytest.raises(YamlError, match=r"nothing\.yaml"):
        find_prompts(str(tmp_path / "nothing.yaml"))


def test_the_schema_of_a_file_names_every_section() -> None:
    schema = prompts_model().model_json_schema()

    assert list(schema["properties"]) == ["name", "description", *SECTIONS]
    assert schema["additionalProperties"] is False


# A user's own -------------------------------------------------------------------------------------


def test_what_is_left_out_is_the_shipped_text(tmp_path: Path) -> None:
    prompts = find_prompts(write(tmp_path, OWN))
    less = find_prompts(write(tmp_path, OWN.replace("  cut_off: too long\n", "")))

    assert less.section("correction").request == "Wrong: {problem}."
    assert less.section("correction").cut_off == default_prompts().section("correction").cut_off

    assert prompts.section("correction").cut_off == "too long"
    for name in ("deliberation", "pairs"):
        assert prompts.section(name) == default_prompts().section(name)
    assert read_prompts(prompts.model_dump(exclude={"pairs"})) == prompts


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    own = find_prompts(write(tmp_path, OWN))

    assert find_prompts(write(tmp_path, "# A comment.\n" + OWN)).hash == own.hash
    assert find_prompts(write(tmp_path, OWN.replace("too", "very"))).hash != own.hash
    assert find_prompts(write(tmp_path, OWN.replace("Of my", "Mine."))).hash != own.hash


def translated() -> PromptTexts:
    texts = {
        "system": "Regeln.\n{policies}",
        "instruction": "{task}\nDu bist {agent}. {instructions}",
        "deliberator": {"task": "Stand: {state}", "no_thoughts": "Nichts."},
    }
    data = {"name": "de", "description": "Deutsch.", "deliberation": texts}
    return read_prompts(data | {"correction": {"request": "Falsch: {problem}."}})


async def test_agents_use_the_prompts_of_their_briefing() -> None:
    model, client = scripted(["{not JSON}", accepts()])
    run = Briefing(load_policy_set("aidsafe"), prompts=translated())
    agent = DeliberationAgent.make(persona("judge"), run, [model])

    await agent.on_messages([TextMessage(content="{task}", source="user")], CancellationToken())

    first, second = client.requests
    assert str(first[0].content).startswith("Regeln.\n## ")
    assert str(first[1].content).endswith(
        "\n\nStand: Nichts. There is no response yet.\nDu bist judge. Be brief."
    )
    assert second[-1].content == "Falsch: there is no JSON object in it."


def test_an_agent_is_declared_with_its_prompts() -> None:
    model, _ = scripted([])
    run = Briefing(load_policy_set("aidsafe"), prompts=translated())
    agent = DeliberationAgent.make(persona("judge"), run, [model], "other_name")

    loaded = ChatAgent.load_component(json.loads(agent.dump_component().model_dump_json()))

    assert isinstance(loaded, PolicyAgent)
    assert loaded.briefing == run
    assert loaded.name == "other_name"


def test_the_example_of_the_documentation_is_a_prompts_file(tmp_path: Path) -> None:
    readme = (Path(agents.__file__).parent / "README.md").read_text()
    example = readme.split("```yaml\n")[2].partition("```")[0]

    assert find_prompts(write(tmp_path, example, "terse.yaml")).name == "terse"
