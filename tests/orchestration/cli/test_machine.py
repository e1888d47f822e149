"""The machine: signals, standard streams, disks, memory and paths, as processes meet them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.cli.exit_codes import ExitCode, exit_code
from orchestration.cli.machine import of_the_machine
from orchestration.journal import FILE_NAME
from policies import AidsafeError
from tests.endpoint import Endpoint
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

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("machine"), 3)


def state(folder: Path) -> dict[str, bytes]:
    return {str(f): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def command(folder: Path, endpoint: Endpoint, concurrency: int = 1) -> list[str]:
    """A run of six prompts."""
    prompts, models = prompts_file(folder, 6), models_file(folder, endpoint)
    options = f"--out {folder / 'run'} --concurrency {concurrency} --models {models} --json"
    return ["run", str(prompts), *options.split()]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_was_ignored_from_the_start_stays_ignored(
    number: signal.Signals, tmp_path: Path
) -> None:
    with Endpoint(reply=agree, latency=0.05) as endpoint:
        process = start(
            *command(tmp_path, endpoint), preexec_fn=lambda: signal.signal(number, signal.SIG_IGN)
        )
        wait_until(lambda: len(endpoint.calls) > 2)
        process.send_signal(number)
        done = finish(process)
    assert done.code == ExitCode.GOOD, done.err
    assert done.json["outcomes"] == {"completed": 6}


COMMANDS = {
    "show": ["show", "{run}"],
    "export": ["export", "{run}"],
    "salvage": ["salvage", "{run}", "--out", "{new}"],
    "standard input of run": ["run", "-", "--out", "{new}"],
    "standard input of show": ["show", "-"],
    "standard input of chat": ["chat", "-"],
    "help": ["--help"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_any_command_at_any_time_without_a_traceback(
    name: str, run: Path, tmp_path: Path
) -> None:
    codes = []
    for delay in (0.15, 0.5, 1.0, 2.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli.entry"]
            + [word.format(run=run, new=tmp_path / "new") for word in COMMANDS[name]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        try:
            allowed = (ExitCode.INTERRUPTED, ExitCode.GOOD, -signal.SIGINT)
            assert process.wait(20) in allowed
        finally:
            process.kill()
        assert process.stderr is not None
        err = process.stderr.read()
        assert "entry.py" not in err, "a traceback, but not of Python's own start"
        assert "Error" not in err
        codes.append(process.returncode)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
    assert ExitCode.INTERRUPTED in codes
    if "input" in name:
        assert set(codes[1:]) == {ExitCode.INTERRUPTED}


def test_ctrl_c_ends_a_run_that_waits_for_standard_input(tmp_path: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        words = command(tmp_path, endpoint)
        words[1] = "-"
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.cli.entry", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert process.stdin is not None
        process.stdin.write("One prompt?\n")
        process.stdin.flush()
        wait_until(lambda: endpoint.counts["ok"] == CALLS_PER_CHAT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(20) == ExitCode.INTERRUPTED
        finally:
            process.kill()
        out, err = process.communicate()
    assert json.loads(out)["outcomes"] == {"completed": 1}
    assert "Traceback" not in err
    assert "Fatal" not in err


# Folders that go ---------------------------------------------------------------------------------


@pytest.mark.parametrize("happening", ["removed", "moved", "replaced"])
def test_a_run_whose_folder_goes_stops_at_once(happening: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Endpoint(reply=agree, latency=0.05) as endpoint:
        process = start(*command(tmp_path, endpoint))
        wait_until(lambda: endpoint.counts["ok"] > 2)
        before = endpoint.counts["ok"]
        if happening == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "moved")
        if happening == "replaced":
            folder.mkdir()
            (folder / "mine").write_text("x")
        done = finish(process)
        assert done.code == ExitCode.JOURNAL
        assert "was removed, moved or replaced" in done.err
        assert endpoint.counts["ok"] <= before + 3
        if happening == "replaced":
            assert [file.name for file in folder.iterdir()] == ["mine"]
        if happening == "moved":
            (tmp_path / "moved").rename(folder)
            again = aidsafe(*command(tmp_path, endpoint))
            assert again.json["outcomes"] == {"completed": 6}


# Outputs -----------------------------------------------------------------------------------------


def hard_link(run: Path, work: Path) -> Path:
    os.link(run / FILE_NAME, work / "out.jsonl")
    return work / "out.jsonl"


def soft_link(run: Path, work: Path) -> Path:
    (work / "out.jsonl").symlink_to(run / "run.yaml")
    return work / "out.jsonl"


def linked_folder(run: Path, work: Path) -> Path:
    (work / "link").symlink_to(run)
    return work / "link" / "summary.json"


OUTPUTS: dict[str, Callable[[Path, Path], Path]] = {
    "the journal": lambda run, _: run / FILE_NAME,
    "its log": lambda run, _: run / f"{FILE_NAME}-wal",
    "its lock": lambda run, _: run / "journal.lock",
    "settings": lambda run, _: run / "run.yaml",
    "status": lambda run, _: run / "status.json",
    "roundabout": lambda run, _: run / ".." / run.name / FILE_NAME,
    "a hard link": hard_link,
    "a link": soft_link,
    "a linked folder": linked_folder,
    "the prompts": lambda run, _: run.parent / "prompts.txt",
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_export_overwrites_what_a_run_consists_of(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    work = tmp_path / "work"
    work.mkdir()
    out = OUTPUTS[name](run, work)
    before = state(tmp_path)
    done = aidsafe("export", run, "--out", out)
    assert done.code == ExitCode.INPUT
    assert state(tmp_path) == before
    (work / "out.jsonl").unlink(missing_ok=True)
    (work / "new").touch()
    redirected = out if out.exists() else work / "new"
    with redirected.open("ab") as stream:
        appended = subprocess.run(
            [sys.executable, "-m", "orchestration.cli.entry", "export", str(run)],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert (appended.returncode == ExitCode.INPUT) == out.exists(), appended.stderr
    assert aidsafe("export", run, "--out", run / "records.jsonl").code == ExitCode.GOOD


@pytest.mark.parametrize("to", [FILE_NAME, "run.yaml", f"{FILE_NAME}-wal", "../prompts.txt"])
@pytest.mark.parametrize(
    "words",
    [
        ["salvage", "{run}", "--out"],
        ["run", "{prompts}", "--out"],
        ["plan", "{prompts}", "--out"],
        ["prefer", "{run}", "--out"],
    ],
    ids=lambda words: words[0],
)
def test_no_new_folder_takes_the_place_of_a_file(
    words: list[str], to: str, run: Path, tmp_path: Path
) -> None:
    before = state(run.parent)
    names = {"run": run, "prompts": run.parent / "prompts.txt"}
    done = aidsafe(*(word.format(**names) for word in words), run / to)
    assert done.code == ExitCode.INPUT, done.err
    assert state(run.parent) == before
    assert not (run / f"{FILE_NAME}-wal").exists()


@pytest.mark.parametrize("name", ["export", "show", "status", "pairs"])
def test_commands_that_read_change_nothing(name: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, 1)
    before = state(tmp_path)
    aidsafe(name, run)
    assert state(tmp_path) == before


PRINTING = {
    "show": ["show", "{run}"],
    "show as JSON": ["show", "{run}", "--json"],
    "status": ["status", "{run}"],
    "status as JSON": ["status", "{run}", "--json"],
    "export": ["export", "{run}"],
    "schema": ["schema", "record"],
    "help": ["--help"],
    "policies": ["policies", "show", "aidsafe"],
}


@pytest.mark.parametrize("name", PRINTING)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk_behind_standard_output_is_the_disks_error(name: str, run: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "orchestration.cli.entry"]
            + [word.format(run=run) for word in PRINTING[name]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            check=False,
        )
    assert done.returncode == ExitCode.JOURNAL
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16", "latin-1"])
@pytest.mark.parametrize("name", ["export", "show as JSON", "status as JSON", "schema"])
def test_json_is_utf_8_in_any_locale(name: str, encoding: str, run: Path, tmp_path: Path) -> None:
    words = [word.format(run=run) for word in PRINTING[name]]
    if "record" in name or name in ("export", "show as JSON"):
        with Endpoint(reply=agree) as endpoint:
            prompts = tmp_path / "prompts.txt"
            prompts.write_text("Wo ist das Café? 🙂 日本\n", encoding="utf-8")
            folder = tmp_path / "Grüße"
            models = models_file(tmp_path, endpoint)
            aidsafe("run", prompts, "--out", folder, "--models", models)
        words[1] = str(folder)
    process = subprocess.run(
        [sys.executable, "-m", "orchestration.cli.entry", *words],
        capture_output=True,
        env=environment(PYTHONIOENCODING=encoding),
        check=False,
    )
    assert process.returncode == ExitCode.GOOD, process.stderr
    text = process.stdout.decode()
    found = json.loads(text)
    if "Café" in str(found) or name in ("export", "show as JSON"):
        assert found["prompt"] == "Wo ist das Café? 🙂 日本"


# Paths -------------------------------------------------------------------------------------------

LONG = "x" * 300
PATHS = {
    "status": ["status", "{path}"],
    "show": ["show", "{path}"],
    "export": ["export", "{path}"],
    "export to it": ["export", "{run}", "--out", "{path}"],
    "salvage": ["salvage", "{path}", "--out", "{new}"],
    "salvage to it": ["salvage", "{run}", "--out", "{path}"],
    "pairs": ["pairs", "{path}"],
    "prefer": ["prefer", "{path}"],
    "retry": ["retry", "{path}", "--outcome", "failed"],
    "run": ["run", "{prompts}", "--out", "{path}"],
    "prompts": ["run", "{path}", "--out", "{new}"],
    "models": ["run", "{prompts}", "--out", "{new}", "--models", "{path}"],
    "policies": ["run", "{prompts}", "--out", "{new}", "--policies", "{path}.yaml"],
    "personas": ["run", "{prompts}", "--out", "{new}", "--personas", "{path}"],
}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_that_no_system_takes_is_invalid_input(name: str, run: Path, tmp_path: Path) -> None:
    names = {
        "path": tmp_path / LONG,
        "run": run,
        "new": tmp_path / "new",
        "prompts": prompts_file(tmp_path),
    }
    done = aidsafe(*(word.format(**names) for word in PATHS[name]))
    assert done.code == ExitCode.INPUT, done.err
    assert "Error: " in done.err


# Errors of the machine ---------------------------------------------------------------------------

ERRORS: dict[str, tuple[Exception, ExitCode | None]] = {
    "memory": (MemoryError(), ExitCode.JOURNAL),
    "memory of the system": (OSError(errno.ENOMEM, "Cannot allocate memory"), ExitCode.JOURNAL),
    "threads": (RuntimeError("can't start new thread"), ExitCode.JOURNAL),
    "disk": (OSError(errno.ENOSPC, "No space left on device", "f"), ExitCode.JOURNAL),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), ExitCode.JOURNAL),
    "a broken disk": (OSError(errno.EIO, "Input/output error", "f"), ExitCode.JOURNAL),
    "a long name": (OSError(errno.ENAMETOOLONG, "File name too long", LONG), ExitCode.INPUT),
    "permissions": (PermissionError(errno.EACCES, "Permission denied", "f"), ExitCode.INPUT),
    "a loop": (OSError(errno.ELOOP, "Too many levels of symbolic links", "f"), ExitCode.INPUT),
    "no file": (FileNotFoundError(errno.ENOENT, "No such file", "f"), ExitCode.INPUT),
    "a mistake": (KeyError("x"), None),
    "another mistake": (RuntimeError("x"), None),
    "no number": (OSError("x"), None),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_the_machine_are_not_reported_as_aidsafes(name: str) -> None:
    error, code = ERRORS[name]
    found = of_the_machine(error)
    assert (None if found is None else exit_code(found)) == code
    if found is not None:
        assert isinstance(found, AidsafeError)
        assert found.remedy
        assert len(found.cause) < 300


@pytest.mark.parametrize("mebibytes", [450, 550, 650, 800])
def test_with_little_memory_a_run_ends_and_its_journal_is_sound(
    mebibytes: int, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    def long(body: dict[str, object]) -> dict[str, object]:
        return {**agree(body), "filler": "x" * 4_000_000}

    with Endpoint(reply=long) as endpoint:
        done: Done = finish(start(*command(tmp_path, endpoint, 6), preexec_fn=limit))
    # Where Python notices; extensions in Rust abort.
    assert done.code in (0, 1, 4, 5, 6, -signal.SIGABRT), done.err
    if (tmp_path / "run" / FILE_NAME).exists():
        assert "is sound" in aidsafe("salvage", tmp_path / "run", "--out", tmp_path / "s").out
