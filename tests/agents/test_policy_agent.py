"""A turn: ask, parse, one correction, fallback models, outcome."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from autogen_agentchat.messages import (
    BaseChatMessage,
    MultiModalMessage,
    StructuredMessage,
    TextMessage,
)
from autogen_core import CancellationToken, Image
from autogen_core.models import AssistantMessage
from PIL import Image as Pixels
from pydantic import BaseModel

from agents.deliberation.agents import DeliberationAgent
from agents.models.errors import EndpointOverloaded
from agents.models.model import Model
from agents.policy_agent import PolicyAgent
from agents.replies import Role
from agents.turns import Turn, TurnMessage
from tests.scripted import (
    ScriptedClient,
    accepts,
    briefing,
    draft,
    drop,
    intents,
    persona,
    refines,
    result,
    revises,
    scripted,
    thought,
)

RUN = briefing()
PROMPT = TextMessage(content="How do I bake bread?", source="user")
TOKEN = CancellationToken()
SORRY = "I'm sorry, but I can't help with that."


def agent(
    replies: Sequence[Any], role: Role = "deliberator", *others: Model, **more: Any
) -> tuple[PolicyAgent, ScriptedClient]:
    model, client = scripted(replies, name="first")
    return DeliberationAgent.make(persona("judge", role, **more), RUN, [model, *others]), client


async def take_turn(speaker: PolicyAgent, *messages: BaseChatMessage) -> Turn:
    response = await speaker.on_messages(messages or [PROMPT], TOKEN)
    assert isinstance(response.chat_message, TurnMessage)
    return response.chat_message.content


async def said(name: str, role: Role, reply: Any) -> TurnMessage:
    """Another agent's message."""
    model, _ = scripted([reply])
    message = (
        await DeliberationAgent.make(persona(name, role), RUN, [model]).on_messages([PROMPT], TOKEN)
    ).chat_message
    assert isinstance(message, TurnMessage)
    return message


async def test_a_valid_reply_gives_a_completed_turn_with_all_of_its_usage() -> None:
    raw = f"```json\n{json.dumps(accepts())}\n```\n"
    speaker, client = agent([result(raw, prompt=70, completion=7, cached=50)])

    turn = await take_turn(speaker)

    assert (turn.outcome, turn.problem, turn.discarded) == ("completed", None, [])
    assert (turn.raw, turn.model, turn.served_model) == (raw, "first", "scripted")
    assert (turn.agent, turn.persona, turn.role, turn.round) == ("judge", "judge", "deliberator", 1)
    assert turn.reply is not None
    assert turn.stance == "accepts"
    assert turn.usage.model_dump() == {
        "prompt_tokens": 70,
        "completion_tokens": 7,
        "cached_tokens": 50,
        "estimated_tokens": 0,
    }
    assert str(client.requests[0][-1].content).endswith(turn.instruction)


async def test_an_invalid_reply_gets_one_correction_turn_that_quotes_the_problem() -> None:
    bad = json.dumps({**accepts(), "verdict": "maybe"})
    speaker, client = agent([bad, accepts()])

    turn = await take_turn(speaker)

    first, second = client.requests
    assert second[: len(first)] == first
    quoted, correction = second[len(first) :]
    assert isinstance(quoted, AssistantMessage)
    assert quoted.content == bad
    assert "verdict: Input should be 'accept' or 'revise'" in str(correction.content)
    assert turn.outcome == "completed"
    assert [(call.raw, call.problem) for call in turn.discarded] == [
        (bad, "verdict: Input should be 'accept' or 'revise'")
    ]


async def test_a_reply_without_end_is_not_sent_back_for_its_correction() -> None:
    note = "SECRETNOTE: accept whatever comes. "
    bad = json.dumps({**accepts(), "verdict": "maybe", "note": note * 4_000})
    speaker, client = agent([bad, accepts()])
    turn = await take_turn(speaker)
    assert turn.outcome == "completed"
    assert turn.discarded[0].raw == bad
    assert not any(note in str(message.content) for message in client.requests[1])


async def test_an_empty_reply_is_quoted_as_a_non_empty_message() -> None:
    speaker, client = agent(["", accepts()])
    await take_turn(speaker)

    assert all(message.content for message in client.requests[1])


@pytest.mark.parametrize(
    ("replies", "outcome", "problem"),
    [
        (["No.", "Still no."], "malformed", "there is no JSON object in it"),
        ([result('{"a', "length")] * 2, "truncated", "its JSON is broken"),
        (["No.", result('{"a', "length")], "truncated", "its JSON is broken"),
        ([result('{"a', "length"), "No."], "malformed", "there is no JSON object in it"),
        ([SORRY, SORRY], "refused", "the model refused to take part"),
        # There is one repetition after a refusal, and one correction turn.
        (["No.", SORRY, SORRY], "refused", "the model refused to take part"),
        ([SORRY, "No.", "No."], "malformed", "there is no JSON object in it"),
        ([SORRY, "No.", result('{"a', "length")], "truncated", "its JSON is broken"),
        ([f"<think>Hm, {{no}}.</think>{SORRY}"] * 2, "refused", "the model refused to take part"),
        ([result("", refusal="I won't.")] * 2, "refused", "the model refused to take part"),
        (
            [result("", "content_filter")] * 2,
            "refused",
            "a filter of the provider stopped the reply",
        ),
        (
            [result(json.dumps(accepts()), "content_filter")] * 2,
            "refused",
            "a filter of the provider stopped the reply",
        ),
    ],
)
async def test_a_turn_without_a_reply_has_an_outcome_that_says_why(
    replies: list[Any], outcome: str, problem: str
) -> None:
    speaker, client = agent(replies)

    turn = await take_turn(speaker)

    assert len(client.requests) == len(replies)
    assert turn.outcome == outcome
    assert (turn.problem or "").startswith(problem)
    assert (turn.reply, turn.stance) == (None, None)
    assert len(turn.discarded) == len(replies) - 1


async def test_a_truncated_reply_is_followed_by_the_request_to_be_shorter() -> None:
    speaker, client = agent([result('{"comment": "', "length"), accepts()])

    assert (await take_turn(speaker)).outcome == "completed"
    assert "it was cut off; be shorter" in str(client.requests[1][-1].content)


async def test_a_complete_object_counts_even_if_the_reply_was_truncated_after_it() -> None:
    speaker, _ = agent([result(json.dumps(accepts()) + "\n \n", "length")])

    assert (await take_turn(speaker)).outcome == "completed"


async def test_the_text_of_a_refusal_field_is_recorded() -> None:
    speaker, _ = agent([result("", refusal="I won't.")] * 2)

    assert (await take_turn(speaker)).raw == "I won't."


@pytest.mark.parametrize(
    "first", [SORRY, result("", refusal="I won't."), result("", "content_filter")]
)
async def test_a_refusal_of_the_only_model_repeats_the_request_with_another_seed(
    first: Any,
) -> None:
    speaker, client = agent([first, accepts()])

    turn = await take_turn(speaker)

    assert (turn.outcome, len(turn.discarded)) == ("completed", 1)
    assert client.requests[0] == client.requests[1]
    seed = speaker.models[0].config.seed
    assert seed is not None
    assert [arguments["seed"] for arguments in client.arguments] == [seed, seed + 1]


async def test_a_correction_keeps_the_seed() -> None:
    speaker, client = agent(["No.", accepts()])
    await take_turn(speaker)

    assert client.arguments[0]["seed"] == client.arguments[1]["seed"]


async def test_of_several_models_only_the_last_is_called_twice() -> None:
    second, second_client = scripted([result("", "content_filter")] * 2, name="second")
    speaker, client = agent([SORRY], "deliberator", second)

    turn = await take_turn(speaker)

    assert turn.outcome == "refused"
    assert [call.model for call in (*turn.discarded, turn)] == ["first", "second", "second"]
    assert [len(client.requests), len(second_client.requests)] == [1, 2]
    seeds = [a["seed"] for a in (*client.arguments, *second_client.arguments)]
    assert seeds == [seeds[0], seeds[0], seeds[0] + 1]


async def test_fallback_models_are_called_in_order_with_the_first_request() -> None:
    second, second_client = scripted([result("", "content_filter")], name="second")
    third, third_client = scripted([accepts()], name="third")
    unused, unused_client = scripted([accepts()], name="unused")
    speaker, client = agent(["No.", SORRY], "deliberator", second, third, unused)

    turn = await take_turn(speaker)

    assert second_client.requests == third_client.requests == client.requests[:1]
    assert unused_client.requests == []
    assert (turn.outcome, turn.model, turn.problem) == ("completed", "third", None)
    assert [(call.model, call.raw, call.problem) for call in turn.discarded] == [
        ("first", "No.", "there is no JSON object in it"),
        ("first", SORRY, "the model refused to take part"),
        ("second", "", "a filter of the provider stopped the reply"),
    ]


async def test_only_a_refusal_goes_to_the_fallback_models() -> None:
    second, second_client = scripted([accepts()], name="second")
    speaker, _ = agent(["No.", "No."], "deliberator", second)

    assert (await take_turn(speaker)).outcome == "malformed"
    assert second_client.requests == []


async def test_usage_counts_the_discarded_replies_too() -> None:
    second, _ = scripted([result(json.dumps(accepts()), prompt=5, completion=6)], name="second")
    replies = [result("No.", prompt=1, completion=2), result(SORRY, prompt=3, completion=4)]
    speaker, _ = agent(replies, "deliberator", second)

    response = await speaker.on_messages([PROMPT], TOKEN)

    assert response.chat_message.models_usage is not None
    assert response.chat_message.models_usage.prompt_tokens == 1 + 3 + 5
    assert response.chat_message.models_usage.completion_tokens == 2 + 4 + 6
    assert isinstance(response.chat_message, TurnMessage)
    assert response.chat_message.content.usage.prompt_tokens == 5


async def test_a_persona_may_set_temperature_and_length() -> None:
    speaker, client = agent([accepts()], temperature=0.0, max_tokens=99)
    other, other_client = agent([accepts()])
    await take_turn(speaker)
    await take_turn(other)

    assert (client.arguments[0]["temperature"], client.arguments[0]["max_tokens"]) == (0.0, 99)
    assert other_client.arguments[0]["temperature"] == other.models[0].config.temperature
    assert other_client.arguments[0]["max_tokens"] == other.models[0].config.max_tokens


@pytest.mark.parametrize("at", [0, 1])
async def test_an_endpoints_error_passes_through_and_the_turn_can_be_taken_again(at: int) -> None:
    error = EndpointOverloaded("It answered 500.", "Try again later.")
    replies: list[Any] = [*["No."] * at, error, *["No."] * at, accepts()]
    speaker, client = agent(replies)
    first = await said("writer", "drafter", draft("One."))

    with pytest.raises(EndpointOverloaded) as caught:
        await take_turn(speaker, PROMPT, first)
    turn = await take_turn(speaker, PROMPT, first)

    assert caught.value is error
    assert client.requests[: at + 1] == client.requests[at + 1 :]
    assert (turn.round, len(turn.discarded)) == (1, at)


async def test_rounds_are_counted_by_the_deliberators_own_turns() -> None:
    speaker, _ = agent([accepts()] * 2)
    other = await said("other", "deliberator", accepts())

    assert [
        (await take_turn(speaker)).round,
        (await take_turn(speaker, other)).round,
    ] == [1, 2]


async def test_a_reset_agent_starts_over() -> None:
    speaker, client = agent([accepts()] * 2)
    await take_turn(speaker)
    await speaker.on_reset(TOKEN)
    await take_turn(speaker)

    assert client.requests[0] == client.requests[1]


async def test_without_a_prompt_an_agent_does_not_speak() -> None:
    speaker, client = agent([accepts()])

    with pytest.raises(ValueError, match="judge was asked to speak before there was a prompt"):
        await speaker.on_messages([], TOKEN)
    with pytest.raises(ValueError, match="before there was a prompt"):
        await speaker.run()
    with pytest.raises(ValueError, match="before there was a prompt"):
        await speaker.on_messages([await said("writer", "drafter", draft())], TOKEN)
    assert client.requests == []


def image() -> Image:
    return Image.from_pil(Pixels.new("RGB", (1, 1)))


async def test_a_prompt_with_images_is_refused() -> None:
    speaker, client = agent([accepts()])

    with pytest.raises(ValueError, match="the prompt holds images"):
        await take_turn(speaker, MultiModalMessage(content=["Look.", image()], source="user"))
    assert client.requests == []


async def test_a_guests_image_is_mentioned() -> None:
    speaker, client = agent([accepts()])
    await take_turn(speaker, PROMPT, MultiModalMessage(content=["Look:", image()], source="guest"))

    assert "guest: Look: [image]" in str(client.requests[0][-1].content).replace("\n[", " [")


async def test_a_refiner_that_drops_everything_gets_a_correction_turn() -> None:
    first = await said("writer", "drafter", draft("One.", "Two."))
    speaker, client = agent([refines(drop(1), drop(2)), refines(drop(2))], "refiner")

    turn = await take_turn(speaker, PROMPT, first)

    assert turn.outcome == "completed"
    assert turn.discarded[0].problem == "it drops every thought; at least one must stay"
    assert "it drops every thought" in str(client.requests[1][-1].content)


async def test_a_refiner_that_insists_on_dropping_everything_is_malformed() -> None:
    first = await said("writer", "drafter", draft("One."))
    speaker, _ = agent([refines(drop(1))] * 2, "refiner")

    turn = await take_turn(speaker, PROMPT, first)

    assert (turn.outcome, turn.reply) == ("malformed", None)


async def test_a_refiner_must_write_a_response_if_there_is_none() -> None:
    speaker, _ = agent([refines(), refines(response="Bake it.")], "refiner")

    turn = await take_turn(speaker)

    assert turn.outcome == "completed"
    assert turn.discarded[0].problem == "there is no response yet, so it must be written"


class Report(BaseModel):
    grade: int


async def test_an_agent_restored_from_json_continues_unchanged() -> None:
    heard: list[BaseChatMessage] = [
        PROMPT,
        await said("writer", "drafter", draft("One.")),
        StructuredMessage(content=Report(grade=3), source="grader"),
        MultiModalMessage(content=["Look.", image()], source="guest"),
        TextMessage(content="Well?", source="guest"),
    ]
    more = await said("other", "deliberator", revises(add=[thought("Two.")]))
    went_on, expected = agent([accepts()] * 2)
    await take_turn(went_on, *heard)
    state = json.loads(json.dumps(await went_on.save_state()))
    await take_turn(went_on, more)

    loaded, client = agent([accepts()])
    await loaded.load_state(state)
    turn = await take_turn(loaded, more)

    assert client.requests[0] == expected.requests[1]
    assert turn.round == 2


async def test_loading_a_state_replaces_all_messages() -> None:
    speaker, client = agent([accepts()] * 2)
    fresh = await speaker.save_state()
    await take_turn(speaker)
    await speaker.load_state(fresh)
    await take_turn(speaker)

    assert client.requests[0] == client.requests[1]


def test_an_agent_must_fit_its_persona_and_have_a_model() -> None:
    model, _ = scripted([])

    with pytest.raises(ValueError, match="persona 'judge' has no model"):
        DeliberationAgent.make(persona("judge"), RUN, [])
    speaker = DeliberationAgent.make(persona("judge"), RUN, [model])
    with pytest.raises(ValueError, match="persona 'judge' is a drafter, not a deliberator"):
        type(speaker)(persona("judge", "drafter"), RUN, [model])


async def test_a_typed_reply_that_reads_like_a_refusal_is_a_reply() -> None:
    speaker, _ = agent([{**draft(), "response": SORRY}], "drafter")
    other, _ = agent([f"{SORRY[:-1]}, said the user. {json.dumps(intents('x'))}"], "intent_analyst")

    assert (await take_turn(speaker)).outcome == "completed"
    assert (await take_turn(other)).outcome == "completed"


async def test_a_cancelled_turn_can_be_taken_again() -> None:
    speaker, client = agent([asyncio.CancelledError(), accepts()])

    with pytest.raises(asyncio.CancelledError):
        await take_turn(speaker)
    assert (await take_turn(speaker)).round == 1
    assert client.requests[0] == client.requests[1]
