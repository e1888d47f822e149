"""Errors: cause, remedy, exit code, and no half-written files."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agents.models.errors import EndpointError, EndpointMisconfigured
from orchestration.cli import app as cli
from orchestration.cli import entry
from orchestration.cli.exit_codes import ExitCode, Interrupted, exit_code
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, SCHEMA_VERSION, Journal, JournalError
from orchestration.runs.run import LimitReached, RunStopped
from policies import AidsafeError, InputError, YamlError
from tests.endpoint import Endpoint, Fault
from tests.orchestration.command import (
    HOME,
    Done,
    aidsafe,
    environment,
    finish,
    make_run,
    models_file,
    prompts_file,
    run_here,
    start,
)
from tests.orchestration.run_helpers import CALLS_PER_CHAT, agree

BAD_POLICIES = "id: mine\nversion: 1.0.0\ntitle: Mine\npolicies:\n  - id: one\n    nme: One\n"
MODELS = "models: {default: {endpoint: {base_url: 'http://127.0.0.1:9/v1', model: m}}}\n"
BAD_RECIPE = "name: mine\ndescription: Mine.\ncircle: [risk_analyst, nobody]\n"


def error_of(done: Done, code: ExitCode) -> str:
    """An error's cause and remedy; checks that there are both, and no standard output."""
    assert done.code == code, done.err
    assert done.out == ""
    _, found, error = f"\n{done.err}".partition("\nError: ")
    assert found
    assert re.search(r"\.\s+\S", error.strip()), "a cause, and a remedy after it"
    return " ".join(error.split())


# Input -------------------------------------------------------------------------------------------

RUN = ["run", "{prompts}", "--out", "{out}"]
AT = ["--base-url", "http://127.0.0.1:9/v1", "--model", "m"]
CHAT = ["chat", "Hi"]
INPUTS: dict[str, tuple[list[str], str]] = {
    "a missing file": (["run", "none.jsonl", "--out", "{out}"], "There is no file none.jsonl"),
    "a wrong column": ([*RUN, "--column", "question"], "no column 'question'"),
    "a wrong id column": ([*RUN, "--id-column", "n"], "no column 'n'"),
    "a binary file": (["run", "{binary}", "--out", "{out}"], "NUL byte"),
    "an empty file": (["run", "{empty}", "--out", "{out}"], "there are no prompts in it"),
    "a pattern without files": (["run", "{here}/*.csv", "--out", "{out}"], "no file of prompts"),
    "an unknown recipe": ([*RUN, "--recipe", "defualt"], "no recipe 'defualt'"),
    "an unknown persona in a recipe": ([*RUN, "--recipe", "{recipe}"], "no persona 'nobody'"),
    "unknown policies": ([*RUN, "--policies", "aidsfae"], "aidsfae"),
    "bad policies": ([*RUN, "--policies", "{policies}"], "{policies}:"),
    "policies that are not there": ([*RUN, "--policies", "none.yaml"], "none.yaml"),
    "no personas folder": ([*RUN, "--personas", "none"], "personas folder none does not exist"),
    "no models file": ([*RUN, "--models", "none.yaml"], "none.yaml"),
    "an address without a model": ([*RUN, "--base-url", "http://h/v1"], "name of a model"),
    "an empty model": ([*CHAT, "--model", "", "--base-url", "http://h/v1"], "model is empty"),
    "an address that is none": ([*CHAT, "--model", "m", "--base-url", "h:80"], "address"),
    "an address with a key": ([*CHAT, "--model", "m", "--base-url", "http://k@h"], "address"),
    "two ways to name models": ([*CHAT, "--models", "x", "--model", "m"], "contradict"),
    "an empty prompt": (["chat", "  "], "prompt is empty"),
    "a prompt that is not UTF-8": (["chat", "\udcff"], "not UTF-8"),
    "an unwritable folder": (["run", "{prompts}", "--out", "{prompts}/sub"], "cannot be"),
    "a file as folder": (["run", "{prompts}", "--out", "{prompts}"], "is a file"),
    "another folder": (["run", "{prompts}", "--out", "{here}"], "something else than a run"),
    "a time that is none": ([*RUN, "--max-time", "soon"], "--max-time soon is invalid"),
    "no time at all": ([*RUN, "--max-time", "0m"], "--max-time 0m is invalid"),
    "a price that is none": ([*RUN, "--price", "cheap"], "--price cheap is invalid"),
    "a price of one number": ([*RUN, "--price", "1"], "--price 1 is invalid"),
    "a price below nothing": ([*RUN, "--price=-1,2"], "--price -1,2 is invalid"),
    "a price beside a models file": (
        [*RUN, "--models", "{models}", "--price", "1,2"],
        "contradict",
    ),
    "a limit without a price": ([*RUN, "--max-cost", "1", *AT], "model 'default' has none"),
    "a retry of what is done": (["retry", "x", "--outcome", "completed"], "not retried"),
    "a retry of no run": (["retry", "{here}", "--outcome", "failed"], "run.yaml cannot be read"),
    "no such run": (["show", "none"], "none does not exist"),
    "no such policy set": (["policies", "show", "none"], "none"),
    "no such persona": (["personas", "show", "none"], "no persona 'none'"),
    "no such recipe": (["recipes", "show", "none"], "no recipe 'none'"),
    "no such prompts": (["prompts", "show", "none"], "no prompts file 'none'"),
    "a file that is no record": (
        ["show", "{prompts}"],
        "{prompts}:1: this is not a record or pair",
    ),
    "a binary file of records": (["show", "{latin}"], "cannot be read as text"),
    "an empty file of records": (["show", "{empty}"], "is empty"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_invalid_input_is_reported(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files: dict[str, str | bytes] = {
        "prompts": '{"prompt": "a"}\n',
        "binary": b"\x7fELF\0\0",
        "latin": b"\xe9\xff",
        "empty": b"",
        "policies": BAD_POLICIES,
        "recipe": BAD_RECIPE,
        "models": MODELS,
    }
    suffix = {"policies": ".yaml", "recipe": ".yaml", "models": ".yaml"}
    names = {"here": str(tmp_path), "out": str(tmp_path / "run")}
    for key, content in files.items():
        file = tmp_path / f"{key}{suffix.get(key, '.jsonl')}"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        names[key] = str(file)
    before = sorted(tmp_path.iterdir())
    arguments, words = INPUTS[name]
    error = error_of(aidsafe(*(each.format(**names) for each in arguments)), ExitCode.INPUT)
    assert words.format(**names) in error
    assert sorted(tmp_path.iterdir()) == before


def test_an_empty_standard_input_is_an_empty_prompt() -> None:
    assert "prompt is empty" in error_of(aidsafe("chat", "-", stdin=" \n"), ExitCode.INPUT)
    assert "not UTF-8" in error_of(aidsafe("chat", "-", stdin=b"\xff"), ExitCode.INPUT)


def test_every_problem_of_a_file_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BAD_POLICIES)
    done = aidsafe("policies", "check", file)
    assert done.code == ExitCode.INPUT
    assert f"{file}:6" in done.err
    assert "nme" in done.err


def test_a_recipe_with_an_unknown_persona_does_not_pass_the_check(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(BAD_RECIPE)
    assert "no persona 'nobody'" in error_of(aidsafe("recipes", "check", file), ExitCode.INPUT)


def test_a_persona_whose_file_has_another_name_does_not_pass_the_check(tmp_path: Path) -> None:
    file = tmp_path / "night_editor.yaml"
    file.write_text(aidsafe("personas", "show", "drafter").out)
    done = aidsafe("personas", "check", file)
    assert done.code == ExitCode.INPUT
    assert re.search(rf"^{re.escape(str(file))}:\d+: .*'drafter'\. Give both the same", done.err)


def test_an_ambiguous_start_of_an_id_is_reported_with_the_first_ids(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    ids = [json.loads(line)["id"] for line in aidsafe("show", run, "--json").out.splitlines()]
    error = error_of(aidsafe("show", run, "p"), ExitCode.INPUT)
    assert f"ids start with 'p': {', '.join(ids)}. Give more" in error


def test_an_unknown_id_is_reported(tmp_path: Path) -> None:
    error = error_of(aidsafe("show", make_run(tmp_path, 1), "p0"), ExitCode.INPUT)
    assert "no result 'p0'" in error


def test_an_export_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    error = error_of(aidsafe("export", run, "--out", tmp_path / "none" / "x"), ExitCode.INPUT)
    assert "cannot be written" in error


# The endpoint ------------------------------------------------------------------------------------

Command = Callable[[Path, Path], list[str | Path]]
CALLING: dict[str, Command] = {
    "chat": lambda models, _: ["chat", "Hi", "--models", models],
    "run": lambda models, here: [
        *("run", prompts_file(here), "--out", here / "run", "--models", models)
    ],
}


@pytest.mark.parametrize("command", CALLING)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Fault.UNAUTHORIZED,
            "refused the key (401): Incorrect API key provided. Check the key in OPENAI_API_KEY",
        ),
        (Fault.MODEL_NOT_FOUND, "has no model 'm', or not for this use (404)"),
        (
            Fault.SCHEMA_UNSUPPORTED,
            "did not accept the request (400): Invalid parameter: 'response_format'",
        ),
        (Fault.RESET, "closed the connection before"),
    ],
)
def test_an_endpoint_that_accepts_no_call_is_reported_and_nothing_is_created(
    fault: Fault, words: str, command: str, tmp_path: Path
) -> None:
    with Endpoint(fault_rates={fault: 1}) as endpoint:
        done = aidsafe(*CALLING[command](models_file(tmp_path, endpoint), tmp_path))
    prompt = "prompt  Hi\n\n" if command == "chat" else ""
    assert done.out == prompt
    assert words in error_of(Done(done.code, "", done.err), ExitCode.ENDPOINT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", CALLING)
def test_json_of_a_command_that_could_not_start_is_a_whole_document_or_nothing(
    command: str, tmp_path: Path
) -> None:
    with Endpoint(fault_rates={Fault.UNAUTHORIZED: 1}) as endpoint:
        models = models_file(tmp_path, endpoint)
        done = aidsafe(*CALLING[command](models, tmp_path), "--json")
    assert done.code == ExitCode.ENDPOINT
    if command == "run":
        assert done.json["outcomes"] == {}
    else:
        assert done.out == ""


@pytest.mark.parametrize("command", CALLING)
def test_a_dead_endpoint_leaves_no_warnings_about_connections(command: str, tmp_path: Path) -> None:
    with Endpoint() as endpoint:
        models = models_file(tmp_path, endpoint)
    done = finish(start(*CALLING[command](models, tmp_path)))
    assert done.code == ExitCode.ENDPOINT
    assert "cannot be reached" in done.err
    # The notice, the cause, the remedy: no traceback, no "Unclosed client session".
    assert len(done.err.splitlines()) == 3, done.err


def test_without_a_key_the_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    models = models_file(tmp_path, "https://models.example/v1")
    done = aidsafe(*CALLING["run"](models, tmp_path))
    assert "export OPENAI_API_KEY=" in error_of(done, ExitCode.ENDPOINT)


def test_a_chat_whose_endpoint_fails_prints_its_turns(tmp_path: Path) -> None:
    with Endpoint(reply=agree, faults=[None, None]) as endpoint:
        endpoint.fault_rates[Fault.SERVER_ERROR] = 1
        models = models_file(tmp_path, endpoint)
        seen = aidsafe("chat", "Hi", "--models", models)
        endpoint.faults.extend([None, None])
        data = aidsafe("chat", "Hi", "--models", models, "--json")
    assert seen.code == data.code == ExitCode.ENDPOINT
    assert "drafter" in seen.out
    assert "failed: " in seen.out
    assert "answered 500" in seen.err
    record = CoTRecord.model_validate(data.json)
    assert (record.outcome, len(record.turns)) == ("failed", 2)


def test_a_run_whose_endpoint_fails_keeps_its_results(tmp_path: Path) -> None:
    with Endpoint(reply=agree, faults=[None] * CALLS_PER_CHAT) as endpoint:
        endpoint.fault_rates[Fault.RESET] = 1
        run = [*CALLING["run"](models_file(tmp_path, endpoint), tmp_path), "--concurrency", "1"]
        prompts_file(tmp_path, 12)
        done = aidsafe(*run, "--json")
        assert done.code == ExitCode.ENDPOINT
        assert done.json["outcomes"] == {"completed": 1}, "no prompt is blamed"
        assert "closed the connection before" in done.err
        endpoint.fault_rates.clear()
        assert aidsafe(*run, "--json").json["outcomes"] == {"completed": 12}
    assert endpoint.counts["ok"] == 12 * CALLS_PER_CHAT


@pytest.mark.parametrize("command", CALLING)
def test_without_a_completed_record_the_exit_code_is_6(command: str, tmp_path: Path) -> None:
    with Endpoint(reply=lambda _: "I'm sorry, but I can't help with that.") as endpoint:
        done = aidsafe(*CALLING[command](models_file(tmp_path, endpoint), tmp_path))
    assert done.code == ExitCode.NOT_COMPLETED
    assert "refused" in done.out
    assert "Error" not in done.err
    if command == "run":
        assert "aidsafe export" not in done.out, "there is nothing to export"


# The journal -------------------------------------------------------------------------------------


def test_a_folder_without_a_journal_is_no_run(tmp_path: Path) -> None:
    for command in ("show", "export", "status"):
        assert "There is no run in" in error_of(aidsafe(command, tmp_path), ExitCode.JOURNAL)
    dry = [*CALLING["run"](models_file(tmp_path, "http://127.0.0.1:9/v1"), tmp_path), "--dry-run"]
    assert "There is no run in" in error_of(aidsafe(*dry), ExitCode.JOURNAL)


@pytest.mark.parametrize("command", ["show", "export", "run", "status"])
def test_a_damaged_journal_is_reported(command: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    (run / FILE_NAME).write_bytes(b"damaged" * 1000)
    arguments = CALLING["run"](tmp_path / "models.yaml", tmp_path)
    done = aidsafe(*(arguments if command == "run" else [command, run]))
    assert "is damaged" in error_of(done, ExitCode.JOURNAL)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["show"],
        ["export"],
        ["pairs"],
        ["prefer"],
        ["retry", "--outcome", "failed"],
        ["salvage", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_says_which_version_reads_an_older_run(
    command: list[str], tmp_path: Path
) -> None:
    run = make_run(tmp_path, 1)
    for file in run.glob(f"{FILE_NAME}*"):
        file.unlink()
    with closing(sqlite3.connect(run / FILE_NAME)) as db, db:  # as aidsafe 0.1 created it
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO meta VALUES ('schema', '2')")
    name, *options = command
    if name == "salvage":
        options.append(str(tmp_path / "new"))
    error = error_of(aidsafe(name, run, *options), ExitCode.JOURNAL)
    assert f"has schema version 2, and this aidsafe reads version {SCHEMA_VERSION}" in error
    assert "Use aidsafe 0.1 to read it" in error
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_reported_and_results_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Journal._connect_to_write

    def small(self: Journal) -> sqlite3.Connection:
        db = real(self)
        db.execute("PRAGMA max_page_count = 60")
        return db

    monkeypatch.setattr(Journal, "_connect_to_write", small)
    with Endpoint(reply=agree) as endpoint:
        models = models_file(tmp_path, endpoint)
        prompts = prompts_file(tmp_path, 50)
        arguments = ("run", prompts, "--out", tmp_path / "run", "--models", models)
        done = aidsafe(*arguments, "--concurrency", "1")
        kept = len(json.loads(f"[{','.join(lines(aidsafe('show', tmp_path / 'run', '--json')))}]"))
        error = error_of(Done(done.code, "", done.err), ExitCode.JOURNAL)
        assert "database or disk is full" in error
        assert 0 < kept < 50
        monkeypatch.setattr(Journal, "_connect_to_write", real)
        assert aidsafe(*arguments, "--json").json["done_before"] == kept


def lines(done: Done) -> list[str]:
    return done.out.splitlines()


def test_a_run_that_another_process_writes_is_not_opened(tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    journal = Journal(run / FILE_NAME, write=True)
    done = aidsafe(*CALLING["run"](tmp_path / "models.yaml", tmp_path))
    journal.close()
    assert "Another process is writing" in error_of(done, ExitCode.JOURNAL)


# Inside ------------------------------------------------------------------------------------------


def test_an_internal_error_prints_a_traceback_only_if_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> None:
        raise KeyError("oh")

    monkeypatch.delenv("AIDSAFE_DEBUG", raising=False)
    monkeypatch.setattr(cli, "make_app", broken)
    error = error_of(aidsafe("show", "x"), ExitCode.INTERNAL)
    assert "KeyError" in error
    assert "AIDSAFE_DEBUG=1" in error
    monkeypatch.setenv("AIDSAFE_DEBUG", "1")
    monkeypatch.setenv("OF_SOMEBODY_KEY", "a-key-of-the-environment")

    def quoting(_: object) -> None:
        raise KeyError("oh", "a-key-of-the-environment", "sk-proj-AnotherKey0123456789")

    monkeypatch.setattr(cli, "make_app", quoting)
    shown = run_here("show", "x")
    assert "Traceback" in shown.err
    assert "KeyError: ('oh', '***', '***')" in shown.err


def test_errors_contain_no_control_characters_of_file_names(tmp_path: Path) -> None:
    assert "\x1b" not in error_of(aidsafe("show", tmp_path / "a\x1b[31m"), ExitCode.INPUT)


def test_a_package_that_shadows_ours_is_named(tmp_path: Path) -> None:
    fake = tmp_path / "elsewhere" / "agents"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise RuntimeError('somebody else')\n")
    path = os.pathsep.join([str(fake.parent), str(HOME)])
    done = finish(start("--version", env=environment(PYTHONPATH=path), cwd=tmp_path))
    assert done.code == ExitCode.INTERNAL
    assert done.err.startswith("Error: Another package shadows aidsafe's 'agents': it is imported ")
    assert str(fake) in done.err
    assert "pip uninstall openai-agents" in done.err
    assert "Traceback" not in done.err


def test_no_package_shadows_ours_here() -> None:
    assert entry.find_shadowing() is None
    assert entry.PACKAGES == ("policies", "agents")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AidsafeError, 1),
        (InputError, 3),
        (EndpointError, 4),
        (EndpointMisconfigured, 4),
        (RunStopped, 4),
        (JournalError, 5),
        (LimitReached, 7),
        (Interrupted, 130),
    ],
)
def test_every_error_has_its_exit_code(error: type[AidsafeError], code: int) -> None:
    assert exit_code(error("Cause.", "Remedy.")) == code


def test_problems_of_a_yaml_file_are_invalid_input() -> None:
    assert issubclass(YamlError, InputError)
