"""What a run promises: one outcome for every prompt, nothing twice, all of it on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from autogen_core.models import LLMMessage

from agents.models.errors import EndpointError, EndpointMisconfigured
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME
from orchestration.prompts.reader import Prompt
from orchestration.runs.folder import SETTINGS_NAME
from orchestration.runs.intake import Source
from policies import InputError
from tests.endpoint import Endpoint
from tests.orchestration.journals import answers
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    agree,
    cast_at,
    everything_in,
    execute,
    opened,
    prompts,
    records,
)
from tests.scripted import (
    accepts,
    agreeable,
    cast,
    draft,
    intents,
    kind_of_turn,
    refines,
    result,
)

# Outcomes ----------------------------------------------------------------------------------------

SCRIPTS: dict[str, Any] = {
    "Completed": None,
    "Refused": "I'm sorry, but I can't help with that.",
    "Malformed": "No JSON at all.",
    "Truncated": result('{"intents": [', finish_reason="length"),
    "Failed": EndpointError("The endpoint gave out.", "Wait."),
}


def by_prompt(messages: Sequence[LLMMessage], arguments: Any) -> Any:
    """Fails in the draft, each prompt in its own way."""
    text = " ".join(str(message.content) for message in messages)
    if kind_of_turn(messages) != "intents":
        for name, said in SCRIPTS.items():
            if f"{name} please" in text and said is not None:
                return said
    return agreeable(messages, arguments)


async def test_every_prompt_ends_in_one_outcome_and_keeps_its_transcript(folder: Path) -> None:
    made, _ = cast(by_prompt)
    source = (Prompt(name.lower(), f"{name} please?") for name in SCRIPTS)
    summary = await execute(folder, made, source)
    assert summary.outcomes == {name.lower(): 1 for name in SCRIPTS}
    assert summary.tallies["stopped_by"] == {"consensus": 1}
    for record in records(folder):
        assert record.outcome == record.id
        assert record.turns[0].agent == "intent_analyst"
        assert (record.problem is None) == (record.outcome == "completed")
    failed = next(record for record in records(folder) if record.id == "failed")
    assert failed.problem == "The endpoint gave out."
    assert len(failed.turns) == 1


async def test_a_client_that_cancels_its_own_call_fails_its_prompt_and_no_more(
    folder: Path,
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Cancel me" in str(messages[1].content) and kind_of_turn(messages) == "draft":
            return asyncio.CancelledError()
        return agreeable(messages, arguments)

    made, _ = cast(script)
    source = (Prompt(f"p{n}", text) for n, text in enumerate(("One", "Cancel me", "Three")))
    summary = await execute(folder, made, source)
    assert summary.outcomes == {"completed": 2, "failed": 1}


async def test_an_odd_reply_that_breaks_our_own_code_costs_its_prompt_alone(
    folder: Path,
) -> None:
    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        if "Prompt 1?" in str(messages[1].content) and kind_of_turn(messages) == "draft":
            return ZeroDivisionError("a bug")
        return agreeable(messages, arguments)

    made, _ = cast(script)
    summary = await execute(folder, made, prompts(3), 1)
    assert summary.outcomes == {"completed": 2, "failed": 1}
    assert records(folder)[1].problem == "An error inside aidsafe (ZeroDivisionError)."


async def test_the_summary_counts_the_tokens_of_all_records(folder: Path) -> None:
    made, _ = cast()
    summary = await execute(folder, made, prompts(3))
    used = [record.usage.prompt_tokens for record in records(folder)]
    assert summary.usage.prompt_tokens == sum(used) > 0


async def test_a_record_is_on_disk_when_it_is_told_of(folder: Path) -> None:
    seen: list[bool] = []

    def look(record: CoTRecord) -> None:
        seen.append(record.id in [kept.id for kept in records(folder)])

    made, _ = cast()
    await execute(folder, made, prompts(5), on_result=look)
    assert seen == [True] * 5


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_chats_run_at_once_than_allowed(concurrency: int, folder: Path) -> None:
    with Endpoint(reply=agree, latency=0.005) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(6), concurrency)
    assert endpoint.max_in_flight == concurrency
    assert endpoint.counts == {"ok": 6 * CALLS_PER_CHAT}


# Every reply, before it is used ------------------------------------------------------------------


async def test_a_reply_is_in_the_journal_before_the_next_call_is_made(folder: Path) -> None:
    kept: list[int] = []

    def script(messages: Sequence[LLMMessage], arguments: Any) -> Any:
        kept.append(len(answers(folder / FILE_NAME)))
        return agreeable(messages, arguments)

    made, _ = cast(script)
    await execute(folder, made, prompts(1))
    assert kept == list(range(CALLS_PER_CHAT))


CORRECTED = [
    intents("To know something."),
    "no JSON at all",  # and so is asked for again
    draft("It is harmless.", "So help."),
    *[accepts()] * 3,
    refines(),
]


@pytest.mark.parametrize("good", range(len(CORRECTED)))
async def test_a_chat_that_was_cut_off_goes_on_at_the_first_call_that_is_missing(
    good: int, folder: Path, tmp_path: Path
) -> None:
    gone = EndpointMisconfigured("The key was withdrawn.", "Get another.")
    made, client = cast([*CORRECTED[:good], gone])
    with pytest.raises(EndpointMisconfigured):
        await execute(folder, made, prompts(1))
    assert good == 0 or records(folder) == []

    made, again = cast(CORRECTED[good:])
    summary = await execute(folder, made, prompts(1))
    assert summary.outcomes == {"completed": 1}
    assert (summary.replayed, summary.calls) == (good, len(CORRECTED))

    # It made the calls, and has the record, of a run that nothing happened to.
    whole, undisturbed = cast(CORRECTED)
    await execute(tmp_path / "undisturbed", whole, prompts(1))
    assert [*client.requests[:good], *again.requests] == undisturbed.requests
    assert [timeless(record) for record in records(folder)] == [
        timeless(record) for record in records(tmp_path / "undisturbed")
    ]


def timeless(record: CoTRecord) -> dict[str, Any]:
    """A record without what is never twice the same."""
    data = record.model_dump()
    for timed in (data, *data["turns"], *(c for t in data["turns"] for c in t["discarded"])):
        del timed["latency"]
    del data["provenance"]["started_at"], data["provenance"]["finished_at"]
    return data


async def test_a_reply_of_another_prompt_is_never_taken(folder: Path) -> None:
    made, client = cast()
    source = [Prompt("a", "The same?"), Prompt("b", "The same? ")]
    await execute(folder, made, iter(source), 1)
    assert len(client.requests) == 2 * CALLS_PER_CHAT


# Going on ----------------------------------------------------------------------------------------


async def test_the_same_run_again_calls_nothing_twice(folder: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(3))
        summary = await execute(folder, cast_at(endpoint), prompts(5))
    assert endpoint.counts == {"ok": 5 * CALLS_PER_CHAT}
    assert (summary.done_before, summary.done, summary.pending) == (3, 2, 0)
    assert summary.outcomes == {"completed": 5}
    assert [record.id for record in records(folder)] == ["p0", "p1", "p2", "p3", "p4"]


@pytest.mark.parametrize("outcome", ["refused", "malformed", "truncated", "failed"])
async def test_prompts_of_any_outcome_are_not_taken_up_again_by_themselves(
    outcome: str, folder: Path
) -> None:
    made, _ = cast(by_prompt)
    source = [Prompt("a", f"{outcome.capitalize()} please?")]
    await execute(folder, made, iter(source))
    again, client = cast()
    summary = await execute(folder, again, iter(source))
    assert client.requests == []
    assert summary.outcomes == {outcome: 1}


async def test_a_prompt_whose_text_has_changed_is_not_taken_for_done(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(1))
    made, client = cast()
    with pytest.raises(InputError, match="'p0' has another text"):
        await execute(folder, made, iter([Prompt("p0", "Another text?")]))
    assert client.requests == []


async def test_prompts_of_a_second_source_come_after_those_of_the_first(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(3))
    async with opened(folder, cast()[0], Source("another")) as run:
        summary = await run.execute(prompts(2, start=10), 1)
    assert [record.id for record in records(folder)] == ["p0", "p1", "p2", "p10", "p11"]
    assert (summary.prompts, summary.done_before) == (2, 3)


# The folder --------------------------------------------------------------------------------------


async def test_what_determines_the_output_is_in_the_folder_and_no_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Endpoint(reply=agree, api_key="sk-secret") as endpoint:
        await execute(folder, cast_at(endpoint), prompts(1))
    settings = yaml.safe_load((folder / SETTINGS_NAME).read_text())
    parts = ["run", "kind", "prompts", "policies", "prompt_texts", "recipe", "personas", "models"]
    assert list(settings) == parts
    assert settings["models"]["default"]["endpoint"]["model"] == "m"
    assert b"sk-secret" not in everything_in(folder)
