"""What the measurements rest on: scripts, schedules and the table."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import ours
from tests.bench.__main__ import NAMES, main
from tests.bench.memory import CLOSED_FOR, Progress
from tests.bench.replies import calls_of, prompt_texts, varied
from tests.bench.saturation import schedule
from tests.bench.table import Row, as_markdown, as_text
from tests.endpoint import Endpoint


def test_a_schedule_begins_the_next_when_a_slot_is_free() -> None:
    assert schedule([3, 1, 1, 1, 2], slots=2) == 5
    assert schedule([3, 1], slots=9) == 3


async def test_chats_are_as_long_as_their_script_says(tmp_path: Path) -> None:
    prompts = list(prompt_texts(40))
    with Endpoint(reply=varied, keep_bodies=False) as endpoint:
        await ours.run(tmp_path / "run", ours.make_cast(endpoint.base_url), prompts, 8)
    found = ours.finished(tmp_path / "run")
    assert {outcome for outcome, _ in found} == {"completed"}
    assert sorted(n for _, n in found) == sorted(calls_of(place) for place in range(40))
    assert {calls_of(place) for place in range(1_000)} == set(range(6, 15))


READER = """
import os, sys
first = open(sys.argv[1]).readline()
print("peeked", flush=True), input()
file = os.open(sys.argv[1], os.O_RDONLY)
os.read(file, 50)
print("half", flush=True), input()
os.read(file, 50), os.close(file)
print("all", flush=True), input()
"""


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="asks Linux")
def test_how_far_a_process_has_read_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("0123456789\n" * 9 + "\n")
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", READER, str(file)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        progress = Progress(process.pid, file)
        shares = {}
        assert progress.look() == 0, "it is still starting"
        for line in process.stdout:
            shares[line.strip()] = progress.look()
            if line == "all\n":
                time.sleep(CLOSED_FOR)
                shares["closed"] = progress.look()
            process.stdin.write("\n")
            process.stdin.flush()
    assert shares == {"peeked": 0, "half": 0.5, "all": 0.5, "closed": 1}


ROWS = [Row("speed", "2 ms", "9 ms", "≤ 3 ms", True), Row("a|b", "1", target="≤ 0", met=False)]


def test_the_table_as_text() -> None:
    _, head, speed, other = as_text(ROWS).splitlines()
    assert head.split() == ["aidsafe", "stock", "AutoGen", "target"]
    assert speed.endswith("≤ 3 ms  met")
    assert other.endswith("MISSED")


def test_the_table_as_markdown() -> None:
    assert as_markdown(ROWS).splitlines()[-2:] == [
        "| speed | 2 ms | 9 ms | ≤ 3 ms | met |",
        "| a\\|b | 1 |  | ≤ 0 | MISSED |",
    ]


def test_every_measurement_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(NAMES)
    assert all(line.endswith(".") for line in lines)
