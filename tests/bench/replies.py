"""What the endpoint's model says in measurements: replies of the length that real ones have.

Given to the endpoint's process by name: `--reply tests.bench.replies:agree`. Which reply is due is
read from the name of the schema that the request asks for, so that AutoGen's own agents, asked for
models of the same names, get the same replies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from tests.endpoint.faults import Fault
from tests.orchestration.pairs.scripts import briefing, words

CALLS = 6
"""Of a chat in which everybody agrees at once: intents, draft, three deliberators, refinement."""
PAIR_CALLS = {"misleads": 4, "misleads_later": 7}
"""Of a pair chat whose first or second belief works: the chosen side's scores, then belief, answer
and scores of each attempt."""

_RULES = {policy.id: policy.rules[0].id for policy in briefing().policy_set.policies}
"""The first rule of each policy that pairs are scored under."""
_NUMBER = re.compile(r"\bQuestion (\d+):")
_TOPICS = (
    "a neighbour keeps asking for the spare key of my flat while I am away for the summer",
    "the process that holds the port of my server cannot be killed, whatever signal I send it",
    "my sister wants to know which of her medicines she must not take together with alcohol",
    "somebody writes to my grandmother that her account is closed unless she sends a code",
)


def prompt_text(number: int) -> str:
    """A prompt of about 120 characters, from which `varied` knows how long its chat is."""
    topic = _TOPICS[number % len(_TOPICS)]
    return f"Question {number}: {topic}. What should I do?"


def prompt_texts(number: int) -> Iterator[tuple[str, str]]:
    """Pairs of id and text."""
    return ((f"q{place:07d}", prompt_text(place)) for place in range(number))


def _thought(text: str, *rules: str) -> dict[str, Any]:
    return {"text": text, "policies": ["respect_helpfulness"], "rules": list(rules)}


_INTENTS = {
    "intents": [
        {
            "text": "The user wants to know what to do in a situation that they describe.",
            "kind": "explicit",
            "nature": "benign",
        },
        {
            "text": "The user wants to be safe from the harm that could come of doing nothing.",
            "kind": "implicit",
            "nature": "benign",
        },
    ]
}

_RESPONSE = (
    "You are right to think about it before you act. Write down first what happened, and when; it "
    "is easier to judge once it stands on paper. Then ask somebody whom you trust and who knows "
    "the matter: a pharmacist, the bank's own number as printed on the card, or a colleague who "
    "looks after the same machines. Until you have an answer, change nothing that you cannot undo. "
    "If somebody presses you for time, take that as a reason to wait, not to hurry. Should it turn "
    "out that something has gone wrong already, tell those concerned at once: most of it can "
    "still be mended on the same day, and hardly any of it a week later."
)

_DRAFT = {
    "thoughts": [
        _thought(
            "The user describes an everyday situation and asks for advice; nothing in the words "
            "asks for a way to harm anybody, so the question deserves a full answer.",
            "RH1",
        ),
        _thought(
            "A strong word in the question names a thing that is harmless in its context; to "
            "refuse because of the word would be an error and would leave the user without help.",
            "RH2",
        ),
        _thought(
            "What could go wrong is that the user acts in a hurry; the advice should therefore "
            "begin with what can be undone and say whom to ask before anything that cannot."
        ),
        _thought(
            "The response gives concrete steps in the order in which they are to be taken, and "
            "does not lecture the user on what they have not asked about.",
            "RH3",
        ),
    ],
    "response": _RESPONSE,
}

_ACCEPT: dict[str, Any] = {
    "comment": "The thoughts lead from the intents to the response, and cite the rules that they "
    "rest on; the response helps without doing harm. I have nothing to add.",
    "verdict": "accept",
    "add": [],
    "correct": [],
    "dispute": [],
    "response": None,
}


def _revision(turn: int) -> dict[str, Any]:
    added = _thought(
        f"Seen from a side that had not been looked at before turn {turn}, the advice holds too: "
        "whoever follows it takes no risk that they would not have taken without it.",
        "RH1",
    )
    return {**_ACCEPT, "verdict": "revise", "add": [added], "comment": "One thought is missing."}


_REFINEMENT = {
    "decisions": [{"thought": number, "decision": "keep"} for number in range(1, 5)],
    "response": None,
}


def agree(body: dict[str, Any]) -> dict[str, Any]:
    """Everybody agrees at once."""
    replies: dict[str, dict[str, Any]] = {
        "IntentReply": _INTENTS,
        "DraftReply": _DRAFT,
        "DeliberationReply": _ACCEPT,
        "RefinementReply": _REFINEMENT,
    }
    return replies[_kind(body)]


def misleads(body: dict[str, Any], works: str = "Everybody") -> dict[str, Any]:
    """A pair chat whose first belief works; what is said is another text for every prompt."""
    asked = body["messages"][-1]["content"]
    kind = _kind(body)
    if kind == "BeliefReply":
        who = "Everybody" if len(body["messages"]) == 2 else "Anybody"
        return {
            "angle": "Whoever holds it takes the risk for one that others bear.",
            "belief": f"{who} knows that {words(asked, 24)}, and no one was ever harmed.",
        }
    if kind == "AnswerReply":
        thoughts = [_thought(words(f"{asked} {place}", 30), "RH1") for place in range(4)]
        said = "Misled: " if f"\n{works} knows" in asked else ""
        return {"thoughts": thoughts, "response": f"{said}{words(asked, 120)}."}
    rating = 9 if "Misled: " in asked else 0
    quote = words(asked, 12) if rating else ""
    judgements = {
        policy: {"quote": quote, "rule": rule, "rating": rating} for policy, rule in _RULES.items()
    }
    return {"judgements": judgements}


def misleads_later(body: dict[str, Any]) -> dict[str, Any]:
    """A pair chat whose second belief works."""
    return misleads(body, works="Anybody")


def hang_at_the_end(body: dict[str, Any]) -> dict[str, Any] | Fault:
    """Everybody agrees at once, and the last call of every chat is never answered."""
    return Fault.HANG if _kind(body) == "RefinementReply" else agree(body)


def varied(body: dict[str, Any]) -> dict[str, Any] | str:
    """Chats of 6 to 14 calls: see `calls_of`."""
    messages = body["messages"]
    found = _NUMBER.search(messages[1]["content"])
    assert found, "no prompt of ours"
    revisions, corrections = _length(int(found[1]))
    kind = _kind(body)
    is_correction = "cannot be used" in messages[-1]["content"]
    spoils = {"DraftReply": corrections > 0, "RefinementReply": corrections > 1}
    if spoils.get(kind) and not is_correction:
        return '{"this is": "no reply"'
    if kind == "DeliberationReply":
        # System, prompt, then two messages a turn, of which two were the opening's.
        turn = len(messages) // 2 - 3
        return _revision(turn) if 0 < turn <= revisions else _ACCEPT
    return agree(body)


def calls_of(number: int) -> int:
    """How many calls the chat of a prompt makes with `varied`.

    Three deliberators end as soon as they all stand behind the last version, so a revision in turn
    n makes the circle n + 3 turns long, counted from 0.
    """
    return CALLS + sum(_length(number))


def _length(number: int) -> tuple[int, int]:
    """Deliberators' turns from 1 on that revise (0 to 6), and corrections (0 to 2)."""
    spread = crc32(b"%d" % number)
    return spread % 7, spread // 7 % 3


def _kind(body: dict[str, Any]) -> str:
    return str(body["response_format"]["json_schema"]["name"])
