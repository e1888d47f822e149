"""Many prompts by the front door, and reading the run that they become."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_core.models import LLMMessage

from agents.models.errors import EndpointError
from orchestration import (
    deliberate_all,
    load_cast,
    open_run,
)
from orchestration.journal import JournalError
from orchestration.prompts.reader import Prompt
from orchestration.runs.budget import Limits
from policies import InputError
from tests.endpoint import Endpoint, Fault
from tests.orchestration.front_door import QUESTION, a_cast, records
from tests.orchestration.run_helpers import CALLS_PER_CHAT, Held, agree, until
from tests.scripted import agreeable, result

# Many prompts


async def test_many_prompts_become_records_and_a_run(tmp_path: Path) -> None:
    cast, client = a_cast()
    given = [QUESTION, Prompt("mine", "Another?"), QUESTION]
    made = await records(given, cast, tmp_path / "run", concurrency=2)
    assert {record.prompt for record in made} == {QUESTION, "Another?"}
    assert len(made) == 2
    with open_run(tmp_path / "run") as run:
        assert sorted(run, key=lambda r: r.id) == sorted(made, key=lambda r: r.id)
        assert run.summary.phase == "finished"
    assert len(client.requests) == 2 * CALLS_PER_CHAT


async def test_the_same_call_again_gives_the_same_records_without_a_call(tmp_path: Path) -> None:
    source = tmp_path / "prompts.jsonl"
    source.write_text("".join(f'{{"prompt": "Prompt {n}?"}}\n' for n in range(4)))
    cast, client = a_cast()
    made = await records(source, cast, tmp_path / "run")
    again = await records(str(source), cast, str(tmp_path / "run"))
    assert sorted(r.id for r in again) == sorted(r.id for r in made)
    assert len(client.requests) == 4 * CALLS_PER_CHAT
    more = await records([*(r.prompt for r in made), "One more?"], cast, tmp_path / "run")
    assert len(more) == 5
    assert len(client.requests) == 5 * CALLS_PER_CHAT


async def test_leaving_the_loop_stops_the_run_and_loses_no_reply(tmp_path: Path) -> None:
    cast, client = a_cast()
    given = [f"Prompt {n}?" for n in range(40)]
    async for _ in deliberate_all(given, cast, tmp_path / "run", concurrency=1):
        break
    await until(lambda: not any("execute" in repr(task) for task in asyncio.all_tasks()))
    calls = len(client.requests)
    assert calls < 5 * CALLS_PER_CHAT
    with open_run(tmp_path / "run") as run:
        assert run.summary.calls == calls
    assert len(await records(given, cast, tmp_path / "run")) == 40
    assert len(client.requests) == 40 * CALLS_PER_CHAT


async def test_cancelling_ends_the_calls_under_way_first(tmp_path: Path, no_hang: None) -> None:
    cast, client = a_cast()
    held = Held(client)
    task = asyncio.create_task(records([QUESTION], cast, tmp_path / "run"))
    await until(lambda: held.calls)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done(), "the call is paid for"
    held.let_go()
    with pytest.raises(asyncio.CancelledError):
        await task
    with open_run(tmp_path / "run") as run:
        assert run.summary.calls == 1


async def test_errors_of_the_run_are_raised_and_finished_work_is_kept(tmp_path: Path) -> None:
    with Endpoint(reply=agree, faults=[Fault.UNAUTHORIZED] * 9) as endpoint:
        async with load_cast(model=f"{endpoint.base_url}#m") as cast:
            with pytest.raises(EndpointError):
                await records([QUESTION], cast, tmp_path / "run")
    with pytest.raises(InputError, match="prompt is empty"):
        await records(["fine?", " "], a_cast()[0], tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        await records([QUESTION], a_cast()[0], Path(__file__))


async def test_failed_prompts_are_retried_if_that_is_asked_for(tmp_path: Path) -> None:
    answers: list[Any] = [result("", refusal="I cannot.")] * 50
    cast, _ = a_cast(lambda *given: answers.pop() if answers else agreeable(*given))
    (refused,) = await records([QUESTION], cast, tmp_path / "run")
    assert refused.outcome == "refused"
    answers.clear()
    (same,) = await records([QUESTION], cast, tmp_path / "run")
    assert same.outcome == "refused"
    (record,) = await records([QUESTION], cast, tmp_path / "run", retry=["refused"])
    assert record.outcome == "completed"


async def test_a_limit_ends_the_loop_and_the_run_says_why(tmp_path: Path) -> None:
    cast, _ = a_cast()
    given = [f"Prompt {n}?" for n in range(9)]
    made = await records(given, cast, tmp_path / "run", concurrency=1, limits=Limits(tokens=40_000))
    assert len(made) < 9
    with open_run(tmp_path / "run") as run:
        assert "--max-tokens" in str(run.summary.why_stopped)


async def test_a_run_knows_that_its_termination_condition_has_changed(tmp_path: Path) -> None:
    own, client = a_cast(termination=lambda recipe: MaxMessageTermination(5))
    stock, _ = a_cast()
    (first,) = await records([QUESTION], own, tmp_path / "run")
    assert first.stop_reason.startswith("Maximum number of messages") if first.stop_reason else 0
    assert "MaxMessageTermination" in (tmp_path / "run" / "run.yaml").read_text()
    (second,) = await records([QUESTION], stock, tmp_path / "run")
    assert second.stop_reason == "consensus"
    (third,) = await records([QUESTION], own, tmp_path / "run")
    assert third.stop_reason == first.stop_reason
    assert len(client.requests) == 4 + 1, "both ways are replayed as far as they lead"


# Reading a run


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A run of three completed records and a refused one."""

    def script(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
        if any("Refuse" in str(m.content) for m in messages):
            return result("", refusal="I cannot.")
        return agreeable(messages, arguments)

    cast, _ = a_cast(script)
    given = [Prompt(f"p{n}", f"Prompt {n}?", {"row": n}) for n in range(3)]
    await records([*given, Prompt("q", "Refuse!")], cast, tmp_path / "run")
    return tmp_path / "run"


def test_a_run_is_an_iterable_with_filters(folder: Path) -> None:
    with open_run(folder) as run:
        assert [record.id for record in run] == ["p0", "p1", "p2", "q"]
        assert len(run) == 4
        assert run["p1"].prompt == "Prompt 1?"
        assert run["q"].outcome == "refused"
        completed = run.where(outcome="completed")
        assert len(completed) == len(list(completed)) == 3
        odd = completed.where(lambda record: record.id != "p0").where(lambda r: r.id != "p2")
        assert [record.id for record in odd] == ["p1"]
        assert len(odd) == 1
        assert run.summary.outcomes == {"completed": 3, "refused": 1}
        for wrong in ("p", "nowhere"):
            with pytest.raises(KeyError):
                run[wrong]
        with pytest.raises(InputError, match="no outcome 'complete'"):
            run.where(outcome="complete")


def test_a_run_becomes_a_data_frame_or_a_data_set(folder: Path) -> None:
    with open_run(folder) as run:
        frame = run.where(outcome="completed").to_pandas()
        dataset = run.to_dataset()
        columns = " ".join((open_run.__doc__ or "").split())
    assert list(frame["id"]) == ["p0", "p1", "p2"]
    assert list(frame["thoughts"][0]) == ["It is harmless.", "So help."]
    assert list(frame["cited"][0]) == ["respect_helpfulness", "RH1"]
    assert json.loads(frame["metadata"][2]) == {"row": 2}
    assert dataset.num_rows == 4
    assert dataset["outcome"][-1] == "refused"
    for column in frame.columns:
        assert f"{column}," in columns or f"{column} (" in columns, column


@pytest.mark.parametrize("package", ["pandas", "datasets"])
def test_a_package_that_is_missing_is_named_with_its_command(folder: Path, package: str) -> None:
    with (
        open_run(folder) as run,
        mock.patch.dict(sys.modules, {package: None}),
        pytest.raises(InputError, match=rf"{package}.*pip install 'aidsafe\[data\]'"),
    ):
        run.to_pandas() if package == "pandas" else run.to_dataset()


async def test_a_run_can_be_read_while_it_is_going_on(tmp_path: Path, no_hang: None) -> None:
    cast, client = a_cast()
    held = Held(client, lambda messages: "Prompt 1?" in str(messages))
    given = [f"Prompt {n}?" for n in range(2)]
    task = asyncio.create_task(records(given, cast, tmp_path / "run", concurrency=1))
    await until(lambda: held.calls)
    with open_run(tmp_path / "run") as run:
        assert [record.prompt for record in run] == ["Prompt 0?"]
        assert (run.summary.phase, run.summary.pending) == ("running", 1)
        held.let_go()
        await task
        assert len(run) == 2


def test_where_there_is_no_run_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="no run"):
        open_run(tmp_path)
