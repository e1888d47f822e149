"""What every command prints on success."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from jsonschema import Draft202012Validator

from agents.persona import PERSONAS
from agents.prompt_texts import PROMPTS
from orchestration.cli.app import COMMANDS as ENTRIES
from orchestration.cli.app import make_app
from orchestration.cli.exit_codes import ExitCode
from orchestration.deliberation.record import CoTRecord
from policies import shipped_policy_sets
from tests.endpoint import Endpoint
from tests.orchestration.command import (
    HOME,
    aidsafe,
    environment,
    finish,
    make_run,
    models_file,
    prompts_file,
    start,
)
from tests.orchestration.run_helpers import agree

COMMANDS = [
    "chat",
    "plan",
    "run",
    "status",
    "retry",
    "show",
    "export",
    "salvage",
    "policies list",
    "policies show",
    "policies check",
    "personas list",
    "personas show",
    "personas check",
    "recipes list",
    "recipes show",
    "recipes check",
    "prompts list",
    "prompts show",
    "prompts check",
    "schema",
    "prefer",
    "pairs",
]


# Help --------------------------------------------------------------------------------------------


def test_all_commands_are_tested() -> None:
    found = []
    for name in ENTRIES:
        command = typer.main.get_command(make_app(name)).commands[name]  # type: ignore[attr-defined]
        found += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    assert sorted(found) == sorted(COMMANDS)


def test_only_the_command_in_use_is_imported() -> None:
    code = (
        "import sys; from orchestration.cli.app import make_app; make_app(None)\n"
        "assert not {'autogen_core', 'openai', 'aiohttp'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HOME, env=environment())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example_that_names_the_command(command: str) -> None:
    done = aidsafe(*command.split(), "--help")
    assert done.code == 0
    lines = done.out.splitlines()
    assert any(line.startswith(f"  Example: aidsafe {command}") for line in lines), done.out
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_shows_a_default_twice(command: str) -> None:
    text = " ".join(aidsafe(*command.split(), "--help").out.split())
    for option in text.partition("Options: ")[2].split(" --"):
        assert option.count("[default:") <= 1, option


def test_without_arguments_the_commands_are_listed() -> None:
    done = aidsafe()
    for command in COMMANDS:
        assert command.split()[0] in done.out + done.err


def test_the_version_is_printed() -> None:
    assert aidsafe("--version").out.startswith("aidsafe 0.")


def test_wrong_usage_is_exit_code_2_and_names_the_help() -> None:
    for arguments in (["nothing"], ["run"], ["show", "x", "--outcome", "none"], ["chat", "--x"]):
        done = aidsafe(*arguments)
        assert done.code == ExitCode.USAGE
        assert "Error: " in done.err
        assert "--help" in done.err


def test_the_readme_lists_all_exit_codes() -> None:
    table = (
        (HOME / "orchestration" / "README.md").read_text().partition("| exit code | meaning |\n")[2]
    )
    rows = table.partition("\n\n")[0].splitlines()[1:]
    assert rows == [f"| {code.value} | {code.meaning} |" for code in ExitCode]


# Chat --------------------------------------------------------------------------------------------


def test_chat_prints_the_notice_and_then_turn_by_turn(tmp_path: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        done = finish(start("chat", "How are you?", "--models", models_file(tmp_path, endpoint)))
    assert done.code == 0, done.err
    assert done.err.startswith(f"m at {endpoint.base_url} | policies aidsafe (5) | recipe default")
    assert done.err.count("\n") == 1, "nothing else on standard error"
    words = ["prompt  How are you?", "intent_analyst", "drafter", "risk_analyst", "refiner"]
    places = [done.out.index(word) for word in [*words, "completed, stopped by consensus"]]
    assert places == sorted(places)


@pytest.mark.parametrize("command", ["chat", "run"])
def test_personas_of_the_user_that_the_recipe_does_not_name_are_reported(
    command: str, tmp_path: Path
) -> None:
    mine = tmp_path / "my"
    mine.mkdir()
    shipped = aidsafe("personas", "show", "risk_analyst").out
    (mine / "risk_analyst.yaml").write_text(shipped)
    (mine / "night_editor.yaml").write_text(shipped.replace("risk_analyst", "night_editor"))
    run = ("run", prompts_file(tmp_path, 1), "--out", tmp_path / "run")
    asked = ("chat", "Hi") if command == "chat" else run
    with Endpoint(reply=agree) as endpoint:
        models = models_file(tmp_path, endpoint)
        done = aidsafe(*asked, "--models", models, "--personas", mine)
    assert done.code == 0, done.err
    assert done.err.splitlines()[1] == (
        f"night_editor is in {mine}/, but recipe default does not name it; put it into a recipe."
    )


def test_chat_json_is_a_record_and_nothing_else(tmp_path: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        models = models_file(tmp_path, endpoint)
        done = aidsafe("chat", "-", "--json", "--models", models, stdin="How are you?\n")
    record = CoTRecord.model_validate(done.json)
    assert record.prompt == "How are you?"
    assert aidsafe("show", "-", stdin=done.out).out.count("completed") == 1
    assert "stopped by consensus" in aidsafe("show", "-", record.id, stdin=done.out).out


def test_base_url_and_model_suffice(monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint(reply=agree, models=["my-model"]) as endpoint:
        url = ["--base-url", endpoint.base_url + "/"]
        assert aidsafe("chat", "Hi", *url, "--model", "my-model", "--seed", "7").code == 0
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.base_url)
        assert aidsafe("chat", "Hi", "--model", "my-model").code == 0
    assert endpoint.calls[0].body["seed"] == 7


# Run, show, export -------------------------------------------------------------------------------


def test_run_prints_a_summary_and_next_steps(tmp_path: Path) -> None:
    folder = tmp_path / "my run"
    with Endpoint(reply=agree) as endpoint:
        models = models_file(tmp_path, endpoint)
        run = ("run", prompts_file(tmp_path), "--out", folder, "--models", models)
        done = finish(start(*run))
        again = finish(start(*run))
    assert done.code == again.code == 0, done.err
    words = " ".join(done.out.split())
    assert words.startswith("prompts 3 of 3 outcomes 3 completed stopped by consensus 3")
    assert f"aidsafe show '{folder}'" in done.out
    assert "Unclosed" not in done.err
    assert "done before         3 prompts" in again.out
    assert endpoint.counts == {"ok": 18}


def test_run_json_is_a_summary_and_nothing_else(tmp_path: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        done = aidsafe(
            "run",
            "-",
            "--out",
            tmp_path / "run",
            "--json",
            "--limit",
            "2",
            "--models",
            models_file(tmp_path, endpoint),
            stdin="a\n\na\nb\nc\n",
        )
    assert done.code == 0
    assert done.json["outcomes"] == {"completed": 2}
    assert (done.json["duplicates"], done.json["empty"]) == (1, 1)


def test_a_higher_limit_adds_prompts_to_a_run(tmp_path: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        models = models_file(tmp_path, endpoint)
        run = ("run", prompts_file(tmp_path, 5), "--out", tmp_path / "run", "--models", models)
        aidsafe(*run, "--limit", "2")
        done = aidsafe(*run, "--limit", "4", "--json")
    assert (done.json["outcomes"], done.json["done_before"]) == ({"completed": 4}, 2)
    assert endpoint.counts == {"ok": 4 * 6}


def test_show_reads_a_run_and_an_export_of_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    listed = aidsafe("show", folder)
    assert listed.out.count("completed") == 3
    assert aidsafe("show", folder, "--limit", "1").out.count("completed") == 1
    assert "completed" not in aidsafe("show", folder, "--outcome", "failed").out
    file = tmp_path / "records.jsonl"
    assert aidsafe("export", folder, "--out", file).err == f"3 records written to {file}.\n"
    assert aidsafe("show", file).out == listed.out
    assert aidsafe("show", "-", stdin=file.read_text()).out == listed.out
    name = json.loads(file.read_text().splitlines()[1])["id"]
    turns = aidsafe("show", folder, name)
    assert turns.out == aidsafe("show", folder, name[:6]).out
    assert turns.out == aidsafe("show", file, name).out
    assert "risk_analyst" in turns.out
    with_instructions = aidsafe("show", folder, name, "--instructions")
    assert "You are now the risk_analyst" in with_instructions.out
    assert aidsafe("show", folder, name, "--json").json["id"] == name
    lines = aidsafe("show", folder, "--json").out.splitlines()
    assert [json.loads(line)["outcome"] for line in lines] == ["completed"] * 3


def test_ids_with_unusual_characters_are_shown(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    ids = ["a b/c", "[red]x[/y]", "--help", "é\u202e"]
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "id": i}) + "\n" for i in ids))
    with Endpoint(reply=agree) as endpoint:
        done = aidsafe(
            "run",
            file,
            "--id-column",
            "id",
            "--out",
            tmp_path / "run",
            "--models",
            models_file(tmp_path, endpoint),
        )
    assert done.code == 0, done.err
    listed = aidsafe("show", tmp_path / "run").out
    assert "[red]x[/y]" in listed
    assert "\u202e" not in listed
    for each in ids:
        assert aidsafe("show", "--json", "--", tmp_path / "run", each).json["id"] == each


@pytest.mark.parametrize("form", ["records", "aidsafe", "sft"])
def test_export_prints_json_lines(form: str, tmp_path: Path) -> None:
    done = aidsafe("export", make_run(tmp_path), "--format", form)
    assert len([json.loads(line) for line in done.out.splitlines()]) == 3
    assert done.err == ""


# YAML files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["policies", "personas", "recipes", "prompts"])
def test_lists_are_text_or_json(kind: str) -> None:
    listed = aidsafe(kind, "list", "--json").json
    text = aidsafe(kind, "list").out
    assert listed
    for each in listed:
        assert each["name"] in text


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("policies", "aidsafe"),
        ("personas", "drafter"),
        ("recipes", "default"),
        ("prompts", "default"),
    ],
)
def test_files_are_shown_as_text_or_json(kind: str, name: str) -> None:
    assert len(aidsafe(kind, "show", name).out) > 50
    assert isinstance(aidsafe(kind, "show", name, "--json").json, dict)


@pytest.mark.parametrize(
    ("kind", "name"), [("personas", "drafter"), ("recipes", "default"), ("prompts", "default")]
)
def test_a_shown_file_can_be_saved_edited_and_checked(kind: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text(aidsafe(kind, "show", name).out)
    done = aidsafe(kind, "check", file)
    assert (done.code, done.err) == (0, "")
    assert f"{file}: valid, " in done.out
    file.write_text(file.read_text().replace("\ndescription:", "\ndescripton:"))
    done = aidsafe(kind, "check", file)
    assert done.code == ExitCode.INPUT
    assert f"{file}:" in done.err
    assert "descripton" in done.err
    assert done.out == ""


def test_all_shipped_yaml_is_valid() -> None:
    sets = shipped_policy_sets().values()
    assert aidsafe("policies", "check", *sets).out.count(": valid, ") == len(sets)
    personas = PERSONAS.by_name().values()
    assert aidsafe("personas", "check", *personas).out.count(": valid, ") == len(personas)
    recipes = sorted((HOME / "orchestration" / "deliberation" / "recipes").glob("*.yaml"))
    prompts = PROMPTS.by_name().values()
    assert aidsafe("prompts", "check", *prompts).out.count(": valid, ") == len(prompts)
    assert recipes
    assert aidsafe("recipes", "check", *recipes).out.count(": valid, ") == len(recipes)


@pytest.mark.parametrize(
    "name", ["record", "policies", "persona", "recipe", "models", "summary", "prompts"]
)
def test_schemas_are_schemas(name: str) -> None:
    Draft202012Validator.check_schema(aidsafe("schema", name).json)


def test_exported_records_match_their_schema(tmp_path: Path) -> None:
    schema = Draft202012Validator(aidsafe("schema", "record").json)
    for line in aidsafe("export", make_run(tmp_path, 1)).out.splitlines():
        schema.validate(json.loads(line))
