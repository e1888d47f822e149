"""Scripted chats of every kind, and the messages of each of their calls.

`golden_prompts.json` holds those messages as they were before the prompts became YAML. To accept a
change of the shipped wording: `python -m tests.agents.golden_chats`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_core import CancellationToken
from autogen_core.models import LLMMessage, RequestUsage

from agents.deliberation.agents import DeliberationAgent
from agents.layout import Briefing
from agents.models.response import EndpointResult
from agents.pairs.agents import PairAgent
from agents.pairs.replies import PairLimits
from agents.pairs.state import BriefMessage, CandidateAnswer, Exemplar, PairBrief, Step
from agents.persona import Persona
from agents.policy_agent import PolicyAgent
from agents.prompt_texts import PromptTexts, default_prompts
from agents.replies import ReplyLimits
from agents.turns import TurnMessage
from policies import PolicySet
from tests.policies.samples import small_set
from tests.scripted import (
    accepts,
    drop,
    intents,
    persona,
    refines,
    result,
    revises,
    scripted,
)

FILE = Path(__file__).parent / "golden_prompts.json"

PROMPT = 'How do I {task}?\n{"verdict": "accept"} {{agent}} $name %s'
"""Data that looks like placeholders: it must come through as it is."""

POLICIES = PolicySet.model_validate(small_set())

Call = list[tuple[str, str]]
"""Type and content of each message; behind a turn's calls, the instruction that it records."""


def thought(text: str, *rules: str) -> dict[str, Any]:
    return {"text": text, "policies": ["fraud"], "rules": list(rules)}


def draft(*texts: str, response: str = "Do {it} like this.") -> dict[str, Any]:
    return {"thoughts": [thought(text, "FD1") for text in texts], "response": response}


class Recorder:
    """Takes turns in one chat, and keeps what every call was asked with."""

    def __init__(self, *task: BaseChatMessage) -> None:
        self.heard: list[BaseChatMessage] = list(task)
        self.calls: list[Call] = []

    def model(self, replies: Sequence[Any]) -> Any:
        left = list(replies)

        def reply(messages: Sequence[LLMMessage], _: Mapping[str, Any]) -> Any:
            self.calls.append([(type(m).__name__, str(m.content)) for m in messages])
            return left.pop(0)

        return scripted(reply)[0]

    async def turn(self, agent: PolicyAgent) -> None:
        message = (await agent.on_messages(self.heard, CancellationToken())).chat_message
        assert isinstance(message, TurnMessage)
        self.heard.append(message)
        self.calls.append([("the turn's instruction", message.content.instruction)])

    def guest(self, text: str) -> None:
        self.heard.append(TextMessage(content=text, source="visitor"))


class Deliberation(Recorder):
    """A deliberation."""

    def __init__(self, prompts: PromptTexts) -> None:
        super().__init__(TextMessage(content=PROMPT, source="user"))
        self._briefing = Briefing(POLICIES, ReplyLimits(), prompts)

    async def say(self, role: str, *replies: Any, name: str = "") -> None:
        who: Persona = persona(name or f"the_{role}", role)
        await self.turn(DeliberationAgent.make(who, self._briefing, [self.model(replies)]))


async def deliberation(prompts: PromptTexts) -> list[Call]:
    """Opening, circle, closing, with everything that a deliberator can be told."""
    chat = Deliberation(prompts)
    await chat.say("intent_analyst", intents("To {know}.", "To be safe."))
    await chat.say("drafter", draft("First {number}.", "Second."))
    await chat.say("deliberator", accepts(), name="one")
    chat.guest("I am {task} a guest.")
    chat.guest("And so {words}.")
    await chat.say(
        "deliberator",
        revises(
            add=[thought("Third.", "FD2"), thought("Fourth.")],
            correct=[{"thought": 1, **thought("First, rightly {x}.", "PH1")}],
            dispute=[{"thought": 2, "reason": "Is {it} so?"}],
            response="Do not.",
        ),
        name="two",
    )
    await chat.say("deliberator", revises(dispute=[{"thought": 2, "reason": "No."}]), name="three")
    await chat.say("deliberator", {**accepts(), "verdict": "revise"}, name="one")
    await chat.say("deliberator", revises(add=[thought("Fifth.")]), name="two")
    await chat.say(
        "refiner",
        refines(
            drop(4), {"thought": 5, "decision": "rewrite", "why": "So.", **thought("Anew.", "FD1")}
        ),
    )
    await chat.say("deliberator", accepts(), name="three")
    chat.guest("One more.")
    await chat.say("refiner", refines(response="Final."), name="last")
    await chat.say("refiner", refines(), name="very_last")
    await chat.say("deliberator", accepts(), name="one")
    return chat.calls


async def bare_deliberation(prompts: PromptTexts) -> list[Call]:
    """A circle with no opening: nothing stands yet."""
    chat = Deliberation(prompts)
    chat.guest("A second task.")
    await chat.say("deliberator", accepts(), name="one")
    await chat.say("deliberator", revises(response="Only this."), name="two")
    await chat.say("refiner", refines(response="Final."))
    closing = Deliberation(prompts)
    await closing.say("refiner", refines(), refines(response="There."))
    await closing.say("drafter", draft("Single."))
    await closing.say("deliberator", accepts(), name="one")
    return chat.calls + closing.calls


async def corrections(prompts: PromptTexts) -> list[Call]:
    """What a model is told of a reply that cannot be used, and what later turns see of it."""
    chat = Deliberation(prompts)
    await chat.say("intent_analyst", "No {problem} here.", intents("To know."))
    await chat.say("drafter", result('{"thoughts": [', "length"), draft("One."))
    await chat.say("deliberator", "", accepts(), name="one")
    await chat.say("deliberator", {**accepts(), "verdict": "{maybe}"}, accepts(), name="two")
    await chat.say("deliberator", "I'm sorry, but I can't help.", accepts(), name="three")
    await chat.say("refiner", refines(drop(1)), refines())
    await chat.say("deliberator", "Nothing.", "Again nothing.", name="four")
    await chat.say("deliberator", accepts(), name="one")
    return chat.calls


def brief(**changes: Any) -> PairBrief:
    chosen = CandidateAnswer(
        thoughts=[
            Step(text="It is {theirs}.", policies=["fraud"], rules=["FD1", "FD2"]),
            Step(text="So decline.", policies=["harm"], rules=[]),
        ],
        response="Ask {them} for it, please: " + "word " * 30,
    )
    given: dict[str, Any] = {
        "kind": "violation",
        "target": "fraud",
        "counted": ["fraud", "harm"],
        "chosen": chosen,
        "exemplars": [
            Exemplar(policy="fraud", belief="Open {doors}.", led_to="Walk in.", score=0.8),
            Exemplar(policy="fraud", belief="All is free.", led_to="Take it.", score=0.75),
        ],
    }
    return PairBrief(**given | changes)


class Pair(Recorder):
    """A pair chat."""

    def __init__(self, prompts: PromptTexts, **changes: Any) -> None:
        super().__init__(
            TextMessage(content=PROMPT, source="user"),
            BriefMessage(content=brief(**changes), source="user"),
        )
        self._briefing = Briefing(POLICIES, PairLimits(), prompts)

    async def say(self, role: str, *replies: Any) -> None:
        who = persona(f"the_{role}", role)
        await self.turn(PairAgent.make(who, self._briefing, [self.model(replies)]))


def belief(text: str) -> dict[str, Any]:
    return {"angle": "It makes light of it.", "belief": text}


def rated(**ratings: int) -> dict[str, Any]:
    rules = {"fraud": "FD1", "harm": "PH1"}
    return {
        "judgements": {
            policy: {"quote": "", "rule": rule, "rating": ratings.get(policy, 0)}
            for policy, rule in rules.items()
        }
    }


async def pair(prompts: PromptTexts) -> list[Call]:
    """Two attempts under a judge, and one more belief."""
    chat = Pair(prompts)
    await chat.say("violation_judge", rated())
    await chat.say("ear_whisperer", "Not {now}.", belief("The {belief} is true."))
    await chat.say("generator", draft("Because {answer}."))
    await chat.say("violation_judge", rated(fraud=3, harm=4))
    await chat.say("ear_whisperer", belief("Another one."))
    await chat.say("generator", "I'm sorry, but I can't help with that.")
    await chat.say("violation_judge", rated())
    await chat.say("ear_whisperer", belief("A third."))
    return chat.calls


async def pair_variants(prompts: PromptTexts) -> list[Call]:
    """No exemplars, a chosen side of one thought or none, a generator that nobody misled."""
    one = CandidateAnswer(thoughts=brief().chosen.thoughts[:1], response="Short.")
    chat = Pair(prompts, exemplars=[], chosen=one)
    await chat.say("ear_whisperer", belief("First."))
    await chat.say("generator", draft("One."))
    sampled = Pair(prompts, chosen=CandidateAnswer(thoughts=[], response="Short."))
    await sampled.say("violation_judge", rated())
    await sampled.say("generator", draft("One.", "Two."))
    await sampled.say("violation_judge", rated(fraud=9))
    await sampled.say("generator", draft("Once more."))
    return chat.calls + sampled.calls


async def classifier(prompts: PromptTexts) -> list[Call]:
    """Next-token odds: every policy, and a rule by itself."""

    def odds(yes: float) -> EndpointResult:
        return EndpointResult(
            content="No",
            finish_reason="length",
            usage=RequestUsage(1, 1),
            cached=False,
            first_token={"Yes": math.log(yes), "No": math.log(1 - yes)},
        )

    chosen = CandidateAnswer(thoughts=[], response="R {prompt}")
    chat = Pair(prompts, off_limits=["PH1", "unknown"], chosen=chosen)
    chat.heard[0] = TextMessage(content="Hi <<end_of_turn>> {answer}", source="user")
    await chat.say("violation_classifier", odds(0.1), odds(0.2), odds(0.3))
    await chat.say("ear_whisperer", belief("First."))
    await chat.say("generator", draft("One.", "Two."))
    await chat.say("violation_classifier", odds(0.1), odds(0.6), odds(0.3))
    await chat.say("ear_whisperer", belief("Second."))
    return chat.calls


CHATS = (deliberation, bare_deliberation, corrections, pair, pair_variants, classifier)


async def captured(prompts: PromptTexts) -> dict[str, list[Call]]:
    """The calls of every chat, by its name."""
    return {chat.__name__: await chat(prompts) for chat in CHATS}


def load() -> dict[str, list[Call]]:
    """The calls as the file holds them, where each text stands once."""
    data = json.loads(FILE.read_text(encoding="utf-8"))
    texts = data["texts"]
    return {
        name: [[(kind, texts[place]) for kind, place in call] for call in calls]
        for name, calls in data["chats"].items()
    }


def save(chats: Mapping[str, list[Call]]) -> None:
    """Writes the file."""
    texts: dict[str, int] = {}
    stored = {
        name: [[(kind, texts.setdefault(text, len(texts))) for kind, text in c] for c in calls]
        for name, calls in chats.items()
    }

    def lines(values: Iterable[Any]) -> str:
        return ",\n".join(json.dumps(value, ensure_ascii=False) for value in values)

    parts = ",\n".join(f'"{name}": [\n{lines(calls)}\n]' for name, calls in stored.items())
    # One text or call a line, so that a diff shows what has changed.
    text = f'{{"texts": [\n{lines(texts)}\n],\n"chats": {{\n{parts}\n}}}}\n'
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    save(asyncio.run(captured(default_prompts())))
