"""The same chats as a user of AutoGen would build them, without aidsafe.

`AssistantAgent`s in a `RoundRobinGroupChat`, one model client for all of them, replies typed by
pydantic models: six agents that deliberate, or three that make a pair (scorer, whisperer,
generator; the scorer first and last). Personas, rules and policies are those of our casts; each
agent has them as its system message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import StructuredMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel, create_model

from agents.pairs.agents import system_message
from agents.persona import Persona
from orchestration.deliberation.recipe import Cast
from orchestration.pairs.recipe import PairCast


class Intent(BaseModel):
    text: str
    kind: Literal["explicit", "implicit"]
    nature: Literal["benign", "harmful"]


class IntentReply(BaseModel):
    intents: list[Intent]


class Thought(BaseModel):
    text: str
    policies: list[str]
    rules: list[str]


class DraftReply(BaseModel):
    thoughts: list[Thought]
    response: str


class Correction(Thought):
    thought: int


class Dispute(BaseModel):
    thought: int
    reason: str


class DeliberationReply(BaseModel):
    comment: str
    verdict: Literal["accept", "revise"]
    add: list[Thought]
    correct: list[Correction]
    dispute: list[Dispute]
    response: str | None


class Decision(BaseModel):
    thought: int
    decision: Literal["keep", "drop"]


class RefinementReply(BaseModel):
    decisions: list[Decision]
    response: str | None


REPLIES: tuple[type[BaseModel], ...] = (
    IntentReply,
    DraftReply,
    DeliberationReply,
    DeliberationReply,
    DeliberationReply,
    RefinementReply,
)
"""What each agent replies with, in the order in which they speak."""


class BeliefReply(BaseModel):
    angle: str
    belief: str


class AnswerReply(BaseModel):
    thoughts: list[Thought]
    response: str


class Judgement(BaseModel):
    quote: str
    rule: str
    rating: int


def judge_reply(policies: Iterable[str]) -> type[BaseModel]:
    """A judgement for every policy."""
    fields: dict[str, Any] = {policy: (Judgement, ...) for policy in policies}
    judgements = create_model("Judgements", **fields)
    return create_model("JudgeReply", judgements=(judgements, ...))


class Speaker(NamedTuple):
    persona: Persona
    rules: str
    """What its system message begins with."""
    reply: type[BaseModel]


Team = Callable[[OpenAIChatCompletionClient], RoundRobinGroupChat]
"""Makes the team of one chat."""


def deliberators(cast: Cast) -> Team:
    """Everybody speaks once."""
    recipe = cast.recipe
    names = (recipe.intent_analyst, recipe.drafter, *recipe.circle, recipe.refiner)
    texts = cast.briefing.prompts.section("deliberation")
    rules = cast.briefing.system_message(texts.system).content
    speakers = [
        Speaker(cast.personas[name], rules, reply)
        for name, reply in zip(names, REPLIES, strict=True)
    ]
    return lambda client: make_team(speakers, len(speakers), client)


def pair_makers(cast: PairCast, turns: int) -> Team:
    """The scorer, then whisperer, generator and scorer in turn."""
    recipe, briefing = cast.recipe, cast.briefing
    replies: dict[str, Any] = {
        recipe.scorer: judge_reply(cast.policy_set.policy_ids),
        recipe.whisperer: BeliefReply,
        recipe.generator: AnswerReply,
    }
    personas = [cast.personas[name] for name in replies]
    speakers = [
        Speaker(p, system_message(briefing, p.role).content, replies[p.name]) for p in personas
    ]
    return lambda client: make_team(speakers, turns, client)


def make_team(
    speakers: Sequence[Speaker], turns: int, client: OpenAIChatCompletionClient
) -> RoundRobinGroupChat:
    agents = [
        AssistantAgent(
            persona.name,
            client,
            description=persona.description,
            system_message=f"{rules}\n\n{persona.instructions}",
            output_content_type=reply,
        )
        for persona, rules, reply in speakers
    ]
    replies = dict.fromkeys(speaker.reply for speaker in speakers)
    return RoundRobinGroupChat(
        agents,  # type: ignore[arg-type]
        termination_condition=MaxMessageTermination(1 + turns),
        custom_message_types=[StructuredMessage[reply] for reply in replies],  # type: ignore[valid-type]
    )


async def run(team: Team, base_url: str, prompts: Iterable[tuple[str, str]], at_once: int) -> None:
    """Takes every prompt through a chat, so many at the same time."""
    client = OpenAIChatCompletionClient(
        model="m",
        base_url=base_url,
        api_key="none",
        temperature=0.7,
        max_tokens=4096,
        seed=0,
        model_info=ModelInfo(
            vision=False,
            function_calling=False,
            json_output=True,
            family=ModelFamily.UNKNOWN,
            structured_output=True,
        ),
    )
    waiting = iter(prompts)

    async def work() -> None:
        for _, text in waiting:
            await team(client).run(task=text)

    try:
        await asyncio.gather(*(work() for _ in range(at_once)))
    finally:
        await client.close()
