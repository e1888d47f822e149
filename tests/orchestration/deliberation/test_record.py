"""The CoT record: everything that a chat was, and no more than that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any

import jsonschema
import pytest
from autogen_agentchat.messages import TextMessage, ThoughtEvent
from autogen_core.models import RequestUsage

from agents.models.config import EndpointConfig, ModelConfig
from agents.models.model import Model
from orchestration.deliberation.recipe import Cast, load_recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.serialize import record_of
from orchestration.prompts.reader import Prompt
from orchestration.runs.result import OUTCOMES, ChatEnd, Outcome
from policies import load_policy_set
from tests.orchestration.chat.speakers import vote
from tests.scripted import (
    ScriptedClient,
    accepts,
    agreeable,
    cast,
    draft,
    drop,
    intents,
    kind_of_turn,
    refines,
    result,
    revises,
    thought,
)

PROMPT = Prompt("p-1", "How do I kill a Python process?", {"category": "benign", "n": 3})

CIRCLE = ("policy_auditor", "helpfulness_advocate", "risk_analyst")

REPLIES: Sequence[Any] = (
    intents("To end a process."),
    "this is not JSON",  # and so is asked for again
    draft("It is harmless.", "It is said twice.", "So help."),
    revises(
        add=[thought("Unsaved data may be lost.", "RH2")],
        correct=[{"thought": 1, **thought("It is a common task.", "RH1")}],
        response="Use kill. Save your data first.",
    ),
    accepts(),
    accepts(),
    refines(drop(2, "redundant", "Thought 3 says it.")),
)


async def make_record(made: Cast) -> CoTRecord:
    chat = made.make_chat()
    started = datetime.now(UTC)
    reason: str | None = None
    broke_off: tuple[Outcome, str] | None = None
    try:
        reason = (await chat.run(task=PROMPT.text)).stop_reason
    except OSError as error:
        broke_off = ("failed", str(error))
    return record_of(made, PROMPT, ChatEnd(chat.messages, reason, started, broke_off))


async def a_record() -> CoTRecord:
    made, client = cast([result(json.dumps(r) if isinstance(r, dict) else r) for r in REPLIES])
    record = await make_record(made)
    assert len(client.requests) == len(REPLIES)
    return record


# What a completed record holds


async def test_it_says_what_was_asked_and_how_it_ended() -> None:
    record = await a_record()
    assert (record.id, record.prompt, record.metadata) == (PROMPT.id, PROMPT.text, PROMPT.metadata)
    assert (record.outcome, record.problem) == ("completed", None)
    assert (record.stop_reason, record.rounds) == ("consensus", 1)
    assert record.ignored_references == 0


async def test_it_holds_intents_final_chain_and_response() -> None:
    record = await a_record()
    (intent,) = record.intents
    assert (intent.text, intent.kind, intent.nature) == ("To end a process.", "explicit", "benign")
    assert [(t.id, t.text, t.author, t.round) for t in record.thoughts] == [
        (4, "It is a common task.", "policy_auditor", 1),
        (3, "So help.", "drafter", 0),
        (5, "Unsaved data may be lost.", "policy_auditor", 1),
    ]
    assert [(t.policies, t.rules) for t in record.thoughts] == [
        (["respect_helpfulness"], ["RH1"]),
        (["respect_helpfulness"], ["RH1"]),
        (["respect_helpfulness"], ["RH2"]),
    ]
    assert record.thoughts[0].replaces == 1
    assert record.response == "Use kill. Save your data first."
    assert record.response_by == "policy_auditor"


async def test_it_holds_what_was_removed_by_whom_and_why() -> None:
    record = await a_record()
    assert [(r.thought.text, r.reason, r.why, r.by, r.round) for r in record.removed_thoughts] == [
        ("It is harmless.", "corrected", "", "policy_auditor", 1),
        ("It is said twice.", "redundant", "Thought 3 says it.", "refiner", 0),
    ]
    assert record.removed_thoughts[0].replaced_by == 4


async def test_it_holds_the_transcript_turn_by_turn() -> None:
    record = await a_record()
    assert [(t.agent, t.persona, t.role, t.round) for t in record.turns] == [
        ("intent_analyst", "intent_analyst", "intent_analyst", 0),
        ("drafter", "drafter", "drafter", 0),
        *((name, name, "deliberator", 1) for name in CIRCLE),
        ("refiner", "refiner", "refiner", 0),
    ]
    for turn in record.turns:
        assert turn.instruction.startswith(f"You are now the {turn.agent}: ")
        assert json.loads(turn.raw)
        assert (turn.model, turn.served_model, turn.finish_reason) == (
            "default",
            "scripted",
            "stop",
        )
        assert turn.usage.completion_tokens == 10
        assert turn.latency >= 0
        assert turn.outcome == "completed"
    assert [turn.stance for turn in record.turns] == (
        [None, None, "revises", "accepts", "accepts", None]
    )


async def test_it_holds_replies_that_were_asked_for_again_and_counts_them() -> None:
    record = await a_record()
    drafter = record.turns[1]
    (first,) = drafter.discarded
    assert first.raw == "this is not JSON"
    assert first.problem
    assert record.usage.prompt_tokens == 100 * len(REPLIES)
    assert record.usage.completion_tokens == 10 * len(REPLIES)
    calls = [call for turn in record.turns for call in (turn, *turn.discarded)]
    assert record.latency == pytest.approx(sum(call.latency for call in calls), abs=1e-3)


async def test_it_says_what_it_was_made_of() -> None:
    made, _ = cast(agreeable)
    before = datetime.now(UTC)
    origin = (await make_record(made)).provenance
    assert origin.aidsafe == version("aidsafe")
    assert origin.autogen == version("autogen-agentchat")
    assert origin.python.startswith("3.")
    policy_set = made.policy_set
    assert origin.policy_set == f"{policy_set.id}@{policy_set.version}"
    assert origin.policy_set_hash == policy_set.hash
    assert origin.policies == {policy.id: policy.hash for policy in policy_set.policies}
    assert (origin.recipe, origin.recipe_hash) == ("test", made.recipe.hash)
    assert (origin.prompts, origin.prompts_hash) == ("default", made.prompts.hash)
    assert origin.personas == {
        name: made.personas[name].hash for name in ("intent_analyst", "drafter", *CIRCLE, "refiner")
    }
    started, finished = map(datetime.fromisoformat, (origin.started_at, origin.finished_at))
    assert before - timedelta(milliseconds=1) <= started <= finished
    assert started.utcoffset() == finished.utcoffset() == timedelta(0)


def cast_of(config: ModelConfig, seed: int = 7) -> Cast:
    config = config.model_copy(update={"seed": seed, "temperature": 0.3, "top_p": 0.9})
    model = Model("default", config, ScriptedClient(agreeable))
    return Cast(load_recipe("default"), load_policy_set("aidsafe"), {"default": model})


async def test_it_holds_models_with_sampling_and_seed() -> None:
    endpoint = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="scripted")
    config = (await make_record(cast_of(ModelConfig(endpoint=endpoint)))).provenance.models
    assert list(config) == ["default"]
    assert config["default"]["endpoint"]["model"] == "scripted"
    assert config["default"]["endpoint"]["base_url"] == "http://127.0.0.1:9/v1"
    assert [config["default"][key] for key in ("seed", "temperature", "top_p")] == [7, 0.3, 0.9]


async def test_it_holds_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    config = ModelConfig(
        component={
            "provider": "autogen_ext.models.openai.OpenAIChatCompletionClient",
            "component_type": "model",
            "config": {
                "model": "gpt-4o-mini",
                "api_key": "sk-from-the-config",
                "default_headers": {"Authorization": "Bearer sk-from-a-header"},
            },
        }
    )
    text = (await make_record(cast_of(config))).model_dump_json()
    assert "gpt-4o-mini" in text
    assert "sk-" not in text


# Its form


async def test_it_keeps_its_own_schema_and_goes_through_json() -> None:
    schema = CoTRecord.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    failed, _ = cast([OSError("the line is dead")])
    for record in (await a_record(), await make_record(failed)):
        text = record.model_dump_json()
        validator.validate(json.loads(text))
        assert CoTRecord.model_validate_json(text) == record
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**json.loads(text), "mood": "good"})


async def test_it_goes_through_json_with_any_text() -> None:
    odd = 'Zeile\u2028 "quotes" \\ \x00 \N{PILE OF POO} \u202e'

    def script(messages: Any, arguments: Any) -> Any:
        reply = agreeable(messages, arguments)
        return draft(odd, response=odd) if "thoughts" in reply else reply

    made, _ = cast(script)
    record = await make_record(made)
    assert record.response == odd
    assert CoTRecord.model_validate_json(record.model_dump_json()) == record


# How it ended


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("consensus, round_budget", "consensus"),
        ("round_budget, token_budget", "token_budget"),
        ("round_budget", "round_budget"),
        ("Maximum number of turns 3 reached.", "Maximum number of turns 3 reached."),
        ("External termination requested, consensus", "consensus"),
    ],
)
async def test_of_several_reasons_the_one_that_says_most_is_kept(reason: str, kept: str) -> None:
    made, _ = cast()
    chat = made.make_chat()
    await chat.run(task=PROMPT.text)
    record = record_of(made, PROMPT, ChatEnd(chat.messages, reason, datetime.now(UTC)))
    assert record.stop_reason == kept


async def test_consensus_in_the_last_round_is_consensus() -> None:
    made, _ = cast(rounds=1)
    record = await make_record(made)
    assert (record.stop_reason, record.rounds) == ("consensus", 1)


async def test_rounds_are_counted_without_consensus_too() -> None:
    def never(messages: Any, arguments: Any) -> Any:
        reply = agreeable(messages, arguments)
        return {**reply, "verdict": "revise"} if "verdict" in reply else reply

    made, _ = cast(never, rounds=3)
    record = await make_record(made)
    assert (record.outcome, record.stop_reason, record.rounds) == ("completed", "round_budget", 3)
    assert [turn.round for turn in record.turns] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0]


FAILED_REPLIES = {
    "refused": result("", finish_reason="content_filter"),
    "malformed": "no JSON, whatever one asks",
    "truncated": result('{"thoughts": [', finish_reason="length"),
}


@pytest.mark.parametrize("outcome", FAILED_REPLIES)
@pytest.mark.parametrize("kind", ["intents", "draft", "deliberation", "refinement"])
async def test_a_turn_without_a_reply_is_the_outcome(outcome: str, kind: str) -> None:
    def script(messages: Any, arguments: Any) -> Any:
        instruction = next(
            m for m in reversed(messages) if "This turn: " in str(getattr(m, "content", ""))
        )
        if kind_of_turn([instruction]) == kind:
            return FAILED_REPLIES[outcome]
        return agreeable(messages, arguments)

    made, _ = cast(script)
    record = await make_record(made)
    last = record.turns[-1]
    assert record.outcome == record.stop_reason == last.outcome == outcome
    assert record.problem == f"{last.agent}: {last.problem}"
    assert last.problem
    assert record.outcome in OUTCOMES
    assert record.usage.completion_tokens > 0
    if kind in ("deliberation", "refinement"):
        assert record.thoughts, "what there was stays to be read"


async def test_an_endpoint_that_gives_out_is_a_failure_that_keeps_the_transcript() -> None:
    made, _ = cast([*REPLIES[:1], REPLIES[2], OSError("the line is dead")])
    record = await make_record(made)
    assert (record.outcome, record.stop_reason) == ("failed", "failed")
    assert record.problem == "the line is dead"
    assert [turn.agent for turn in record.turns] == ["intent_analyst", "drafter"]
    assert record.response == "The first response."


async def test_a_chat_that_failed_before_anything_was_said_has_a_record() -> None:
    made, _ = cast()
    record = record_of(made, PROMPT, ChatEnd((), None, datetime.now(UTC), ("failed", "no luck")))
    assert (record.outcome, record.turns, record.rounds) == ("failed", [], 0)


async def test_a_chat_that_a_limit_cut_off_keeps_its_transcript() -> None:
    made, _ = cast()
    chat = made.make_chat()
    await chat.run(task=PROMPT.text)
    record = record_of(
        made,
        PROMPT,
        ChatEnd(
            chat.messages[:3],
            None,
            datetime.now(UTC),
            ("over_budget", "--max-tokens 9 is reached."),
        ),
    )
    assert (record.outcome, record.stop_reason) == ("over_budget", "over_budget")
    assert record.problem == "--max-tokens 9 is reached."
    assert [turn.agent for turn in record.turns] == ["intent_analyst", "drafter"]


async def test_a_chat_that_did_not_come_to_its_end_is_not_completed() -> None:
    made, _ = cast()
    chat = made.make_chat()
    await chat.run(task=PROMPT.text)
    record = record_of(made, PROMPT, ChatEnd(chat.messages, None, datetime.now(UTC)))
    assert record.outcome == "failed"
    assert record.problem == "The chat did not end."


async def test_a_chat_without_thoughts_is_malformed() -> None:
    made, _ = cast()
    said = [TextMessage(content=PROMPT.text, source="user"), vote("policy_auditor", "accepts")]
    record = record_of(made, PROMPT, ChatEnd(said, "consensus", datetime.now(UTC)))
    assert record.outcome == "malformed"
    assert record.problem == "The chat ended without thoughts or a response."


async def test_a_guests_words_are_a_turn_and_its_events_are_none() -> None:
    made, _ = cast()
    chat = made.make_chat()
    said = [*(await chat.run(task=PROMPT.text)).messages]
    said[3:3] = [
        ThoughtEvent(content="Hm.", source="guest"),
        TextMessage(content="Well.", source="guest", models_usage=RequestUsage(30, 4)),
    ]
    record = record_of(made, PROMPT, ChatEnd(said, "consensus", datetime.now(UTC)))
    assert len(record.turns) == 7
    turn = record.turns[2]
    assert (turn.agent, turn.role, turn.raw, turn.reply) == ("guest", "guest", "Well.", None)
    assert (turn.usage.prompt_tokens, turn.usage.completion_tokens) == (30, 4)
    assert record.outcome == "completed"
