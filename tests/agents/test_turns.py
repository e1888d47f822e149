"""Turns as data: they can be dumped and read back unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autogen_agentchat.messages import TextMessage
from pydantic import ValidationError

from agents.deliberation.replies import DeliberationReply, DraftReply, IntentReply, RefinementReply
from agents.models.usage import Usage
from agents.parsing import parse_reply
from agents.turns import Call, Turn, TurnMessage, message_factory
from tests.scripted import (
    accepts,
    briefing,
    cast,
    draft,
    drop,
    intents,
    refines,
    revises,
    thought,
)

CONTRACT = briefing()
CALL = Call(
    model="default",
    served_model="served",
    raw='```json\n{"a": "\u00e4\u2028\\u0000"}\n```',
    finish_reason="length",
    usage=Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1),
    latency=0.1234,
    problem="it is wrong",
)
REWRITE = {"thought": 1, "decision": "rewrite", "why": "Clearer.", **thought("New.", "RH1")}
CHANGES = {
    "add": [thought("More.", "FD1")],
    "correct": [{"thought": 1, **thought("Better.")}],
    "dispute": [{"thought": 2, "reason": "Why?"}],
    "response": "New.",
}
REPLIES: list[tuple[str, Any, dict[str, Any]]] = [
    ("intent_analyst", IntentReply, intents("To know.")),
    ("drafter", DraftReply, draft("One.", "Two.")),
    ("deliberator", DeliberationReply, accepts()),
    ("deliberator", DeliberationReply, revises(**CHANGES)),
    ("refiner", RefinementReply, refines({"thought": 3, "decision": "keep"}, drop(2), REWRITE)),
]


def turn(role: str, reply: Any = None, **more: Any) -> Turn:
    return Turn(agent="a", persona="p", role=role, reply=reply, **{**dict(CALL), **more})


TURNS = [
    *(
        turn(role, parse_reply(json.dumps(reply), kind, CONTRACT), stance="accepts", problem=None)
        for role, kind, reply in REPLIES
    ),
    turn("guest", raw="Hello."),
    turn("deliberator", outcome="malformed", discarded=[CALL, CALL]),
    turn("refiner", outcome="refused", raw=""),
]


@pytest.mark.parametrize("one", TURNS, ids=lambda one: f"{one.role} {one.outcome}")
def test_a_turn_read_from_its_json_is_equal(one: Turn) -> None:
    _ = one.said, one.total_usage  # what is computed from a turn is no part of it

    again = Turn.model_validate_json(one.model_dump_json())

    assert again == one
    assert type(again.reply) is type(one.reply)
    assert again.said == one.said
    assert again.model_dump_json() == one.model_dump_json()
    assert Turn.model_validate(json.loads(json.dumps(one.model_dump(mode="json")))) == one


def test_a_call_read_from_its_json_is_equal() -> None:
    assert Call.model_validate_json(CALL.model_dump_json()) == CALL


@pytest.mark.parametrize("one", TURNS, ids=lambda one: f"{one.role} {one.outcome}")
def test_a_message_read_from_its_dump_is_equal(one: Turn) -> None:
    message = TurnMessage(content=one, source="a", metadata={"k": "v"})

    again = message_factory().create(json.loads(json.dumps(message.dump())))

    assert isinstance(again, TurnMessage)
    assert again == message


async def test_the_turns_of_a_whole_chat_survive_json() -> None:
    made, _ = cast()
    result = await made.make_chat().run(task="x")

    for message in result.messages[1:]:
        assert isinstance(message, TurnMessage)
        assert Turn.model_validate_json(message.content.model_dump_json()) == message.content


def test_a_reply_of_another_role_is_refused() -> None:
    data = json.loads(TURNS[0].model_dump_json())
    data["reply"]["role"] = "drafter"

    with pytest.raises(ValueError, match="reply"):
        Turn.model_validate(data)


def test_every_turn_has_a_description() -> None:
    words = [TurnMessage(content=one, source="a").to_text() for one in TURNS]

    assert words == [
        "explicit, benign: To know.",
        "+ One. (respect_helpfulness, RH1)\n+ Two. (respect_helpfulness, RH1)\n"
        "Response: The first response.",
        "accepts: Nothing to add.",
        "accepts: Something is missing.\n+ More. (respect_helpfulness, FD1)\n"
        "1 \u2192 Better. (respect_helpfulness)\n2 disputed: Why?\nResponse: New.",
        "3 kept\n2 dropped as redundant: Said before.\n1 rewritten: New. (Clearer.)",
        "Hello.",
        "[malformed] it is wrong",
        "[refused] it is wrong",
    ]
    assert all(TurnMessage(content=t, source="a").to_model_text() for t in TURNS)


def test_the_text_that_later_turns_see_is_never_empty() -> None:
    assert turn("deliberator", raw="").said == "(nothing)"
    assert turn("deliberator", raw="prose").said == "prose"
    assert turn("deliberator", raw="Here: {}").said == "Here: {}"


def test_later_turns_see_what_was_parsed_and_nothing_else() -> None:
    plain = json.dumps(accepts())
    reply = parse_reply(plain, DeliberationReply, CONTRACT)

    def said(raw: str) -> str:
        return turn("deliberator", reply, raw=raw).said

    spaced = json.dumps(accepts(), indent=1)
    assert said(plain) == plain
    assert said(f"```json\n{spaced}\n```") == spaced, "to the byte, for prefix caches"
    assert said(json.dumps({**accepts(), "note": "x" * 10_000})) == plain
    assert said(plain.replace('"add"', " " * 10_000 + '"add"')) == plain


def test_usage_adds_up() -> None:
    two = turn("deliberator", discarded=[CALL, CALL]).total_usage

    assert two == Usage(prompt_tokens=9, completion_tokens=6, cached_tokens=3)
    assert CALL.usage.prompt_tokens == 3


def test_usage_cannot_be_changed_so_that_calls_may_share_it() -> None:
    with pytest.raises(ValidationError):
        CALL.usage.prompt_tokens = 5


def test_messages_of_autogen_can_be_read_too() -> None:
    message = TextMessage(content="x", source="user")

    assert message_factory().create(message.dump()) == message
