"""Recipes: which personas take part, in what order, and when the circle ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from autogen_agentchat.base import ChatAgent, TerminationCondition
from pydantic import Field, field_validator

from agents.deliberation.agents import DeliberationAgent
from agents.layout import Briefing
from agents.models.model import Model
from agents.prompt_texts import PROMPTS, PromptTexts, find_prompts
from agents.replies import ReplyLimits
from orchestration.chat.cast import BaseCast, BaseRecipe, Part, Personas, WrapModel
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.chat.termination import AnyOf, describe_condition
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.serialize import record_of
from orchestration.deliberation.termination import (
    ConsensusTermination,
    RoundBudgetTermination,
    TokenBudgetTermination,
)
from orchestration.prompts.reader import Prompt, as_prompt
from orchestration.runs.result import ChatEnd, Interruption
from policies import FieldError, Finding, InputError, PolicySet, YamlFiles
from policies.yaml_model import Name


def _check_circle(data: Any) -> Sequence[Finding]:
    """What types cannot express: no name twice, a quorum that can be reached."""
    if not isinstance(data, Mapping) or not isinstance(data.get("circle"), list | tuple):
        return []
    circle, quorum = data["circle"], data.get("quorum")
    problems: list[Finding] = [
        (
            ("circle", index),
            f"The persona '{name}' is in the circle twice.",
            "Name every persona once; `rounds` sets how often each speaks.",
        )
        for index, name in enumerate(circle)
        if name in circle[:index]
    ]
    if isinstance(quorum, int) and not isinstance(quorum, bool) and not 1 <= quorum <= len(circle):
        problems.append(
            (
                ("quorum",),
                f"The quorum of {quorum} cannot be reached by a circle of {len(circle)}.",
                f"Set it to a number from 1 to {len(circle)}, or to all.",
            )
        )
    return problems


class Recipe(BaseRecipe):
    """A recipe: the personas of opening, circle and closing, and the circle's budget."""

    checks = (_check_circle,)

    intent_analyst: Name = "intent_analyst"
    """Persona that takes the prompt apart."""
    drafter: Name = "drafter"
    """Persona that writes the first thoughts and response."""
    circle: tuple[Name, ...] = Field(min_length=1, max_length=12)
    """Personas of the deliberators, in the order in which they speak."""
    refiner: Name = "refiner"
    """Persona that settles the final chain."""
    rounds: int = Field(default=3, ge=1, le=50, strict=True)
    """The deliberation budget: after that many rounds the circle ends without consensus."""
    quorum: Annotated[int, Field(strict=True)] | Literal["all"] = "all"
    """How many deliberators must accept the current version for consensus."""
    token_budget: int | None = Field(default=None, ge=1, strict=True)
    """Tokens (prompts and replies) after which the circle ends; no limit if left out."""
    prompts: str = "default"
    """Ground rules and task texts of the agents: a shipped name, or a YAML file beside the
    recipe's."""
    limits: ReplyLimits = ReplyLimits()
    """How long replies may be."""

    @field_validator("quorum", mode="before")
    @classmethod
    def _number_or_all(cls, value: Any) -> Any:
        if value == "all" or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise FieldError(
            f"The quorum is neither a number nor all, but {json.dumps(value, default=str)}.",
            "Write how many deliberators must accept, or all.",
        )

    def termination(self) -> AnyOf:
        """A new termination condition: consensus, or one of the budgets."""
        quorum = None if self.quorum == "all" else self.quorum
        condition = ConsensusTermination(self.circle, quorum) | RoundBudgetTermination(
            self.circle, self.rounds
        )
        if self.token_budget is not None:
            condition |= TokenBudgetTermination(self.token_budget)
        return condition


RECIPES = YamlFiles(
    "recipe",
    Path(__file__).parent / "recipes",
    lambda: Recipe,
    names={"prompts": PROMPTS},
)
load_recipe = RECIPES.load


MakeTermination: TypeAlias = Callable[[Recipe], TerminationCondition]


class Cast(BaseCast):
    """A recipe with its personas, policies and models. Makes chats.

    Args:
        recipe: The recipe.
        policy_set: What is reasoned over.
        models: Models by name; personas that name none use `default`.
        personas: Personas of your own, which hide shipped ones of the same name: a folder of YAML
            files, or objects; or the recipe's personas by name.
        prompts: Prompt texts; those that the recipe names if left out.
        termination: Makes another termination condition than the recipe's, a new one for each chat.

    Raises:
        InputError: A persona is missing, has the wrong role for its part, or names an unknown
            model; or the prompts are unknown.
    """

    agent_type = DeliberationAgent

    def __init__(
        self,
        recipe: Recipe,
        policy_set: PolicySet,
        models: Mapping[str, Model],
        personas: Personas | None = None,
        prompts: PromptTexts | None = None,
        termination: MakeTermination | None = None,
    ) -> None:
        briefing = Briefing(policy_set, recipe.limits, prompts or find_prompts(recipe.prompts))
        super().__init__(recipe, _parts(recipe), briefing, models, personas)
        self.recipe: Recipe = recipe
        self._termination = termination or Recipe.termination
        if termination:
            self.own_termination = describe_condition(termination(recipe))

    @property
    def notice(self) -> str:
        """One line on what will be used."""
        models = "; ".join(model.config.label for model in self.models_in_use)
        recipe, policy_set = self.recipe, self.policy_set
        return (
            f"{models} | policies {policy_set.id} ({len(policy_set.policies)}) | recipe "
            f"{recipe.name}: {', '.join(recipe.circle)}, up to {recipe.rounds} rounds"
        )

    def make_chat(
        self,
        wrap: WrapModel = lambda model: model,
        *,
        guests: Sequence[ChatAgent] = (),
    ) -> DeliberationChat:
        """A new chat for one prompt.

        Args:
            wrap: Applied to every model that an agent is given, for example to store replies.
            guests: Any AutoGen agents that join the circle. They speak first in each round, so that
                the deliberators have heard them before they can agree.
        """
        recipe = self.recipe
        return DeliberationChat(
            [*guests, *(self.make_agent(name, wrap) for name in recipe.circle)],
            opening=[self.make_agent(n, wrap) for n in (recipe.intent_analyst, recipe.drafter)],
            closing=[self.make_agent(recipe.refiner, wrap)],
            termination_condition=self._termination(recipe),
            name=recipe.name,
            description=recipe.description,
        )

    def record(
        self,
        chat: DeliberationChat,
        prompt: Prompt | None = None,
        interruption: Interruption | None = None,
    ) -> CoTRecord:
        """The record of a chat of this cast, of all that was said since its last reset.

        Args:
            chat: The chat.
            prompt: What it was about; the text of the first message, if left out.
            interruption: Outcome and reason, if it was interrupted.
        """
        if not chat.messages:
            raise InputError("The chat has not run yet.", "Run it first: await chat.run(task=…).")
        prompt = prompt or as_prompt(chat.messages[0].to_text())
        return record_of(self, prompt, ChatEnd.of(chat, interruption))


def _parts(recipe: Recipe) -> list[Part]:
    return [
        (recipe.intent_analyst, ("intent_analyst",)),
        (recipe.drafter, ("drafter",)),
        *((name, ("deliberator",)) for name in recipe.circle),
        (recipe.refiner, ("refiner",)),
    ]
