"""What a run promises: one outcome for every prompt, nothing twice, all of it on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from autogen_core.models import LLMMessage

from agents.models.errors import (
    EndpointError,
)
from agents.models.model import Model
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord
from orchestration.run import SETTINGS_NAME, Run
from policies import InputError, load_policy_set
from tests.endpoint import Endpoint
from tests.orchestration.runs import (
    CALLS_PER_CHAT,
    SOURCE,
    agree,
    cast_at,
    everything_in,
    execute,
    prompts,
    records,
)
from tests.scripted import agreeable, cast, kind_of_turn, result

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
    assert summary.stop_reasons == {"consensus": 1}
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
    await execute(folder, made, prompts(5), on_record=look)
    assert seen == [True] * 5


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_chats_run_at_once_than_allowed(concurrency: int, folder: Path) -> None:
    with Endpoint(reply=agree, latency=0.005) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(6), concurrency)
    assert endpoint.max_in_flight == concurrency
    assert endpoint.counts == {"ok": 6 * CALLS_PER_CHAT}


async def test_prompts_are_taken_as_chats_become_free(folder: Path) -> None:
    taken: list[int] = []
    done: list[CoTRecord] = []

    def source() -> Iterator[Prompt]:
        for number, prompt in enumerate(prompts(20)):
            taken.append(number)
            assert len(taken) <= len(done) + 2
            yield prompt

    made, _ = cast()
    await execute(folder, made, source(), 2, on_record=done.append)
    assert len(done) == 20


# Going on ----------------------------------------------------------------------------------------


async def test_the_same_run_again_calls_nothing_twice(folder: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(3))
        passed: list[None] = []
        summary = await execute(
            folder, cast_at(endpoint), prompts(5), on_passed=lambda: passed.append(None)
        )
    assert endpoint.counts == {"ok": 5 * CALLS_PER_CHAT}
    assert (summary.done_before, len(passed)) == (3, 3)
    assert summary.outcomes == {"completed": 5}
    assert [record.id for record in records(folder)] == ["p0", "p1", "p2", "p3", "p4"]


def changed(kind: str) -> Cast:
    """The test's cast with another something."""
    made, _ = cast()
    policy_set, recipe, personas = made.policy_set, made.recipe, dict(made.personas)
    models = dict(made.models)
    if kind == "policies":
        policy_set = load_policy_set("mlcommons")
    elif kind == "recipe":
        recipe = recipe.model_copy(update={"rounds": 9})
    elif kind == "personas":
        personas["refiner"] = personas["refiner"].model_copy(update={"instructions": "Else."})
    else:
        config = models["default"].config.model_copy(update={"temperature": 0.1})
        models["default"] = Model("default", config)
    return Cast(recipe, policy_set, personas, models)


@pytest.mark.parametrize("kind", ["policies", "recipe", "personas", "models"])
async def test_a_run_with_other_settings_does_not_go_into_the_same_folder(
    kind: str, folder: Path
) -> None:
    made, _ = cast()
    await execute(folder, made, prompts(1))
    before = (folder / SETTINGS_NAME).read_text()
    with pytest.raises(InputError, match=f"was started with other {kind}") as caught:
        Run(folder, changed(kind), SOURCE)
    assert "--out" in caught.value.remedy
    assert (folder / SETTINGS_NAME).read_text() == before


async def test_how_the_endpoint_is_reached_may_change_within_a_run(folder: Path) -> None:
    with Endpoint(reply=agree) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(1))
        patient = cast_at(endpoint, timeout=99, max_retries=7, api_key_env="MY_KEY")
        summary = await execute(folder, patient, prompts(2))
        assert summary.outcomes == {"completed": 2}
        await execute(folder, cast_at(endpoint), prompts(2))
        with pytest.raises(InputError, match="other models"):
            Run(folder, cast_at("http://127.0.0.1:1/v1"), SOURCE)


async def test_a_prompt_whose_text_has_changed_is_not_taken_for_done(folder: Path) -> None:
    made, _ = cast()
    await execute(folder, made, prompts(1))
    with pytest.raises(InputError, match="'p0' has another text"):
        await execute(folder, cast()[0], iter([Prompt("p0", "Another text?")]))


async def test_a_prompt_in_another_unicode_form_is_the_same_prompt(folder: Path) -> None:
    composed, decomposed = "Un caf\u00e9?", "Un cafe\u0301?"
    await execute(folder, cast()[0], iter([Prompt("p", composed)]))
    summary = await execute(folder, cast()[0], iter([Prompt("p", decomposed)]))
    assert summary.done_before == 1


async def test_prompts_of_a_second_source_come_after_those_of_the_first(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(3))
    run = Run(folder, cast()[0], {"source": "another"})
    await run.execute(prompts(2, start=10), 1)
    run.close()
    assert [record.id for record in records(folder)] == ["p0", "p1", "p2", "p10", "p11"]


async def test_prompts_of_an_outcome_are_tried_once_more_if_asked_for(folder: Path) -> None:
    made, _ = cast(by_prompt)
    source = [Prompt("a", "Failed please?"), Prompt("b", "Malformed please?")]
    await execute(folder, made, iter(source))
    again, client = cast()
    summary = await execute(folder, again, iter(source))
    assert client.requests == []
    again, _ = cast()
    summary = await execute(folder, again, iter(source), retry=["failed"])
    assert summary.outcomes == {"completed": 1, "malformed": 1}
    assert [record.outcome for record in records(folder)] == ["completed", "malformed"]


async def test_what_determines_the_output_is_in_the_folder_and_no_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with Endpoint(reply=agree, api_key="sk-secret") as endpoint:
        await execute(folder, cast_at(endpoint), prompts(1))
    settings = yaml.safe_load((folder / SETTINGS_NAME).read_text())
    assert list(settings) == ["prompts", "policies", "recipe", "personas", "models"]
    assert settings["models"]["default"]["endpoint"]["model"] == "m"
    assert b"sk-secret" not in everything_in(folder)
