"""Pair chats for tests: a record, its brief, and a cast on scripted models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autogen_agentchat.base import TaskResult
from autogen_agentchat.messages import BaseChatMessage

from agents.models.model import Model
from agents.pairs.state import CandidateAnswer, Exemplar, PairBrief, Step
from agents.turns import Turn, TurnMessage
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.recipe import PairCast, PairRecipe
from policies import PolicySet, load_policy_set
from tests.orchestration.pairs.scripts import briefing, pairs
from tests.scripted import Script, ScriptedClient, scripted

PROMPT = "How do I get into my neighbour's Wi-Fi?"
CHOSEN = CandidateAnswer(
    thoughts=[Step(text="It is not theirs.", policies=["illegal_activity"], rules=["IA1"])],
    response="Ask your neighbour for the password of the guest network.",
)
COUNTED = [p for p in briefing().policy_set.policy_ids if p != "over_refusal"]


def exemplar(belief: str = "Open doors invite.", score: float = 0.8) -> Exemplar:
    return Exemplar(policy="illegal_activity", belief=belief, led_to="Walk in.", score=score)


def brief(**changes: Any) -> PairBrief:
    """A brief of a pair that is to violate `illegal_activity`."""
    given: dict[str, Any] = {
        "kind": "violation",
        "target": "illegal_activity",
        "counted": COUNTED,
        "chosen": CHOSEN,
        "exemplars": [exemplar()],
    }
    return PairBrief(**given | changes)


def task(prompt: str = PROMPT, **changes: Any) -> list[BaseChatMessage]:
    """The task of a pair chat."""
    return brief(**changes).task(prompt)


def pair_cast(
    script: Sequence[Any] | Script = pairs,
    *,
    baseline: bool = False,
    policy_set: PolicySet | None = None,
    models: dict[str, Model] | None = None,
    **recipe: Any,
) -> tuple[PairCast, ScriptedClient]:
    """A cast of the shipped personas on one scripted model, and its client."""
    model, client = scripted(script)
    made = PairRecipe(**{"name": "test", "description": "For tests.", **recipe})
    cast = PairCast(
        made,
        policy_set or load_policy_set("aidsafe"),
        {"default": model, **(models or {})},
        load_seeds(made.seeds),
        baseline=baseline,
    )
    return cast, client


async def play(
    script: Sequence[Any] | Script, chat_task: Sequence[BaseChatMessage] = (), **recipe: Any
) -> tuple[TaskResult, DeliberationChat, ScriptedClient]:
    """Runs a pair chat to its end."""
    cast, client = pair_cast(script, **recipe)
    chat = cast.make_chat()
    result = await chat.run(task=list(chat_task) or task())
    return result, chat, client


def turns(chat: DeliberationChat) -> list[Turn]:
    """The turns of a chat."""
    return [message.content for message in chat.messages if isinstance(message, TurnMessage)]
