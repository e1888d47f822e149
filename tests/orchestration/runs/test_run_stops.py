"""What a run promises when it cannot start, or stops in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.config import EmbeddedConfig, ModelConfig
from agents.models.endpoint import forget_endpoints
from agents.models.errors import (
    EndpointAbsent,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointUnreachable,
    RequestUnsupported,
)
from agents.models.model import Model
from orchestration.deliberation.job import DeliberationJob
from orchestration.deliberation.recipe import Cast, load_recipe
from orchestration.journal import FILE_NAME, JournalError
from orchestration.runs import Run
from orchestration.runs.folder import SETTINGS_NAME
from orchestration.runs.intake import Source
from orchestration.runs.run import RunStopped
from policies import AidsafeError, InputError, load_policy_set
from tests.endpoint import Endpoint, Fault
from tests.orchestration.journals import answers
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    SOURCE,
    agree,
    cast_at,
    everything_in,
    execute,
    files_in,
    opened,
    prompts,
    records,
    until,
)
from tests.scripted import agreeable, cast, intents, kind_of_turn

# Runs that cannot start --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.UNAUTHORIZED, EndpointMisconfigured),
        (Fault.MODEL_NOT_FOUND, EndpointMisconfigured),
        (Fault.QUOTA_EXHAUSTED, EndpointMisconfigured),
        (Fault.SCHEMA_UNSUPPORTED, RequestUnsupported),
        (Fault.RESET, RunStopped),
        (Fault.INVALID_JSON, RunStopped),
        (Fault.SERVER_ERROR, RunStopped),
    ],
)
async def test_a_run_that_cannot_start_leaves_nothing_behind(
    fault: Fault, kind: type[AidsafeError], folder: Path
) -> None:
    with Endpoint(fault_rates={fault: 1}) as endpoint, pytest.raises(kind):
        await execute(folder, cast_at(endpoint), prompts(50))
    assert not folder.parent.exists()
    expected = 4  # of four chats
    if kind is EndpointMisconfigured:
        expected += 1  # a probe
    elif kind is RunStopped:
        expected = 10 + 3  # of the first ten prompts
    elif kind is RequestUnsupported:
        expected += 30  # in search of a form that it takes
    assert endpoint.counts[fault] <= expected


async def test_an_embedded_model_that_is_not_there_leaves_nothing_behind(folder: Path) -> None:
    model = Model("default", ModelConfig(embedded=EmbeddedConfig(path="none.gguf")))
    made = Cast(load_recipe("small"), load_policy_set("aidsafe"), {"default": model})
    with pytest.raises(InputError, match=r"no model file none\.gguf"):
        await execute(folder, made, prompts(5))
    assert not folder.parent.exists()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    made, _ = cast()
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(InputError, match="something else than a run"):
        Run(tmp_path, DeliberationJob(made), SOURCE)
    with pytest.raises(InputError, match="is a file"):
        Run(file, DeliberationJob(made), SOURCE)
    with pytest.raises(InputError, match=r"(not a writable folder|cannot be read)"):
        Run(file / "sub", DeliberationJob(made), SOURCE)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_may_not_be_written_is_told_of_before_anything_is_paid_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, client = cast()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(InputError, match="not a writable folder") as caught:
        Run(folder, DeliberationJob(made), SOURCE)
    assert "--out" in caught.value.remedy
    assert client.requests == []


async def test_a_run_whose_settings_file_is_broken_goes_on_and_mends_it(folder: Path) -> None:
    made, _ = cast()
    await execute(folder, made, prompts(1))
    settings = (folder / SETTINGS_NAME).read_text()
    for text in ("[", "just text", "\x00"):
        (folder / SETTINGS_NAME).write_text(text)
        again, client = cast()
        await execute(folder, again, prompts(1))
        assert client.requests == []
        assert (folder / SETTINGS_NAME).read_text() == settings
        (folder / SETTINGS_NAME).write_text(text)
        with pytest.raises(InputError, match=r"run\.yaml was changed since aidsafe wrote it"):
            Run(
                folder, DeliberationJob(made), None
            )  # which needs to know where its prompts came from


@pytest.mark.parametrize("what", ["gone", "empty"])
async def test_a_run_that_lost_its_journal_is_refused_and_never_silently_begun_anew(
    what: str, folder: Path
) -> None:
    await execute(folder, cast()[0], prompts(1))
    for file in files_in(folder):
        if file.name.startswith(FILE_NAME):
            file.unlink()
    if what == "empty":
        (folder / FILE_NAME).touch()
    before = everything_in(folder)
    made, client = cast()
    with pytest.raises(JournalError, match="has lost its journal") as caught:
        await execute(folder, made, prompts(1))
    assert "Restore it together with journal.sqlite-wal from a copy" in caught.value.remedy
    assert everything_in(folder) == before
    assert client.requests == []


async def test_of_two_runs_started_together_the_second_leaves_the_first_alone(
    folder: Path,
) -> None:
    async with opened(folder, cast()[0]) as first:
        with pytest.raises(JournalError, match="Another process is writing") as caught:
            Run(folder, DeliberationJob(cast()[0]), Source("second"))
        assert f"aidsafe status {folder}" in caught.value.remedy
        await first.execute(prompts(1), 1)
    await execute(folder, cast()[0], prompts(2))
    assert [record.id for record in records(folder)] == ["p0", "p1"]


async def test_a_run_in_which_nothing_came_about_leaves_nothing_behind(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for folder in (tmp_path / "a" / "b", here):
        async with opened(folder, cast()[0]):
            pass
    assert files_in(tmp_path) == [here]


async def test_a_run_that_called_once_stays_even_if_nothing_came_of_it(folder: Path) -> None:
    made, _ = cast([intents("x"), EndpointMisconfigured("The key was withdrawn.", "Get another.")])
    with pytest.raises(EndpointMisconfigured):
        await execute(folder, made, prompts(1))
    assert len(answers(folder / FILE_NAME)) == 1


def test_an_empty_folder_is_as_good_as_none(folder: Path) -> None:
    folder.mkdir(parents=True)
    made, _ = cast()
    assert asyncio.run(execute(folder, made, prompts(1))).outcomes == {"completed": 1}


# Runs that stop in the middle --------------------------------------------------------------------


async def test_an_endpoint_that_is_gone_stops_the_run_and_says_nothing_against_any_prompt(
    folder: Path,
) -> None:
    with Endpoint(reply=agree, faults=[None] * (2 * CALLS_PER_CHAT)) as endpoint:
        endpoint.fault_rates[Fault.HANG] = 1
        url = endpoint.base_url
        running = asyncio.create_task(execute(folder, cast_at(endpoint), prompts(50), 1))
        await until(lambda: endpoint.counts[Fault.HANG] == 1)
    # The call under way broke off with its server; the next one finds nobody.
    with pytest.raises(EndpointAbsent, match="cannot be reached"):
        await running
    found = records(folder)
    assert [record.outcome for record in found] == ["completed"] * 2 + ["failed"] * (len(found) - 2)
    assert len(found) <= 3
    with pytest.raises(EndpointAbsent):
        await execute(folder, cast_at(url), prompts(50), 4)
    assert records(folder) == found


@pytest.mark.parametrize("kind", [EndpointAbsent, EndpointMisconfigured])
async def test_what_no_prompt_can_help_stops_the_run_and_prompts_under_way_go_on_later(
    kind: type[EndpointError], folder: Path
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 1?" in str(messages[1].content) and kind_of_turn(messages) == "deliberation":
            return kind("Nothing goes any more.", "Mend it.")
        return agreeable(messages, arguments)

    made, client = cast(script, delay=0.001)
    with pytest.raises(kind, match="Nothing goes"):
        await execute(folder, made, prompts(50), 3)
    assert records(folder) == [], "none of the three had come to its end"
    paid = len(client.requests) - 1
    again, further = cast()
    summary = await execute(folder, again, prompts(3))
    assert summary.outcomes == {"completed": 3}
    assert len(further.requests) == 3 * CALLS_PER_CHAT - paid


@pytest.mark.parametrize("first", [0, CALLS_PER_CHAT])
@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        ([Fault.SCHEMA_UNSUPPORTED], "failed"),
        ([Fault.RESET], "failed"),
        ([Fault.SERVER_ERROR], "failed"),
        ([Fault.CONTEXT_LENGTH], "failed"),
        # With another seed, it is asked once more, after a probe.
        ([Fault.FORBIDDEN, None, Fault.FORBIDDEN, None], "refused"),
        ([Fault.CONTENT_FILTER, Fault.CONTENT_FILTER], "refused"),
    ],
)
async def test_an_error_about_one_prompt_concerns_it_alone_whether_first_or_later(
    first: int, faults: list[Fault | None], outcome: str, folder: Path
) -> None:
    forget_endpoints()
    with Endpoint(reply=agree, faults=[None] * first + faults) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(3), 1)
    assert summary.outcomes == {"completed": 2, outcome: 1}


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
    summary = await execute(folder, made, prompts(3), 3, on_result=lambda _: kept.set())
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
    assert "no prompt is blamed" in caught.value.remedy
    assert [record.outcome for record in records(folder)] == ["completed"]
    with Endpoint(reply=agree) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(100), 4)
    assert summary.outcomes == {"completed": 100}, "they are pending as before"


async def test_a_key_that_is_revoked_in_the_middle_stops_the_run_and_blames_no_prompt(
    folder: Path,
) -> None:
    with Endpoint(reply=agree, faults=[None] * (2 * CALLS_PER_CHAT)) as endpoint:
        endpoint.fault_rates[Fault.FORBIDDEN] = 1
        with pytest.raises(EndpointForbidden, match="refused access"):
            await execute(folder, cast_at(endpoint), prompts(100), 3)
    assert {record.outcome for record in records(folder)} <= {"completed"}
    assert endpoint.counts[Fault.FORBIDDEN] <= 6  # three chats, and a probe of each at most


async def test_failures_that_others_interrupt_do_not_stop_the_run(folder: Path) -> None:
    faults = ([Fault.SERVER_ERROR] * 9 + [None] * CALLS_PER_CHAT) * 2
    with Endpoint(reply=agree, faults=faults) as endpoint:
        summary = await execute(folder, cast_at(endpoint), prompts(20), 1)
    assert summary.outcomes == {"completed": 2, "failed": 18}
