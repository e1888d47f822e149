"""The status of a run while it runs, after its end, and after its process was killed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models import retries
from orchestration.deliberation.job import RECORDS
from orchestration.journal import Journal, JournalError
from orchestration.prompts.reader import PromptReader
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.intake import Source
from orchestration.runs.status import (
    ERRORS_KEPT,
    STATUS_NAME,
    SUMMARY_NAME,
    RunStatus,
    Summary,
    read_status,
    write_status,
)
from tests.endpoint import Endpoint, Fault
from tests.orchestration.front_door import look
from tests.orchestration.journals import named, take_in
from tests.orchestration.prompt_files import write
from tests.orchestration.records import failed, record
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    Held,
    agree,
    cast_at,
    execute,
    opened,
    prompts,
    until,
)
from tests.scripted import cast

record()  # made once, outside of any event loop, since it takes a chat


# In the folder -----------------------------------------------------------------------------------


async def test_the_folder_of_a_finished_run_holds_the_summary(folder: Path) -> None:
    summary = await execute(folder, cast()[0], prompts(3), 1)
    assert summary.phase == "finished"
    assert not summary.interrupted
    assert (summary.prompts, summary.all_read, summary.pending, summary.active) == (3, True, 0, 0)
    assert summary.outcomes == {"completed": 3}
    tallies = {"stopped_by": {"consensus": 3}, "consensus_in_round": {"1": 3}}
    assert summary.tallies == tallies
    assert summary.process.endswith(f":{os.getpid()}")
    for name in (STATUS_NAME, SUMMARY_NAME):
        found = read_status(folder, name)
        assert found is not None
        changing: dict[str, Any] = {"updated_at": "", "seconds": 0, "per_minute": None}
        assert found.model_copy(update=changing) == summary.model_copy(update=changing)
    assert json.loads((folder / SUMMARY_NAME).read_text())["aidsafe"] == 1


async def test_rows_left_out_are_in_the_summary(folder: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", '{"prompt": "a"}\n{"prompt": "a"}\n{"prompt": ""}\n')
    for _ in ("reads the file", "knows the file"):
        with PromptReader(file) as reader:
            async with opened(folder, cast()[0], Source(file)) as run:
                summary = await run.execute(reader, 1)
        assert (summary.prompts, summary.duplicates, summary.empty) == (1, 1, 1)
        assert summary.left_out == [(2, "same text as an earlier prompt"), (3, "empty prompt")]


async def test_requests_are_counted_by_their_outcome(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    faults = [Fault.SERVER_ERROR, None, Fault.RESET, Fault.RATE_LIMITED, Fault.INVALID_JSON]
    with Endpoint(reply=agree, faults=faults) as endpoint:
        summary = await execute(folder, cast_at(endpoint, max_retries=3), prompts(2), 1)
    assert summary.attempts == {
        "answered": 2 * CALLS_PER_CHAT,
        "server_error": 1,
        "connection": 1,
        "throttled": 1,
        "unusable": 1,
    }
    assert sum(summary.attempts.values()) == endpoint.stats["calls"]
    assert [error.times for error in summary.last_errors] == [1] * 4
    assert summary.endpoints[0].endpoint == endpoint.base_url


async def test_no_text_of_a_prompt_or_reply_is_in_the_status(folder: Path) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        return {"secret reply": "secret reply"}

    made, _ = cast(script)
    from_user = iter(p.__class__(p.id, f"Secret prompt {p.text}") for p in prompts(3))
    summary = await execute(folder, made, from_user)
    assert summary.outcomes == {"malformed": 3}
    assert summary.last_errors
    for name in (STATUS_NAME, SUMMARY_NAME):
        assert "secret" not in (folder / name).read_text().lower()


# `aidsafe status` --------------------------------------------------------------------------------


async def test_a_running_session_can_be_watched(folder: Path, no_hang: None) -> None:
    made, client = cast()
    held = Held(client, lambda messages: "Prompt 2?" in str(messages[1].content))
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(3), 3))
        await until(lambda: held.calls == 1 and run.summary.done == 2)
        seen = look(folder)
        assert seen.phase == "running"
        assert (seen.prompts, seen.outcomes, seen.pending) == (3, {"completed": 2}, 1)
        held.let_go()
        await running
    assert look(folder).phase == "finished"
    assert look(folder).outcomes == {"completed": 3}


async def test_a_killed_process_is_recognized(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(2))
    status = read_status(folder, STATUS_NAME)
    assert status is not None
    for phase in ("running", "stopping"):
        write_status(folder, STATUS_NAME, status.model_copy(update={"phase": phase, "active": 9}))
        seen = look(folder)
        assert seen.phase == "stopped"
        assert seen.why_stopped == "Its process ended without updating the status."
        assert (seen.active, seen.per_minute, seen.seconds_left) == (0, None, None)
        assert seen.outcomes == {"completed": 2}


@pytest.mark.parametrize("content", [None, "", "{", '{"aidsafe": 2}'])
async def test_without_a_readable_status_the_journal_suffices(
    content: str | None, folder: Path
) -> None:
    await execute(folder, cast()[0], prompts(2))
    (folder / STATUS_NAME).unlink()
    if content is not None:
        (folder / STATUS_NAME).write_text(content)
    seen = look(folder)
    assert (seen.prompts, seen.outcomes, seen.phase) == (2, {"completed": 2}, "finished")


def test_without_a_run_there_is_no_status(folder: Path) -> None:
    with pytest.raises(JournalError, match="There is no run"):
        look(folder)


# Counting ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, for the test to set."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


async def counting(journal: Journal, number: int) -> RunStatus:
    intake = await take_in(journal, named(*(f"p{n}" for n in range(number))))
    return RunStatus(journal, RECORDS, intake, Budget(Limits(), []))


async def test_the_rate_is_that_of_the_last_minutes(journal: Journal, clock: list[float]) -> None:
    state = await counting(journal, 1000)
    assert state.summary().per_minute is None
    clock[0] += 60
    state.add(record())
    assert state.summary().per_minute is None, "one outcome gives no rate"
    state.add(record())
    assert state.summary().per_minute == 2
    clock[0] += 1200  # without an outcome
    assert state.summary().per_minute is None
    for _ in range(60):
        clock[0] += 5
        state.add(failed())
    summary = state.summary()
    assert summary.per_minute == pytest.approx(12, rel=0.1)
    assert summary.seconds_left == pytest.approx(60 * (1000 - 62) / 12, rel=0.1)
    assert summary.outcomes == {"completed": 2, "failed": 60}


async def test_the_latest_errors_are_listed_and_counted(journal: Journal) -> None:
    state = await counting(journal, 1)
    for number in range(ERRORS_KEPT + 2):
        state.note_error(f"error {number}")
    state.note_error("error 3")
    found = [(error.cause, error.times) for error in state.summary().last_errors]
    assert found == [("error 2", 1), ("error 4", 1), ("error 5", 1), ("error 6", 1), ("error 3", 2)]


async def test_a_status_that_cannot_be_written_stops_no_run(folder: Path) -> None:
    write_status(folder / "none", STATUS_NAME, Summary(kind="records"))
    assert read_status(folder / "none", STATUS_NAME) is None
