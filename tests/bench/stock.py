"""The same chats as a user of AutoGen would build them, without aidsafe.

Six `AssistantAgent`s in a `RoundRobinGroupChat`, one model client for all of them, replies typed by
pydantic models. The personas, ground rules and policies are those of our default cast; each agent
has them as its system message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import StructuredMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core.models import ModelFamily, ModelInfo
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

from orchestration.recipe import Cast


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


def make_team(cast: Cast, client: OpenAIChatCompletionClient) -> RoundRobinGroupChat:
    recipe = cast.recipe
    names = (recipe.intent_analyst, recipe.drafter, *recipe.circle, recipe.refiner)
    agents = [
        AssistantAgent(
            name,
            client,
            description=cast.personas[name].description,
            system_message=f"{cast.briefing.system_message.content}\n\n"
            f"{cast.personas[name].instructions}",
            output_content_type=reply,
        )
        for name, reply in zip(names, REPLIES, strict=True)
    ]
    return RoundRobinGroupChat(
        agents,  # type: ignore[arg-type]
        termination_condition=MaxMessageTermination(1 + len(agents)),
        custom_message_types=[StructuredMessage[reply] for reply in dict.fromkeys(REPLIES)],  # type: ignore[valid-type]
    )


async def run(cast: Cast, base_url: str, prompts: Iterable[tuple[str, str]], at_once: int) -> None:
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
            done = await make_team(cast, client).run(task=text)
            assert len(done.messages) == 1 + len(REPLIES)

    try:
        await asyncio.gather(*(work() for _ in range(at_once)))
    finally:
        await client.close()
