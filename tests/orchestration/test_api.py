"""The front door: casts, records and runs from a script or a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_agentchat.base import TaskResult
from autogen_agentchat.conditions import FunctionalTermination
from autogen_core.models import LLMMessage

import orchestration
from agents.models.config import EMBEDDED
from agents.models.errors import EndpointError
from agents.models.model import Model
from agents.persona import find_persona
from agents.turns import TurnMessage
from orchestration import (
    deliberate,
    diff,
    load_cast,
    load_pair_cast,
    make_pair,
    make_pairs,
    open_run,
)
from orchestration.chat.models import endpoint_model
from orchestration.deliberation.recipe import load_recipe
from orchestration.pairs.recipe import load_pair_recipe
from orchestration.prompts.reader import Prompt, prompt_id
from policies import AidsafeError, InputError, load_policy_set
from tests.endpoint import Endpoint, Fault
from tests.orchestration.front_door import QUESTION, a_cast, records
from tests.orchestration.pairs.scripts import pairs, whisper
from tests.orchestration.run_helpers import CALLS_PER_CHAT, agree
from tests.scripted import agreeable, kind_of_turn, result

# The door itself


def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    script = "import sys, orchestration; print(len([m for m in sys.modules if 'autogen' in m]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_every_name_can_be_imported_and_others_are_unknown() -> None:
    for name in orchestration.__all__:
        assert callable(getattr(orchestration, name))
    with pytest.raises(AttributeError, match="no attribute 'deliberat'"):
        _ = orchestration.deliberat


# Casts


def test_with_nothing_named_a_cast_is_the_embedded_model_with_the_small_recipe() -> None:
    cast = load_cast()
    assert cast.models["default"].config == EMBEDDED
    assert cast.recipe.name == "small"
    assert cast.policy_set.id == "aidsafe"
    assert cast.default_concurrency == 1


def test_a_model_is_named_by_its_address_and_name() -> None:
    cast = load_cast(model="http://localhost:8000/v1#Qwen/Qwen3-32B", seed=7)
    config = cast.models["default"].config
    assert config.endpoint is not None
    assert config.endpoint.base_url == "http://localhost:8000/v1"
    assert config.endpoint.model == "Qwen/Qwen3-32B"
    assert config.seed == 7
    assert cast.recipe.name == "default"
    assert cast.default_concurrency == 16


@pytest.mark.parametrize(
    ("variable", "url"), [(None, "https://api.openai.com/v1"), ("http://here/v1", "http://here/v1")]
)
def test_a_name_alone_is_a_model_of_openai_or_where_its_variable_says(
    variable: str | None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    if variable:
        monkeypatch.setenv("OPENAI_BASE_URL", variable)
    config = load_cast(model="gpt-4.1").models["default"].config
    assert config.endpoint is not None
    assert (config.endpoint.base_url, config.endpoint.model) == (url, "gpt-4.1")


def test_objects_are_taken_as_well_as_names_and_files(tmp_path: Path) -> None:
    shipped = find_persona("risk_analyst")
    before = shipped.hash  # a copy must not take it over
    editor = shipped.model_copy(update={"instructions": "Be terse."})
    (tmp_path / "risk_analyst.yaml").write_text(
        "name: risk_analyst\nrole: deliberator\ndescription: x\ninstructions: Be terse.\n"
    )
    models = tmp_path / "models.yaml"
    models.write_text("models: {default: {endpoint: {base_url: 'http://x/v1', model: m}}}")
    for cast in (
        load_cast(
            load_policy_set("mlcommons"),
            load_recipe("default"),
            [editor],
            model=endpoint_model("m", "http://x/v1"),
        ),
        load_cast("mlcommons", "default", {"mine": editor}, model=Model("default", EMBEDDED)),
        load_cast("mlcommons", "default", str(tmp_path), models=models),
        load_cast("mlcommons", "default", tmp_path, models={"default": "http://x/v1#m"}),
    ):
        assert cast.policy_set.id == "mlcommons"
        assert cast.recipe.name == "default"
        assert cast.personas["risk_analyst"].instructions == "Be terse."
    assert editor.hash != before


def test_any_client_of_autogen_can_be_the_model_and_no_key_of_it_is_shown() -> None:
    from autogen_ext.models.openai import OpenAIChatCompletionClient

    client = OpenAIChatCompletionClient(model="gpt-4.1", api_key="sk-secret", base_url="http://x")
    cast = load_cast(model=client)
    public = json.dumps(cast.models["default"].config.public())
    assert "OpenAIChatCompletionClient" in public
    assert "gpt-4.1" in public
    assert "sk-secret" not in public + cast.notice


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"model": "http://localhost:8000/v1"}, "name of the model is empty.*URL#NAME"),
        ({"model": ""}, "name of the model is empty"),
        ({"model": "http://key@x/v1#m", "models": {}}, "Both model and models"),
        ({"models": {"big": "gpt-4.1"}}, "No model is called 'default'"),
        ({"model": Model("big", EMBEDDED)}, "'default' has the name 'big'"),
        ({"policies": "nowhere"}, "no policy set 'nowhere'"),
        ({"recipe": "nowhere"}, "no recipe 'nowhere'"),
        ({"personas": "nowhere"}, "folder nowhere does not exist"),
        ({"models": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_what_cannot_be_used_is_named_with_a_remedy(options: dict[str, Any], cause: str) -> None:
    with pytest.raises(AidsafeError, match=cause) as error:
        load_cast(**options)
    assert str(error.value).count(".") >= 2


# One prompt


async def test_a_prompt_becomes_a_record_in_three_lines() -> None:
    cast, client = a_cast()
    async with cast:
        record = await deliberate(f"  {QUESTION}\n", cast)
        again = await deliberate(Prompt("mine", QUESTION, {"source": "test"}), cast)
    assert (record.id, record.prompt) == (prompt_id(QUESTION), QUESTION)
    assert (record.outcome, record.stop_reason) == ("completed", "consensus")
    assert (again.id, again.metadata) == ("mine", {"source": "test"})
    assert len(client.requests) == 2 * CALLS_PER_CHAT


async def test_a_chat_without_a_usable_reply_is_a_record_and_no_error() -> None:
    refusal = result("", refusal="I cannot.")
    cast, _ = a_cast(lambda *_: refusal)
    record = await deliberate(QUESTION, cast)
    assert record.outcome == "refused"
    assert record.response is None


async def test_an_endpoint_that_fails_raises() -> None:
    with Endpoint(reply=agree, faults=[None, *[Fault.UNAUTHORIZED] * 9]) as endpoint:
        async with load_cast(model=f"{endpoint.base_url}#m") as cast:
            with pytest.raises(EndpointError):
                await deliberate(QUESTION, cast)


@pytest.mark.parametrize("prompt", ["", " \n", "a\0b", "\ud800"])
async def test_what_is_no_prompt_is_refused_before_any_call(prompt: str) -> None:
    cast, client = a_cast()
    with pytest.raises(InputError, match="prompt"):
        await deliberate(prompt, cast)
    assert not client.requests


async def test_closing_a_cast_closes_its_connections_and_it_can_be_used_again() -> None:
    with Endpoint(reply=agree) as endpoint:
        cast = load_cast(model=f"{endpoint.base_url}#m")
        for _ in range(2):
            assert (await deliberate(QUESTION, cast)).outcome == "completed"
            await cast.close()


# One step below: the chat


async def test_the_record_of_a_chat_needs_nothing_but_the_chat() -> None:
    cast, _ = a_cast()
    chat = cast.make_chat()
    with pytest.raises(InputError, match="has not run yet"):
        cast.record(chat)
    streamed = [item async for item in chat.run_stream(task=QUESTION)]
    assert isinstance(streamed[-1], TaskResult)
    record = cast.record(chat)
    assert (record.prompt, record.outcome) == (QUESTION, "completed")
    assert record.stop_reason == chat.stop_reason == "consensus"
    assert chat.started_at is not None
    assert record.provenance.started_at == chat.started_at.isoformat(timespec="milliseconds")
    assert record.provenance.termination is None


async def test_the_record_of_a_restored_chat_is_the_same() -> None:
    cast, _ = a_cast()
    chat, other = cast.make_chat(), cast.make_chat()
    await chat.run(task=QUESTION)
    await other.load_state(await chat.save_state())
    left_out = {"provenance"}
    record = cast.record(other)
    assert record.model_dump(exclude=left_out) == cast.record(chat).model_dump(exclude=left_out)
    await other.reset()
    assert other.stop_reason is None


async def test_a_chat_that_failed_or_is_running_has_no_stop_reason() -> None:
    cast, client = a_cast()
    chat = cast.make_chat()
    await chat.run(task=QUESTION)
    client._script = lambda *_: ValueError("odd")
    await chat.reset()
    with pytest.raises(EndpointError, match="odd"):
        await chat.run(task=QUESTION)
    assert chat.stop_reason is None
    assert cast.record(chat).outcome == "failed"


async def test_a_guest_speaks_in_every_round_and_need_not_agree() -> None:
    from autogen_agentchat.agents import AssistantAgent
    from autogen_ext.models.replay import ReplayChatCompletionClient

    def disagree(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
        reply = agreeable(messages, arguments)
        return reply | {"verdict": "revise"} if kind_of_turn(messages) == "deliberation" else reply

    cast, _ = a_cast(disagree, recipe=load_recipe("default").model_copy(update={"rounds": 2}))
    client = ReplayChatCompletionClient(["Use kill."] * 2)
    guest = AssistantAgent("sysadmin", client)
    chat = cast.make_chat(guests=[guest])
    await chat.run(task=QUESTION)
    record = cast.record(chat)
    assert record.stop_reason == "round_budget"
    assert [turn.raw for turn in record.turns if turn.role == "guest"] == ["Use kill."] * 2
    assert [turn.agent for turn in record.turns if turn.role == "guest"] == ["sysadmin"] * 2
    assert record.turns[2].agent == "sysadmin"
    heard = [str(message.content) for message in client.create_calls[0]["messages"]]
    assert heard[1] == QUESTION
    assert heard[3].endswith("Response: The first response."), "words, and not a turn's JSON"


async def test_another_termination_condition_is_used_and_recorded() -> None:
    def spoken(messages: Sequence[Any]) -> bool:
        return any(isinstance(m, TurnMessage) and m.source == "policy_auditor" for m in messages)

    cast, _ = a_cast(
        termination=lambda recipe: recipe.termination() | FunctionalTermination(spoken)
    )
    first, second = await deliberate(QUESTION, cast), await deliberate(QUESTION, cast)
    for record in (first, second):
        assert record.stop_reason == "Functional termination condition met"
        said = json.dumps(record.provenance.termination)
        assert "ConsensusTermination" in said
        assert "FunctionalTermination" in said


# Pairs


def chat_or_pair(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    kind = kind_of_turn(messages)
    script = pairs if kind in ("belief", "answer", "judgement") else agreeable
    return script(messages, arguments)


async def test_a_record_becomes_a_pair_whose_bad_side_is_labelled() -> None:
    cast, _ = a_cast(chat_or_pair)
    record = await deliberate(QUESTION, cast)
    pair = await make_pair(record, cast)
    assert pair.outcome == "completed"
    assert pair.provenance.recipe == "default"
    assert (pair.id, pair.chosen.label, pair.chosen.response) == (
        record.id,
        "safe",
        record.response,
    )
    assert pair.rejected is not None
    assert pair.rejected.label in ("unsafe", "over_refusal")
    assert (pair.generation, bool(pair.exemplars)) == (0, True)
    recipe = load_pair_recipe("default").model_copy(update={"attempts": 1})
    again = await make_pair(record, load_pair_cast(cast, recipe, baseline=True))
    assert (again.rejected_by, again.attempts) == ("temperature", 1)
    with pytest.raises(InputError, match="needs a completed one"):
        await make_pair(record.model_copy(update={"outcome": "refused"}), cast)


async def test_the_embedded_model_gets_the_small_pair_recipe() -> None:
    assert load_pair_cast(load_cast()).recipe.name == "small"
    assert load_pair_cast(load_cast(), "default", model="m").recipe.name == "default"


async def test_all_records_of_a_run_become_pairs_with_the_models_of_the_run(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    with Endpoint(reply=whisper) as endpoint:
        async with load_cast(model=f"{endpoint.base_url}#m") as cast:
            made = await records([f"Prompt {n}?" for n in range(3)], cast, run)
        found = [pair async for pair in make_pairs(run, concurrency=1)]
        calls = endpoint.counts["ok"]
        again = [pair async for pair in make_pairs(run)]
        assert endpoint.counts["ok"] == calls, "nothing is called for again"
        sampled = [pair async for pair in make_pairs(run, baseline=True, limit=2)]
    assert {pair.id for pair in found} == {pair.id for pair in again} == {r.id for r in made}
    assert [pair.rejected_by for pair in sampled] == ["temperature"] * 2
    with open_run(run / "pairs") as pair_run:
        assert sorted(pair.id for pair in pair_run) == sorted(pair.id for pair in found)
        frame, unsafe = pair_run.to_pandas(), pair_run.to_pandas(unsafe=True)
        columns = " ".join((open_run.__doc__ or "").split())
    assert set(unsafe.columns) - set(frame.columns) == {"unsafe_rejected", "unsafe_belief"}
    assert not frame.map(lambda cell: "Level" in str(cell)).any().any(), "no rejected text"
    assert all(str(text).startswith("Level") for text in unsafe["unsafe_rejected"])
    for column in unsafe.columns:
        assert any(f"{column}{end}" in columns for end in (",", " (", ".")), column
    with pytest.raises(InputError, match="holds pairs"):
        _ = [pair async for pair in make_pairs(run / "pairs")]


# Comparing


async def test_two_records_are_compared_line_by_line() -> None:
    cast, _ = a_cast()
    edited = cast.personas["drafter"].model_copy(update={"instructions": "Be kind."})
    first = await deliberate(QUESTION, cast)
    second = await deliberate(QUESTION, a_cast(personas=[edited])[0])
    second.thoughts[1].text = "So be careful."
    second.response = "Another response."
    found = diff(first, second)
    assert [name for name, _, _ in found.facts] == ["persona drafter"]
    assert found.thoughts == ["  It is harmless.", "- So help.", "+ So be careful."]
    assert found.response == ["- The first response.", "+ Another response."]
    assert "+ So be careful." in found._repr_html_()
    assert "Another response." in str(found)
    assert edited.hash in str(found)
    assert not diff(first, first).facts
