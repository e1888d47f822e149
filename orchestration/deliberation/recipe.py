"""Recipes: which personas take part, in what order, and when the circle ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from autogen_agentchat.base import ChatAgent, TerminationCondition
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from agents.deliberation.agents import DeliberationAgent
from agents.layout import Briefing
from agents.models.model import ChatModel, Model
from agents.persona import Persona
from agents.policy_agent import PolicyAgent
from agents.prompt_texts import PromptTexts, find_prompts
from agents.replies import ReplyLimits
from agents.yaml_files import beside, content_hash, find_file
from orchestration.chat.cast import BaseCast, Part, Personas, find_personas
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.chat.termination import AnyOf, describe_condition
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.serialize import Serializer
from orchestration.deliberation.termination import (
    ConsensusTermination,
    RoundBudgetTermination,
    TokenBudgetTermination,
)
from orchestration.prompts.reader import Prompt, as_prompt
from orchestration.runs.result import Interruption, cast_provenance
from policies import FieldError, Finding, InputError, PolicySet, load_yaml

SHIPPED = Path(__file__).parent / "recipes"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,47}$")]


class Recipe(BaseModel):
    """A recipe: the personas of opening, circle and closing, and the circle's budget."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    """Name of the recipe."""
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """One line: what it is for."""
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

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        # The YAML reader checks the same, with lines; this is for recipes created in code.
        for _, cause, remedy in _check_circle({"circle": list(self.circle), "quorum": self.quorum}):
            raise FieldError(cause, remedy)
        return self

    @property
    def hash(self) -> str:
        """Fingerprint of the recipe's content, as records cite it."""
        # Without the path of the prompts, which have a fingerprint of their own.
        return content_hash(self, exclude={"prompts"})

    def termination(self) -> AnyOf:
        """A new termination condition: consensus, or one of the budgets."""
        quorum = None if self.quorum == "all" else self.quorum
        condition = ConsensusTermination(self.circle, quorum) | RoundBudgetTermination(
            self.circle, self.rounds
        )
        if self.token_budget is not None:
            condition |= TokenBudgetTermination(self.token_budget)
        return condition


def recipe_files() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a shipped recipe by its name, or a YAML file by its path."""
    path = find_file(name_or_path, recipe_files(), "recipe")
    recipe = load_yaml(path, Recipe, checks=[_check_circle])
    return recipe.model_copy(update={"prompts": beside(path, recipe.prompts)})


def _check_circle(data: Any) -> Sequence[Finding]:
    """What types cannot express: no name twice, a quorum that can be reached."""
    if not isinstance(data, Mapping) or not isinstance(data.get("circle"), list):
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


WrapModel: TypeAlias = Callable[[ChatModel], ChatModel]
MakeTermination: TypeAlias = Callable[[Recipe], TerminationCondition]


class Cast(BaseCast):
    """A recipe with its personas, policies and models. Makes chats.

    Args:
        recipe: The recipe.
        policy_set: What is reasoned over.
        personas: The recipe's personas by name.
        models: Models by name; personas that name none use `default`.
        prompts: Prompt texts; those that the recipe names if left out.
        termination: Makes another termination condition than the recipe's, a new one for each chat.

    Raises:
        InputError: A persona is missing, has the wrong role for its part, or names an unknown
            model; or the prompts are unknown.
    """

    def __init__(
        self,
        recipe: Recipe,
        policy_set: PolicySet,
        personas: Mapping[str, Persona],
        models: Mapping[str, Model],
        prompts: PromptTexts | None = None,
        termination: MakeTermination | None = None,
    ) -> None:
        super().__init__(recipe.name, _parts(recipe), personas, models)
        self.recipe = recipe
        self.policy_set = policy_set
        self.prompts = prompts or find_prompts(recipe.prompts)
        self.briefing = Briefing(policy_set, recipe.limits, self.prompts)
        self._termination = termination or Recipe.termination
        self.own_termination = describe_condition(termination(recipe)) if termination else None
        """What is recorded of a condition that is not the recipe's."""

    @cached_property
    def serializer(self) -> Serializer:
        """Makes the records of its chats."""
        fixed = cast_provenance(self, self.policy_set, self.recipe.hash, self.prompts)
        return Serializer(self.briefing, {**fixed, "termination": self.own_termination})

    @property
    def notice(self) -> str:
        """One line on what will be used."""
        models = "; ".join(model.config.label for model in self.models_in_use)
        recipe, policy_set = self.recipe, self.policy_set
        return (
            f"{models} | policies {policy_set.id} ({len(policy_set.policies)}) | recipe "
            f"{recipe.name}: {', '.join(recipe.circle)}, up to {recipe.rounds} rounds"
        )

    @classmethod
    def load(
        cls,
        recipe: Recipe,
        policy_set: PolicySet,
        models: Mapping[str, Model],
        personas: Personas | None = None,
        prompts: PromptTexts | None = None,
        termination: MakeTermination | None = None,
    ) -> Self:
        """Finds the recipe's personas, the user's or shipped."""
        found = find_personas(_parts(recipe), personas)
        return cls(recipe, policy_set, found, models, prompts, termination)

    def make_agent(self, name: str, wrap: WrapModel = lambda model: model) -> PolicyAgent:
        """A new agent of one of the personas, for a chat or team of your own."""
        persona = self.personas[name]
        models = [wrap(model) for model in self.models_of(persona)]
        return DeliberationAgent.make(persona, self.briefing, models)

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
        started = chat.started_at or datetime.now(UTC)  # its state was loaded
        return self.serializer.record(
            prompt, chat.messages, chat.stop_reason, started, interruption
        )


def _parts(recipe: Recipe) -> list[Part]:
    return [
        (recipe.intent_analyst, ("intent_analyst",)),
        (recipe.drafter, ("drafter",)),
        *((name, ("deliberator",)) for name in recipe.circle),
        (recipe.refiner, ("refiner",)),
    ]
