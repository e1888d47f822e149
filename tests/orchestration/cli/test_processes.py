"""The command as a process: interruption and pipes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.cli.exit_codes import ExitCode
from orchestration.cli.session import RESUME
from tests.endpoint import Endpoint, Fault
from tests.orchestration.command import (
    Done,
    aidsafe,
    environment,
    finish,
    make_run,
    models_file,
    prompts_file,
    start,
)
from tests.orchestration.run_helpers import CALLS_PER_CHAT, agree

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """An endpoint that serves one chat, and then hangs until it is changed."""
    with Endpoint(reply=agree, faults=[None] * CALLS_PER_CHAT) as endpoint:
        endpoint.fault_rates[Fault.HANG] = 1
        yield endpoint


def started(endpoint: Endpoint, folder: Path, *more: str) -> subprocess.Popen[str]:
    """A run of three prompts, one at a time: one chat has ended, the second is in progress."""
    models = models_file(folder, endpoint)
    run = ("run", prompts_file(folder), "--out", folder / "run", "--models", models)
    process = start(*run, "--concurrency", "1", *more)
    wait_for(process, lambda: endpoint.counts[Fault.HANG] > 0)
    return process


def wait_for(process: subprocess.Popen[str], condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def resume(endpoint: Endpoint, folder: Path) -> Done:
    """The same command again, with an endpoint that answers."""
    endpoint.fault_rates.clear()
    models = folder / "models.yaml"
    return aidsafe(
        "run", folder / "prompts.txt", "--out", folder / "run", "--models", models, "--json"
    )


# Ctrl-C ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_finishes_the_calls_in_flight(number: signal.Signals, tmp_path: Path) -> None:
    with Endpoint(reply=agree, latency=0.15) as endpoint:
        process = start(
            *("run", prompts_file(tmp_path), "--out", tmp_path / "run", "--concurrency", "1"),
            *("--models", models_file(tmp_path, endpoint), "--json"),
        )
        wait_for(process, lambda: len(endpoint.calls) > 0)
        process.send_signal(number)
        done = finish(process)
        assert done.code == ExitCode.INTERRUPTED
        assert (done.json["phase"], done.json["why_stopped"]) == ("stopped", None)
        assert (done.json["outcomes"], done.json["pending"]) == ({}, 3)
        assert "calls in flight are finished first" in done.err
        assert done.err.endswith(f"Stopped.\n{RESUME}\n")
        assert 1 <= endpoint.counts["ok"] < CALLS_PER_CHAT
        assert done.json["calls"] == endpoint.counts["ok"], "replies in flight are stored"
        endpoint.latency = 0
        assert resume(endpoint, tmp_path).json["outcomes"] == {"completed": 3}
    assert endpoint.counts == {"ok": 3 * CALLS_PER_CHAT}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_stop_at_once(
    number: signal.Signals, endpoint: Endpoint, tmp_path: Path
) -> None:
    process = started(endpoint, tmp_path)
    assert process.stderr is not None
    process.send_signal(number)
    for line in process.stderr:
        if "Ctrl-C again stops now" in line:
            break
    process.send_signal(number)
    done = finish(process)
    assert done.code == ExitCode.INTERRUPTED
    assert done.err == f"Interrupted.\n{RESUME}\n"
    assert "completed" in done.out
    again = resume(endpoint, tmp_path)
    assert again.json["outcomes"] == {"completed": 3}
    assert again.json["done_before"] == 1
    assert endpoint.counts["ok"] == 3 * CALLS_PER_CHAT


def test_one_signal_stops_a_chat_at_once(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.faults.clear()
    process = start("chat", "Hi", "--models", models_file(tmp_path, endpoint))
    wait_for(process, lambda: endpoint.counts[Fault.HANG] > 0)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == ExitCode.INTERRUPTED
    assert done.err.splitlines()[1:] == ["Interrupted."], "no traceback, no open connection"


def test_a_killed_run_can_be_resumed(endpoint: Endpoint, tmp_path: Path) -> None:
    process = started(endpoint, tmp_path)
    seen = aidsafe("status", tmp_path / "run", "--json").json
    assert (seen["phase"], seen["outcomes"]) == ("running", {"completed": 1})
    process.kill()
    process.communicate()
    seen = aidsafe("status", tmp_path / "run", "--json").json
    assert seen["phase"] == "stopped"
    assert seen["why_stopped"] == "Its process ended without updating the status."
    assert seen["outcomes"] == {"completed": 1}
    again = resume(endpoint, tmp_path)
    assert again.json["done_before"] == 1
    assert endpoint.counts["ok"] == 3 * CALLS_PER_CHAT


# Pipes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("pipes"), 40)


PIPED: dict[str, list[str]] = {
    "export": ["export", "{run}"],
    "show": ["show", "{run}", "--json"],
    "show one": ["show", "{run}", "{id}", "--instructions"],
    "policies": ["policies", "show", "aidsafe"],
    "schema": ["schema", "record"],
}


@pytest.mark.parametrize("name", PIPED)
def test_a_closed_pipe_ends_the_command_quietly(name: str, run: Path) -> None:
    first = json.loads(aidsafe("show", run, "--json", "--limit", "1").out)["id"]
    process = start(*(each.format(run=run, id=first) for each in PIPED[name]))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == ExitCode.GOOD
    process.stderr.close()


def test_only_results_are_on_standard_output(run: Path) -> None:
    done = finish(start("show", run, env=environment(TERM="xterm-256color")))
    assert done.err == ""
    assert "\x1b" not in done.out
    assert len(done.out.splitlines()) == 41


def test_any_character_can_be_printed_in_any_locale(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    record = json.loads(aidsafe("show", run, "--json", "--limit", "1").out)
    file.write_text(json.dumps({**record, "prompt": "Grüße 日本"}))
    done = finish(start("show", file, env=environment(PYTHONIOENCODING="ascii")))
    assert (done.code, done.err) == (ExitCode.GOOD, "")
    assert "Gr\\xfc\\xdfe" in done.out
