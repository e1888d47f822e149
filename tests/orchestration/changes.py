"""Casts that differ from the tests' cast in one thing, and what they then ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from autogen_core.models import LLMMessage

from agents.models.model import Model
from agents.prompt_texts import read_prompts
from orchestration.deliberation.recipe import Cast
from tests.scripted import ScriptedClient, agreeable, cast, kind_of_turn, revises

Made: TypeAlias = tuple[Cast, ScriptedClient]


def changed(kind: str = "", name: str = "", *, script: Any = agreeable, **recipe: Any) -> Made:
    """The tests' cast with another something.

    Args:
        kind: What is other: `policies`, `personas`, `models`, `recipe` or `prompt_texts` (of the
            refiner); nothing if left out.
        name: Which of them.
        script: What the model says.
        recipe: What is other in the recipe.
    """
    made, client = cast(script, **recipe)
    policy_set, personas, models = made.policy_set, dict(made.personas), dict(made.models)
    if kind == "policies":
        others = [
            policy.model_copy(update={"definition": "Else."}) if policy.id == name else policy
            for policy in policy_set.policies
        ]
        policy_set = policy_set.model_copy(update={"policies": others})
    elif kind == "personas":
        personas[name] = personas[name].model_copy(update={"instructions": "Else."})
    elif kind == "models":
        config = models[name].config.model_copy(update={"temperature": 0.1})
        models[name] = Model(name, config, client)
    elif kind == "prompt_texts":
        texts = made.prompts.model_dump()
        texts["deliberation"]["refiner"]["response"] = "{agent} wrote the response."
        return Cast(made.recipe, policy_set, models, personas, read_prompts(texts)), client
    elif kind == "recipe":
        update = {"description": "Else."}
        return Cast(made.recipe.model_copy(update=update), policy_set, models, personas), client
    return Cast(made.recipe, policy_set, models, personas), client


def disagree(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    """A script of a chat that nobody ever agrees in."""
    return revises() if kind_of_turn(messages) == "deliberation" else agreeable(messages, arguments)


def kinds(client: ScriptedClient) -> list[str]:
    """What was asked for, shortened."""
    return [kind_of_turn(request)[0] for request in client.requests]
