"""A key is sent only where this user's own commands and scripts send it."""

from __future__ import annotations

import io
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from agents.models.config import EndpointConfig, ModelConfig
from orchestration.api import load_cast, load_pair_cast
from orchestration.cli.exit_codes import ExitCode
from orchestration.runs.folder import SETTINGS_NAME, load_settings, models_of_run
from orchestration.runs.trust import FILE, trust, untrusted
from policies import InputError
from tests.agents.models.habits import HabitServer
from tests.endpoint import Endpoint, Fault
from tests.orchestration.command import aidsafe, make_run, models_file, prompts_file
from tests.orchestration.run_helpers import agree

KEY = "aws-secret-of-this-user"
URL = "http://127.0.0.1:9/v1"


def model(url: str = URL, variable: str = "AWS_SECRET_ACCESS_KEY") -> ModelConfig:
    return ModelConfig(endpoint=EndpointConfig(base_url=url, model="m", api_key_env=variable))


def component(url: str) -> ModelConfig:
    config = {"model": "gpt-4o", "base_url": url, "api_key": "x"}
    provider = "autogen_ext.models.openai.OpenAIChatCompletionClient"
    return ModelConfig(component={"provider": provider, "config": config})


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state_folder: Path) -> Path:
    """A run of somebody else, which names a variable of this user."""
    monkeypatch.setenv("AIDSAFE_STATE_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    with Endpoint(reply=agree, faults=[None] * 6 + [Fault.LENGTH] * 2) as endpoint:
        models = models_file(tmp_path, endpoint, api_key_env="AWS_SECRET_ACCESS_KEY")
        prompts = prompts_file(tmp_path, 2)
        run: list[str | Path] = [prompts, "--out", tmp_path / "run", "--models", models]
        assert aidsafe("run", *run, "--concurrency", "1").code == 0
    monkeypatch.setenv("AIDSAFE_STATE_DIR", str(state_folder))
    return tmp_path / "run"


COMMANDS = {"prefer": [], "retry": ["--outcome", "truncated"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_folder_gets_no_key_that_this_user_has_not_sent_there(
    foreign: Path, command: str
) -> None:
    done = aidsafe(command, foreign, *COMMANDS[command])
    assert done.code == ExitCode.INPUT
    assert "would send the key in AWS_SECRET_ACCESS_KEY to http://127.0.0.1:" in done.err
    assert "--models FILE" in done.err
    assert ("--base-url URL --model NAME" in done.err) == (command == "prefer")
    assert KEY not in done.err
    with pytest.raises(InputError, match="which no command of yours has named"):
        load_pair_cast(foreign)


@pytest.mark.parametrize("command", COMMANDS)
def test_naming_the_models_is_enough_then_and_later(
    foreign: Path, tmp_path: Path, command: str
) -> None:
    named = aidsafe(command, foreign, *COMMANDS[command], "--models", tmp_path / "models.yaml")
    assert "no command of yours" not in named.err
    assert "no command of yours" not in aidsafe(command, foreign, *COMMANDS[command]).err
    load_pair_cast(foreign)


def test_without_a_key_nothing_is_asked(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "  "):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", value)
        assert untrusted(models_of_run(foreign).values()) == []


@pytest.mark.parametrize(("said", "code"), [("y\n", 0), ("n\n", 3), ("", 3), ("\n", 3)])
def test_on_a_terminal_the_user_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, said: str, code: int
) -> None:
    from orchestration.cli.trusting import confirm_models

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setattr(sys, "stdin", Terminal(said))
    monkeypatch.setattr(sys, "stderr", Terminal())
    models = {"default": model()}
    if code:
        with pytest.raises(InputError):
            confirm_models(models, "Name them.")
        assert untrusted(models.values())
    else:
        confirm_models(models, "Name them.")
        monkeypatch.setattr(sys, "stdin", Terminal())
        confirm_models(models, "Name them.")


def test_the_front_door_trusts_what_a_script_names(
    monkeypatch: pytest.MonkeyPatch, state_folder: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    load_cast(models={"default": model()})
    load_cast(model=f"{URL}#m")
    assert untrusted([model(), model(variable="OPENAI_API_KEY")]) == []
    assert len(untrusted([model("http://127.0.0.1:8/v1")])) == 1
    written = (state_folder / FILE).read_text()
    assert KEY not in written
    assert "127.0.0.1" not in written
    assert "AWS" not in written
    if sys.platform != "win32":
        assert stat.S_IMODE((state_folder / FILE).stat().st_mode) == 0o600


def test_openai_is_trusted_with_its_own_variable_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, KEY)
    assert untrusted([model("https://api.openai.com/v1", "OPENAI_API_KEY")]) == []
    for url, variable in (
        ("https://api.openai.com/v1", "AWS_SECRET_ACCESS_KEY"),
        ("http://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://api.openai.com.evil.example/v1", "OPENAI_API_KEY"),
        ("https://api.openai.com:8443/v1", "OPENAI_API_KEY"),
    ):
        assert len(untrusted([model(url, variable)])) == 1


def test_components_find_their_keys_themselves_and_are_trusted_as_a_whole() -> None:
    assert len(untrusted([component("http://evil.example/v1")])) == 1
    trust([component("http://mine.example/v1")])
    stored = ModelConfig.model_validate(component("http://mine.example/v1").public())
    assert untrusted([stored]) == []
    assert len(untrusted([component("http://evil.example/v1")])) == 1


@pytest.mark.parametrize("place", ["file/below", "readonly"])
def test_a_state_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "readonly").mkdir()
    monkeypatch.setenv("AIDSAFE_STATE_DIR", str(tmp_path / place))
    if place == "readonly":
        (tmp_path / "readonly" / FILE).mkdir()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    trust([model()])
    assert len(untrusted([model()])) == 1


# run.yaml ----------------------------------------------------------------------------------------

HOSTILE = {
    "a bomb": "".join(
        f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else 'x'] * 9)}]\n" for n in range(9)
    )
    + "models: *k8\n",
    "a recursive alias": "models: &m {a: *m}\n",
    "a merge key": "models: {<<: {a: 1}}\n",
    "a tag": "models: !!python/object/apply:os.system ['true']\n",
    "too deep": "models: " + "[" * 5000 + "]" * 5000 + "\n",
    "another run's": None,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("with_journal", [True, False])
def test_a_run_yaml_that_aidsafe_did_not_write_is_refused(
    tmp_path: Path, name: str, with_journal: bool
) -> None:
    folder = make_run(tmp_path)
    file = folder / SETTINGS_NAME
    text = HOSTILE[name]
    if text is None:
        if not with_journal:
            pytest.skip("it cannot be told then")
        text = file.read_text().replace("m\n", "other\n", 1)
    file.write_text(text)
    if with_journal:
        for command in COMMANDS:
            done = aidsafe(command, folder, *COMMANDS[command])
            assert done.code == ExitCode.INPUT
            assert "run.yaml was changed since aidsafe wrote it" in done.err
    else:
        for journal in folder.glob("journal*"):
            journal.unlink()
        with pytest.raises(InputError, match=r"run\.yaml cannot be read \("):
            load_settings(folder)


def test_a_settings_file_without_bounds_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path)
    monkeypatch.setattr("orchestration.runs.folder._MOST_BYTES", 100)
    with pytest.raises(InputError, match="cannot be read"):
        load_settings(folder)


# All sources and all sinks -----------------------------------------------------------------------

SECRETS = {
    "environment": "the-key-of-the-environment",
    "header": "NotARealKey0123456789abcdef",
    "query": "the-key-in-the-query",
}


def test_no_key_reaches_a_file_an_export_or_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = " ".join(SECRETS.values())

    def echo(body: dict[str, Any]) -> tuple[int, Any] | None:
        """A gateway that sends back all that it was sent, in replies and errors alike."""
        said = agree(body)
        for field in ("response", "comment"):
            if isinstance(said.get(field), str):
                said[field] = everything
        if len(server.bodies) > 13:
            return 500, {"error": {"message": f"upstream said: {everything}"}}
        message = {"role": "assistant", "content": json.dumps(said)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
        return 200, {"id": "c", "model": everything, "choices": [choice], "usage": usage}

    monkeypatch.setenv("OF_THE_ENDPOINT", SECRETS["environment"])
    with HabitServer(echo) as server:
        models = models_file(
            tmp_path,
            server.base_url,
            api_key_env="OF_THE_ENDPOINT",
            headers={"X-Gateway": SECRETS["header"]},
            query={"subscription-key": SECRETS["query"], "api-version": "2024-10-21"},
        )
        run: list[str | Path] = [prompts_file(tmp_path, 3), "--out", tmp_path / "run"]
        run += ["--models", models]
        shown = [aidsafe("run", *run, "--concurrency", "1")]
    assert server.headers[0]["authorization"] == f"Bearer {SECRETS['environment']}"
    assert server.headers[0]["x-gateway"] == SECRETS["header"]
    assert f"subscription-key={SECRETS['query']}" in server.queries[0]
    folder = tmp_path / "run"
    shown += [
        aidsafe("show", folder, "--json"),
        aidsafe("status", folder, "--json"),
        aidsafe("export", folder, "--format", "records"),
        aidsafe("export", folder, "--format", "sft"),
        aidsafe("retry", folder, "--outcome", "failed"),
    ]
    assert '"outcome":"completed"' in shown[3].out.replace(" ", "")
    assert "2024-10-21" in (folder / SETTINGS_NAME).read_text()
    stored = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for secret in SECRETS.values():
        assert secret.encode() not in stored
        assert all(secret not in done.out + done.err for done in shown)
