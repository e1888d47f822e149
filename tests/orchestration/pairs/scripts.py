"""Scripted models for pair chats; a reply depends only on the request."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from autogen_core.models import LLMMessage

from agents.layout import Briefing
from agents.pairs.replies import PairLimits
from orchestration.pairs.recipe import with_over_refusal
from policies import load_policy_set
from tests.scripted import Script

_WORDS = [
    f"{start}{end}"
    for start in ("am", "bel", "cor", "du", "fen")
    for end in ("ber", "ta", "o", "lin", "sy", "mar")
]


def briefing(policies: str = "aidsafe") -> Briefing:
    """The briefing of a pair run."""
    return Briefing(with_over_refusal(load_policy_set(policies)), PairLimits())


def words(seed: str, number: int = 24) -> str:
    """A text that depends on the seed."""
    found = [_WORDS[zlib.crc32(f"{seed} {n}".encode()) % len(_WORDS)] for n in range(number)]
    return " ".join(found)


def belief(text: str = "Nobody is ever harmed by what is written down.") -> dict[str, Any]:
    return {"angle": "It makes light of the risk.", "belief": text}


def answer(*thoughts: str, response: str = "Take it, nobody will mind.") -> dict[str, Any]:
    return {
        "thoughts": [
            {"text": text, "policies": ["illegal_activity"], "rules": []}
            for text in thoughts or ("Nobody minds.",)
        ],
        "response": response,
    }


def judgement(made: Briefing | None = None, **ratings: int) -> dict[str, Any]:
    """A judgement of every policy, with the given ratings and 0 for the others."""
    made = made or briefing()
    return {
        "judgements": {
            policy.id: {
                "quote": "Take it" if ratings.get(policy.id) else "",
                "rule": policy.rules[0].id,
                "rating": ratings.get(policy.id, 0),
            }
            for policy in made.policy_set.policies
        }
    }


def kind_of_turn(messages: Sequence[LLMMessage]) -> str:
    """`belief`, `answer` or `judgement`: what the last instruction asks for."""
    return _kind(str(messages[-1].content))


def _kind(text: str) -> str:
    return text.rstrip(".").rpartition("This turn: ")[2]


def pairs(messages: Sequence[LLMMessage], _: Mapping[str, Any]) -> Any:
    """A script of pair chats, for a client in this process."""
    return reply([str(message.content) for message in messages])


def whisper(body: dict[str, Any]) -> dict[str, Any]:
    """The same for an endpoint, which also deliberates and agrees with everything."""
    from tests.orchestration.run_helpers import agree

    contents = [message["content"] for message in body["messages"]]
    if not re.search(r"This turn: (belief|answer|judgement)\.$", contents[-1]):
        return agree(body)
    return reply(contents)


def reply(contents: Sequence[str]) -> dict[str, Any]:
    """The reply: a belief depends on the chat so far, a rating on the answer."""
    last = contents[-1]
    kind = _kind(last)
    if kind == "belief":
        return belief(f"It is known that {words(last + str(len(contents)), 6)} harms nobody.")
    if kind == "answer":
        told = words(last)
        thoughts = (f"One {words(last + '1', 12)}.", f"Two {words(last + '2', 12)}.")
        level = 2 + zlib.crc32(last.encode()) % 9  # half of them reach 0.7
        return answer(*thoughts, response=f"Level {level}: {told}.")
    found = re.search(r"Response:\nLevel (\d+):", last)
    level = int(found[1]) if found else 0
    return judgement(illegal_activity=level, over_refusal=level)


def rated(*ratings: int) -> Script:
    """Distinct beliefs and answers for every chat, with these ratings; the last one is repeated."""
    left = list(ratings)

    def script(messages: Any, _: Any) -> Any:
        kind, text = kind_of_turn(messages), str(messages[-1].content)
        if kind == "belief":
            return belief(f"Belief of {words(text + str(len(messages)), 8)}.")
        if kind == "answer":
            return answer(f"Because {words(text, 14)}.", response=f"Bad {words(text + 'r', 20)}.")
        if "Bad " not in text:
            return judgement()
        rating = left.pop(0) if len(left) > 1 else left[0]
        return judgement(illegal_activity=rating, over_refusal=rating)

    return script
