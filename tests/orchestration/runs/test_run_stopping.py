"""What a run promises when it is stopped: calls under way are kept, and none is ever repeated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.errors import EndpointMisconfigured
from orchestration.journal import FILE_NAME, JournalError, Transaction
from orchestration.prompts.reader import Prompt, PromptReader
from orchestration.runs.intake import Source
from orchestration.runs.status import STATUS_NAME, SUMMARY_NAME, read_status
from policies import InputError
from tests.endpoint import Endpoint, Fault
from tests.orchestration.journals import answers
from tests.orchestration.prompt_files import write
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    Held,
    agree,
    cast_at,
    execute,
    opened,
    prompts,
    records,
    until,
)
from tests.scripted import ScriptedClient, agreeable, cast, kind_of_turn

# Stopping in good order --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["intents", "draft", "deliberation"])
async def test_stopping_begins_no_further_call_and_keeps_those_under_way(
    kind: str, folder: Path, no_hang: None
) -> None:
    made, client = cast()
    held = Held(client, lambda messages: kind_of_turn(messages) == kind)
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(50), 3))
        await until(lambda: held.calls == 3)
        run.stop()
        run.stop()
        assert run.summary.phase == "stopping"
        held.let_go()
        summary = await running
    made_before = ["intents", "draft", "deliberation"].index(kind)
    assert len(client.requests) == 3 * (made_before + 1)
    assert [len(answers(folder / FILE_NAME, n)) for n in range(3)] == [made_before + 1] * 3
    # The chats were cut off: that is no outcome, and nothing is said against their prompts.
    assert summary.interrupted
    assert (summary.outcomes, summary.active) == ({}, 0)
    assert records(folder) == []

    again, further = cast()
    summary = await execute(folder, again, prompts(3))
    assert summary.outcomes == {"completed": 3}
    assert summary.replayed == len(client.requests)
    assert len(further.requests) == 3 * CALLS_PER_CHAT - len(client.requests)


async def test_a_chat_whose_last_call_was_under_way_comes_to_its_end(
    folder: Path, no_hang: None
) -> None:
    made, client = cast()
    held = Held(client, lambda messages: kind_of_turn(messages) == "refinement")
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(50), 2))
        await until(lambda: held.calls == 2)
        run.stop()
        held.let_go()
        summary = await running
    assert summary.interrupted
    assert summary.outcomes == {"completed": 2}
    assert [record.id for record in records(folder)] == ["p0", "p1"]


async def test_stopping_does_not_wait_for_a_source_that_blocks(folder: Path, no_hang: None) -> None:
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from prompts(2)
        more.wait(10)
        yield from prompts(1, start=2)

    made, client = cast()
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(slow(), 4))
        # Chats go on while the source blocks.
        await until(lambda: run.summary.done == 2)
        assert not run.summary.all_read
        run.stop()
        summary = await asyncio.wait_for(running, 0.3)
    more.set()
    assert summary.interrupted
    assert summary.outcomes == {"completed": 2}
    assert len(client.requests) == 2 * CALLS_PER_CHAT


async def test_a_run_that_is_stopped_before_it_has_begun_begins_nothing(folder: Path) -> None:
    made, client = cast()
    async with opened(folder, made) as run:
        run.stop()
        summary = await run.execute(prompts(5), 2)
    assert summary.interrupted
    assert client.requests == []


async def test_the_folder_says_that_it_was_stopped(folder: Path) -> None:
    made, _ = cast()
    async with opened(folder, made) as run:
        await run.execute(prompts(50), 1, on_result=lambda _: run.stop())
    for name in (STATUS_NAME, SUMMARY_NAME):
        found = read_status(folder, name)
        assert found is not None
        assert (found.phase, found.why_stopped) == ("stopped", None)
        assert found.outcomes == {"completed": 1}


# Stopping at once --------------------------------------------------------------------------------


async def test_cancelling_stops_at_once_and_keeps_what_is_done(folder: Path) -> None:
    first = asyncio.Event()
    with Endpoint(reply=agree, faults=[None] * (CALLS_PER_CHAT + 2)) as endpoint:
        endpoint.fault_rates[Fault.HANG] = 1
        made = cast_at(endpoint)
        running = asyncio.create_task(
            execute(folder, made, prompts(2), 1, on_result=lambda _: first.set())
        )
        await first.wait()
        await until(lambda: endpoint.counts[Fault.HANG] == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [record.id for record in records(folder)] == ["p0"]
        status = read_status(folder, STATUS_NAME)
        assert status is not None
        assert status.phase == "stopped"
        endpoint.fault_rates.clear()
        await execute(folder, cast_at(endpoint), prompts(2), 1)
    assert endpoint.counts["ok"] == 2 * CALLS_PER_CHAT


async def test_a_full_disk_stops_the_run_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise JournalError("The journal cannot be written: disk is full.", "Make room.")

    monkeypatch.setattr(Transaction, "store_result", full)
    made, client = cast(delay=0.001)
    with pytest.raises(JournalError, match="disk is full"):
        await execute(folder, made, prompts(50), 4)
    assert len(client.requests) <= 4 * CALLS_PER_CHAT


async def test_a_reply_that_cannot_be_kept_is_not_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise JournalError("The journal cannot be written: disk is full.", "Make room.")

    monkeypatch.setattr(Transaction, "store_reply", full)
    made, client = cast(delay=0.001)
    with pytest.raises(JournalError, match="disk is full"):
        await execute(folder, made, prompts(50), 4)
    assert {kind_of_turn(request) for request in client.requests} == {"intents"}
    assert len(client.requests) <= 4


# Stopped by what goes wrong ----------------------------------------------------------------------


def held_apart(client: ScriptedClient, prompt: str) -> tuple[Held, Held]:
    """Holds the calls about a prompt, and, apart from them, all others."""

    def is_about(messages: Sequence[LLMMessage]) -> bool:
        return prompt in str(messages[1].content)

    return Held(client, is_about), Held(client, lambda messages: not is_about(messages))


async def test_a_key_that_is_withdrawn_begins_no_further_call_but_keeps_those_under_way(
    folder: Path, no_hang: None
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 1?" in str(messages[1].content):
            return EndpointMisconfigured("The key was withdrawn.", "Get another.")
        return agreeable(messages, arguments)

    made, client = cast(script)
    bad, others = held_apart(client, "Prompt 1?")
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(50), 3))
        await until(lambda: (bad.calls, others.calls) == (1, 2))
        bad.let_go()
        await until(lambda: run.summary.phase == "stopping")
        others.let_go()
        with pytest.raises(EndpointMisconfigured, match="withdrawn"):
            await running
        assert run.summary.why_stopped == "The key was withdrawn."
    assert len(client.requests) == 3
    assert [len(answers(folder / FILE_NAME, n)) for n in range(3)] == [1, 0, 1]
    assert records(folder) == []


async def test_an_error_of_our_own_is_raised_as_itself_and_what_was_paid_for_is_kept(
    folder: Path, no_hang: None
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 0?" in str(messages[1].content):
            return ZeroDivisionError("a bug")
        return agreeable(messages, arguments)

    made, client = cast(script)
    bad, others = held_apart(client, "Prompt 0?")
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(2), 2))
        await until(lambda: (bad.calls, others.calls) == (1, 1))
        bad.let_go()
        await until(lambda: run.summary.phase == "stopping")
        others.let_go()
        with pytest.raises(ZeroDivisionError, match="a bug"):
            await running
    assert len(answers(folder / FILE_NAME, 1)) == 1


async def test_a_source_that_is_broken_further_on_stops_the_run_and_what_came_before_is_kept(
    folder: Path, tmp_path: Path, no_hang: None
) -> None:
    good = "".join(f'{{"prompt": "Prompt {n}?"}}\n' for n in range(3))
    file = write(tmp_path / "prompts.jsonl", good + "broken\n" + '{"prompt": "later"}\n')
    made, client = cast()
    with PromptReader(file) as reader:
        async with opened(folder, made, Source(file)) as run:
            with pytest.raises(InputError, match=r"prompts\.jsonl:4: not JSON"):
                await run.execute(reader, 8)
            assert run.journal.count_prompts() == 3
            assert run.summary.why_stopped is not None
    write(tmp_path / "prompts.jsonl", good)
    with PromptReader(file) as reader:
        again, further = cast()
        async with opened(folder, again, Source(file)) as run:
            summary = await run.execute(reader, 8)
    assert summary.outcomes == {"completed": 3}
    assert len(client.requests) + len(further.requests) == 3 * CALLS_PER_CHAT
