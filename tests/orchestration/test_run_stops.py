"""What a run promises when it cannot start, or stops in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.embedded import EmbeddedConfig
from agents.models.errors import (
    EndpointError,
    EndpointMisconfigured,
    EndpointUnreachable,
    RequestRejected,
)
from agents.models.model import Model, ModelConfig
from orchestration import run as module
from orchestration.journal import Journal, JournalError
from orchestration.prompts import read_prompts
from orchestration.recipe import Cast, load_recipe
from orchestration.run import SETTINGS_NAME, Run, RunStopped
from policies import InputError, load_policy_set
from tests.endpoint import Endpoint, Fault
from tests.orchestration.runs import (
    CALLS_PER_CHAT,
    SOURCE,
    agree,
    cast_at,
    execute,
    prompts,
    records,
)
from tests.scripted import agreeable, cast

# Runs that cannot start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.UNAUTHORIZED, EndpointMisconfigured),
        (Fault.MODEL_NOT_FOUND, EndpointMisconfigured),
        (Fault.QUOTA_EXHAUSTED, EndpointMisconfigured),
        (Fault.SCHEMA_UNSUPPORTED, RequestRejected),
        (Fault.RESET, EndpointUnreachable),
    ],
)
async def test_a_run_that_cannot_start_leaves_nothing_behind(
    fault: Fault, kind: type[EndpointError], folder: Path
) -> None:
    with Endpoint(fault_rates={fault: 1}) as endpoint, pytest.raises(kind) as caught:
        await execute(folder, cast_at(endpoint), prompts(50))
    assert caught.value.exit_code == 4
    assert not folder.parent.exists()
    assert endpoint.counts[fault] <= 4, "each of the four chats found out for itself, at most"


async def test_an_embedded_model_that_is_not_there_leaves_nothing_behind(folder: Path) -> None:
    model = Model("default", ModelConfig(embedded=EmbeddedConfig(path="none.gguf")))
    made = Cast.load(load_recipe("small"), load_policy_set("aidsafe"), {"default": model})
    with pytest.raises(InputError, match=r"no model file none\.gguf"):
        await execute(folder, made, prompts(5))
    assert not folder.parent.exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    made, _ = cast()
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(InputError, match="something else than a run"):
        Run(tmp_path, made, SOURCE)
    with pytest.raises(InputError, match="is a file"):
        Run(file, made, SOURCE)
    with pytest.raises(InputError, match=r"cannot be (made|read)"):
        Run(file / "sub", made, SOURCE)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_may_not_be_written_is_told_of_before_anything_is_paid_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, client = cast()
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="may not be written") as caught:
        Run(folder, made, SOURCE)
    assert "--out" in caught.value.remedy
    assert client.requests == []


@pytest.mark.parametrize("text", ["[", "just text", "\x00"])
async def test_broken_settings_are_told_of(text: str, folder: Path) -> None:
    made, _ = cast()
    await execute(folder, made, prompts(1))
    (folder / SETTINGS_NAME).write_text(text)
    with pytest.raises(InputError, match=r"run\.yaml cannot be read"):
        Run(folder, made, SOURCE)


async def test_of_two_runs_started_together_the_second_leaves_the_first_alone(
    folder: Path,
) -> None:
    first, second = (Run(folder, cast()[0], {"source": name}) for name in ("first", "second"))
    await first.execute(prompts(1), 1)
    settings = (folder / SETTINGS_NAME).read_text()
    with pytest.raises(JournalError, match="Another process is writing"):
        await second.execute(prompts(1, start=5), 1)
    first.close()
    await second.execute(prompts(1, start=5), 1)
    second.close()
    assert (folder / SETTINGS_NAME).read_text() == settings
    assert [record.id for record in records(folder)] == ["p0", "p5"]


async def test_of_two_runs_started_together_the_second_must_have_the_same_settings(
    folder: Path,
) -> None:
    late = Run(folder, cast()[0], SOURCE)
    with Endpoint(reply=agree) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(1))
    with pytest.raises(InputError, match=r"was started with other .*models"):
        await late.execute(prompts(1, start=5), 1)
    assert [record.id for record in records(folder)] == ["p0"]


def test_an_empty_folder_is_as_good_as_none(folder: Path) -> None:
    folder.mkdir(parents=True)
    made, _ = cast()
    assert asyncio.run(execute(folder, made, prompts(1))).outcomes == {"completed": 1}


# Runs that stop in the middle --------------------------------------------------------------------


async def test_an_endpoint_that_dies_stops_the_run_and_what_is_done_is_kept(folder: Path) -> None:
    with Endpoint(reply=agree, faults=[None] * (3 * CALLS_PER_CHAT + 2)) as endpoint:
        endpoint.fault_rates[Fault.RESET] = 1
        with pytest.raises(RunStopped, match=r"10 prompts in a row .*broke the connection off"):
            await execute(folder, cast_at(endpoint), prompts(50), 1)
        done = records(folder)
        assert [record.outcome for record in done] == ["completed"] * 3 + ["failed"] * 10
        assert len(done[3].turns) == 2, "what was said before it broke off is kept"
        endpoint.fault_rates.clear()
        summary = await execute(folder, cast_at(endpoint), prompts(13), retry=["failed"])
    assert summary.outcomes == {"completed": 13}
    assert summary.done_before == 3


async def test_a_key_that_is_withdrawn_lets_chats_under_way_come_to_their_end(
    folder: Path,
) -> None:
    struck = asyncio.Event()

    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 1?" in str(messages[1].content):
            struck.set()
            return EndpointMisconfigured("The key was withdrawn.", "Get another.")
        return agreeable(messages, arguments)

    made, client = cast(script, delay=0.001)
    with pytest.raises(EndpointMisconfigured, match="withdrawn"):
        await execute(folder, made, prompts(50), 3)
    assert struck.is_set()
    # The chats of prompts 0 and 2 had begun: their replies are paid for, so they were finished.
    assert [record.id for record in records(folder)] == ["p0", "p2"]
    assert len(client.requests) == 2 * CALLS_PER_CHAT + 1


@pytest.mark.parametrize("fault", [Fault.SCHEMA_UNSUPPORTED, Fault.RESET, Fault.FORBIDDEN])
async def test_a_rejected_prompt_concerns_itself_alone_once_others_were_accepted(
    fault: Fault, folder: Path
) -> None:
    faults = [None] * CALLS_PER_CHAT + [fault]
    with Endpoint(reply=agree, faults=faults) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(3), 1)
    assert summary.outcomes == {"completed": 2, "failed": 1}


@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.QUOTA_EXHAUSTED])
async def test_a_key_or_quota_that_is_gone_stops_the_run_at_once(
    fault: Fault, folder: Path
) -> None:
    faults = [None] * CALLS_PER_CHAT + [fault]
    with (
        Endpoint(reply=agree, faults=faults) as endpoint,
        pytest.raises(EndpointMisconfigured),
    ):
        await execute(folder, cast_at(endpoint), prompts(3), 1)
    assert [record.outcome for record in records(folder)] == ["completed"]


async def test_what_others_proved_while_a_chat_waited_counts_for_it_too(folder: Path) -> None:
    kept = asyncio.Event()

    async def script(messages: Sequence[LLMMessage]) -> None:
        if "Prompt 1?" in str(messages[1].content):
            await kept.wait()
            raise EndpointUnreachable("The connection broke off.", "Look.")

    made, client = cast()
    answer = client.create

    async def create(messages: Sequence[LLMMessage], **options: Any) -> Any:
        await script(messages)
        return await answer(messages, **options)

    client.create = create  # type: ignore[method-assign]
    summary = await execute(folder, made, prompts(3), 3, on_record=lambda _: kept.set())
    assert summary.outcomes == {"completed": 2, "failed": 1}


async def test_chats_too_long_for_the_model_do_not_stop_the_run(folder: Path) -> None:
    with Endpoint(reply=agree, faults=[Fault.CONTEXT_LENGTH] * 15) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(16), 1)
    assert summary.outcomes == {"completed": 1, "failed": 15}


async def test_many_failures_in_a_row_stop_the_run(folder: Path) -> None:
    with Endpoint(reply=agree, faults=[None] * CALLS_PER_CHAT) as endpoint:
        endpoint.fault_rates[Fault.SERVER_ERROR] = 1
        with pytest.raises(RunStopped, match=r"10 prompts in a row .*answered 500") as caught:
            await execute(folder, cast_at(endpoint), prompts(100), 1)
    assert caught.value.exit_code == 4
    assert "--retry failed" in caught.value.remedy
    assert len(records(folder)) == 11


async def test_failures_that_others_interrupt_do_not_stop_the_run(folder: Path) -> None:
    faults = ([Fault.SERVER_ERROR] * 9 + [None] * CALLS_PER_CHAT) * 2
    with Endpoint(reply=agree, faults=faults) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(20), 1)
    assert summary.outcomes == {"completed": 2, "failed": 18}


async def test_a_broken_row_is_told_of_once_the_chats_under_way_are_kept(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "prompts.jsonl"
    good = "".join(f'{{"prompt": "Prompt {n}?"}}\n' for n in range(3))
    file.write_text(good + "broken\n" + '{"prompt": "later"}\n')
    made, client = cast(delay=0.001)
    with (
        read_prompts(str(file)) as reader,
        pytest.raises(InputError, match=r"prompts\.jsonl:4: not JSON"),
    ):
        await execute(folder, made, reader, 8)
    assert [record.outcome for record in records(folder)] == ["completed"] * 3
    file.write_text(good)
    with read_prompts(str(file)) as reader:
        summary = await execute(folder, cast()[0], reader)
    assert summary.done_before == 3
    assert len(client.requests) == 3 * CALLS_PER_CHAT


async def test_an_error_of_our_own_is_raised_as_itself_once_the_others_are_kept(
    folder: Path,
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 0?" in str(messages[1].content):
            return ZeroDivisionError("a bug")
        return agreeable(messages, arguments)

    made, _ = cast(script)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await execute(folder, made, prompts(2), 2)
    assert [record.id for record in records(folder)] == ["p1"]


async def test_a_full_disk_stops_the_run_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> None:
        raise JournalError("The journal cannot be written: disk is full.", "Make room.")

    monkeypatch.setattr(Journal, "add", full)
    made, client = cast(delay=0.001)
    with pytest.raises(JournalError) as caught:
        await execute(folder, made, prompts(50), 4)
    assert caught.value.exit_code == 5
    assert len(client.requests) <= 4 * CALLS_PER_CHAT


async def test_stopping_finishes_the_chats_under_way_and_begins_no_other(folder: Path) -> None:
    stopping = asyncio.Event()
    made, client = cast(delay=0.001)
    summary = await execute(
        folder, made, prompts(50), 3, on_record=lambda _: stopping.set(), stopping=stopping
    )
    assert summary.interrupted
    assert summary.outcomes["completed"] == len(records(folder)) <= 4
    assert len(client.requests) == CALLS_PER_CHAT * len(records(folder))


async def test_cancelling_stops_at_once_and_keeps_what_is_done(folder: Path) -> None:
    first = asyncio.Event()
    with Endpoint(reply=agree, faults=[None] * CALLS_PER_CHAT) as endpoint:
        endpoint.fault_rates[Fault.HANG] = 1
        running = asyncio.create_task(
            execute(folder, cast_at(endpoint), prompts(9), 1, on_record=lambda _: first.set())
        )
        await first.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [record.id for record in records(folder)] == ["p0"]
