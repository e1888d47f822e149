"""What `aidsafe salvage` promises: damage costs what was damaged, and nothing else."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agents.turns import Usage
from orchestration.journal import FILE_NAME, Journal, JournalError
from orchestration.journal.salvage import salvage
from policies import ExitCode, InputError
from tests.endpoint import Endpoint
from tests.orchestration.command import aidsafe
from tests.orchestration.damaged import (
    CALLS_EACH,
    PAGE,
    PRICE,
    PROMPTS,
    SETTINGS,
    answer_of,
    chat,
    damage,
    lost,
    make,
    overwritten,
    record_of,
    rows_of,
    salvaged,
    saved,
    snapshot,
    spoilt,
    truth,
    whole,
)
from tests.orchestration.runs import agree, cast_at, execute, prompts, records


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "saved" / "run"


# The new journal ---------------------------------------------------------------------------------


def test_a_prompt_comes_back_from_its_record_as_done_only_if_that_is_of_now(
    run: Path, tmp_path: Path
) -> None:
    """Where policies have changed meanwhile, all prompts were taken up again, this one too."""

    def lose_the_prompt(content: bytearray) -> None:
        content[:] = re.sub(rb'(?<!")Prompt 17: ', b"Prampt 17: ", content)

    for recipe, done_now in (("0", True), ("new", False)):
        (run / FILE_NAME).write_bytes(whole())
        with closing(Journal(run / FILE_NAME, write=True)) as journal:
            asyncio.run(journal.keep_record(0, record_of(0, "2026-11-25", recipe)))
        damage(run, lose_the_prompt)
        assert salvaged(run, tmp_path / recipe)[0].rebuilt == 1
        with closing(Journal(tmp_path / recipe / FILE_NAME)) as new:
            assert ("p17" in {r.id for r in new.records()}) is done_now
            assert (17 in {w.number for w in new.waiting(1, -1, 100)}) is not done_now


def test_the_new_journal_is_one_to_go_on_with(run: Path, to: Path) -> None:
    damage(run, overwritten(1))
    saved(run, to)
    with closing(Journal(to / FILE_NAME, write=True)) as journal:
        assert [r.id for r in journal.records()] == [f"p{n}" for n in range(PROMPTS - 1)]
        assert journal.outcomes() == {"failed": 4, "completed": 19}
        assert journal.meta("settings") == SETTINGS
        assert [w.id for w in journal.waiting(1, -1, 100)] == [f"p{PROMPTS - 1}"]
        assert journal.answers(chat(7))[bytes([7, 2]) * 8] == answer_of(7, 2)
        [spent] = journal.spend()
        assert (spent.calls, spent.price) == (PROMPTS * CALLS_EACH, PRICE)
        asyncio.run(journal.keep_call(chat(0), b"k" * 16, "m", PRICE, answer_of(0, 9)))
    with closing(sqlite3.connect(to / FILE_NAME)) as db:  # so that lost prompts are read again
        assert db.execute("SELECT source, complete FROM sources").fetchall() == [(1, 0)]
    for name in ("run.yaml", "summary.json"):
        assert (to / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize(
    "text",
    ["[24, 0, 0, []]", '{"policies": {"one"', "p17", "Prompt 17: ", '{"row": 17}', "Reply 1 to 17"],
)
def test_a_row_that_is_damaged_does_not_pass_for_sound(run: Path, to: Path, text: str) -> None:
    damage(run, spoilt(text))
    salvaged(run, to)
    assert salvage(to, to.parent / "again") is None, "what was brought out is sound"


def test_accounts_and_sources_that_are_lost(run: Path, to: Path) -> None:
    for there in (whole().rindex(PRICE.encode()), whole().index(b'["prompts.jsonl"')):
        damage(run, overwritten(there // PAGE + 1))
    assert not saved(run, to)[0].spend
    with closing(Journal(to / FILE_NAME)) as journal:
        [spent] = journal.spend()
    calls, cached = PROMPTS * CALLS_EACH, CALLS_EACH * sum(range(PROMPTS))
    tokens = {"prompt_tokens": 100 * calls, "completion_tokens": 10 * calls}
    assert spent == ("m", "", calls, Usage(cached_tokens=cached, **tokens))  # from the replies
    with closing(sqlite3.connect(to / FILE_NAME)) as db:  # no other source gets its number
        assert db.execute("SELECT source, spec FROM sources").fetchall() == [(1, "null")]


# What cannot be ----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 99_999, Random(1).randbytes(99_999), None])
def test_where_nothing_is_nothing_is_brought_out(run: Path, to: Path, content: Any) -> None:
    code, told = ExitCode.JOURNAL, "is intact.\nRestore it from a copy."
    (run / FILE_NAME).write_bytes(content or b"")
    if content is None:
        (run / FILE_NAME).unlink()
        code, told = ExitCode.INPUT, "no journal"
    done = aidsafe("salvage", run, "--out", to)
    assert (done.code, done.out, told in done.err) == (code, "", True)
    assert {file.name for file in run.parent.iterdir()} == {"run"}, "nothing is left behind"


@pytest.mark.parametrize("target", ["run", "run/inside", "full", "full/file"])
def test_the_new_folder_must_be_new(run: Path, target: str) -> None:
    (run.parent / "full").mkdir()
    (run.parent / "full" / "file").touch()
    damage(run, overwritten(1))
    before = snapshot(run)
    with pytest.raises(InputError):
        salvage(run, run.parent / target)
    assert snapshot(run) == before


def test_a_journal_of_another_version_is_not_read(run: Path, to: Path) -> None:
    with closing(sqlite3.connect(run / FILE_NAME)) as db, db:
        db.execute("UPDATE meta SET value = '77' WHERE key = 'schema'")
    for how in (lambda content: None, overwritten(1)):
        damage(run, how)
        with pytest.raises(JournalError, match="schema version 77"):
            salvage(run, to)


def test_a_run_that_is_being_written_is_left_alone(run: Path, to: Path) -> None:
    journal = Journal(run / FILE_NAME, write=True)
    with closing(journal), pytest.raises(JournalError, match="Another process"):
        salvage(run, to)


# The command -------------------------------------------------------------------------------------


def test_the_command_says_that_a_flipped_bit_cost_one_reply(run: Path, to: Path) -> None:
    damage(run, spoilt("Reply 2 to 17"))
    done = aidsafe("salvage", run, "--out", to)
    [key] = lost(rows_of(to / FILE_NAME))["calls"]
    assert truth()["calls"][key][1] == chat(17)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    for line in ("brought out damaged not found", "prompts 24 0 0", "replies 95 1 0"):
        assert line.split() in lines
    assert ["See:", "aidsafe", "status", str(to)] in lines


def test_the_command_tells_programs_too(run: Path, to: Path) -> None:
    assert "is sound" in aidsafe("salvage", run, "--out", to).out
    assert aidsafe("salvage", run, "-o", to, "--json").json == {"sound": True}
    assert {file.name for file in run.parent.iterdir()} == {"run"}
    damage(run, overwritten(1))
    told = aidsafe("salvage", run, "-o", to, "--json").json
    assert told["tables"]["calls"] == {"brought_out": 96, "damaged": 0, "not_found": 0}


async def test_going_on_pays_for_no_reply_that_was_brought_out(tmp_path: Path, to: Path) -> None:
    run = tmp_path / "run"

    with Endpoint(reply=agree) as endpoint:
        await execute(run, cast_at(endpoint), prompts(12))
        before = {record.id: record.thoughts for record in records(run)}
        paid = endpoint.counts["ok"]
        for how in (overwritten(1), spoilt('"id":"p3","prompt"'), spoilt('"id":"p7","prompt"')):
            damage(run, how)
        assert salvaged(run, to)[0].replayed == 2
        await execute(to, cast_at(endpoint), prompts(12))
        assert endpoint.counts["ok"] == paid
    assert {record.id: record.thoughts for record in records(to)} == before


@pytest.mark.parametrize("lost", [[5], [11], [2, 3, 9], range(12)])
async def test_prompts_that_are_lost_altogether_are_replayed_for_nothing_once_read_again(
    tmp_path: Path, to: Path, lost: Sequence[int]
) -> None:
    run = tmp_path / "run"

    with Endpoint(reply=agree) as endpoint:
        await execute(run, cast_at(endpoint), prompts(12))
        before = {record.id: (record.prompt, record.thoughts) for record in records(run)}
        paid = endpoint.counts["ok"]
        for n in lost:
            damage(run, spoilt(f"Prompt {n}?{{}}"))  # the row
            damage(run, spoilt(f'"id":"p{n}","prompt"'))  # the record
        done, found = salvaged(run, to)
        assert {*range(12)} - {*found["prompts"]} == {*lost} == {*range(12)} - {*found["records"]}
        assert (done.replayed, done.rebuilt, done.spend) == (0, 0, True)
        await execute(to, cast_at(endpoint), prompts(12))
        assert endpoint.counts["ok"] == paid
    assert {record.id: (record.prompt, record.thoughts) for record in records(to)} == before
