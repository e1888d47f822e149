"""The command `aidsafe salvage`, and runs that are resumed after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME
from orchestration.journal.schema import chat_of
from tests.endpoint import Endpoint
from tests.orchestration.command import aidsafe
from tests.orchestration.damaged import (
    chat,
    check_sound,
    damage,
    lost,
    make,
    overwritten,
    root_of,
    rows_of,
    salvaged,
    spoilt,
    truth,
)
from tests.orchestration.journals import tamper
from tests.orchestration.run_helpers import agree, cast_at, execute, prompts, records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "saved" / "run"


def test_the_command_prints_what_a_flipped_bit_cost(run: Path, to: Path) -> None:
    damage(run, spoilt("Reply 2 to 17"))
    done = aidsafe("salvage", run, "--out", to)
    [key] = lost(rows_of(to / FILE_NAME))["calls"]
    assert truth()["calls"][key][1] == chat(17)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    for line in ("recovered damaged not found", "prompts 48 0 0", "replies 191 1 0"):
        assert line.split() in lines
    assert ["Status:", "aidsafe", "status", str(to)] in lines


def test_the_command_prints_json(run: Path, to: Path) -> None:
    assert "is sound" in aidsafe("salvage", run, "--out", to).out
    assert aidsafe("salvage", run, "-o", to, "--json").json == {"sound": True}
    assert {file.name for file in run.parent.iterdir()} == {"run"}
    damage(run, overwritten(1))
    tables = aidsafe("salvage", run, "-o", to, "--json").json["tables"]
    assert tables["calls"] == {"recovered": 192, "damaged": 0, "not_found": 0}


def test_lost_settings_and_sums_are_reported(run: Path, to: Path) -> None:
    for table in ("meta", "spend"):
        damage(run, overwritten(root_of(table)))
    done = aidsafe("salvage", run, "--out", to)
    assert "The run's settings are lost" in done.out
    assert "The sums of what was spent are lost" in done.out


@pytest.mark.parametrize("content", [b"nothing" * 999, None])
def test_a_run_without_anything_intact_is_an_error(
    content: bytes | None, run: Path, to: Path
) -> None:
    (run / FILE_NAME).unlink()
    if content is not None:
        (run / FILE_NAME).write_bytes(content)
    done = aidsafe("salvage", run, "--out", to)
    assert (done.code, done.out) == (3 if content is None else 5, "")
    assert ("no journal" if content is None else "Restore it from a backup") in done.err
    assert {file.name for file in run.parent.iterdir()} == {"run"}


async def test_a_resumed_run_requests_no_reply_that_was_recovered(tmp_path: Path, to: Path) -> None:
    run = tmp_path / "run"
    with Endpoint(reply=agree) as endpoint:
        await execute(run, cast_at(endpoint), prompts(12))
        before = {record.id: record.thoughts for record in records(run)}
        paid = endpoint.counts["ok"]
        for how in (overwritten(1), spoilt('"id":"p3","prompt"'), spoilt('"id":"p7","prompt"')):
            damage(run, how)
        _, found = salvaged(run, to)
        assert {*range(12)} - {*found["results"]} == {3, 7}
        await execute(to, cast_at(endpoint), prompts(12))
        assert endpoint.counts["ok"] == paid
    assert {record.id: record.thoughts for record in records(to)} == before


@pytest.mark.parametrize("lost", [[5], [11], [2, 3, 9], range(12)])
async def test_prompts_that_are_lost_use_their_replies_once_they_are_read_again(
    lost: Sequence[int], tmp_path: Path, to: Path
) -> None:
    run = tmp_path / "run"
    with Endpoint(reply=agree) as endpoint:
        await execute(run, cast_at(endpoint), prompts(12))
        before = {record.id: (record.prompt, record.thoughts) for record in records(run)}
        paid = endpoint.counts["ok"]
        for n in lost:
            damage(run, spoilt(f"Prompt {n}?{{}}"))
        done, found = salvaged(run, to)
        assert {*range(12)} - {*found["prompts"]} == {*lost} == {*range(12)} - {*found["results"]}
        assert done.spend
        await execute(to, cast_at(endpoint), prompts(12))
        check_sound(to / FILE_NAME)
        assert endpoint.counts["ok"] == paid
    assert {record.id: (record.prompt, record.thoughts) for record in records(to)} == before


async def test_only_lost_replies_are_requested_again(tmp_path: Path, to: Path) -> None:
    run = tmp_path / "run"
    with Endpoint(reply=agree) as endpoint:
        await execute(run, cast_at(endpoint), prompts(12))
        paid = endpoint.counts["ok"]
        damage(run, spoilt('"id":"p3","prompt"'))
        chat = chat_of(rows_of(run / FILE_NAME)["prompts"][3][2])
        calls = rows_of(run / FILE_NAME)["calls"]
        last = max(call for call, row in calls.items() if row[1] == chat)
        tamper(run / FILE_NAME, f"UPDATE calls SET model = 'other' WHERE call = {last}")
        done, _ = salvaged(run, to)
        assert done.tables["calls"].damaged == 1
        await execute(to, cast_at(endpoint), prompts(12))
        assert endpoint.counts["ok"] == paid + 1
