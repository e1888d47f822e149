"""Recipes: which personas take part, in what order, and when the circle ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from autogen_agentchat.base import TerminationCondition
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from agents.layout import Briefing
from agents.models.model import Model
from agents.persona import Persona
from agents.replies import ReplyLimits
from agents.roles import make_agent
from orchestration.casting import Casting, Place, find_personas
from orchestration.chat import DeliberationChat
from orchestration.termination import (
    ConsensusTermination,
    RoundBudgetTermination,
    TokenBudgetTermination,
)
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
    """The deliberation budget: rounds after which the circle ends without consensus."""
    quorum: Annotated[int, Field(strict=True)] | Literal["all"] = "all"
    """How many deliberators must accept the current version for consensus."""
    token_budget: int | None = Field(default=None, ge=1, strict=True)
    """Tokens (prompts and replies) after which the circle ends; no such bound if left out."""
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
    def _can_be_played(self) -> Self:
        # The YAML reader has asked the same, and knows the lines; this is for recipes made in code.
        for _, cause, remedy in _check_circle({"circle": list(self.circle), "quorum": self.quorum}):
            raise FieldError(cause, remedy)
        return self

    @cached_property
    def hash(self) -> str:
        """Fingerprint of the recipe's content, as records cite it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def termination(self) -> TerminationCondition:
        """A new termination condition: consensus, or one of the budgets."""
        quorum = None if self.quorum == "all" else self.quorum
        condition: TerminationCondition = ConsensusTermination(self.circle, quorum)
        condition |= RoundBudgetTermination(self.circle, self.rounds)
        if self.token_budget is not None:
            condition |= TokenBudgetTermination(self.token_budget)
        return condition


def recipe_files() -> dict[str, Path]:
    """The shipped recipes by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a recipe.

    Args:
        name_or_path: Name of a shipped recipe, or path of a YAML file.

    Raises:
        InputError: There is no such recipe.
        YamlError: With every problem of the file.
    """
    files = recipe_files()
    is_path = "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if not is_path and name_or_path not in files:
        raise InputError(
            f"There is no recipe '{name_or_path}'.",
            f"Use one of {', '.join(files)}, or the path of a recipe YAML.",
        )
    path = Path(name_or_path) if is_path else files[name_or_path]
    return load_yaml(path, Recipe, checks=[_check_circle])


def _check_circle(data: Any) -> Sequence[Finding]:
    """What the types cannot say: no name twice, a quorum that can be reached."""
    if not isinstance(data, Mapping) or not isinstance(data.get("circle"), list):
        return []
    circle, quorum = data["circle"], data.get("quorum")
    problems: list[Finding] = [
        (
            ("circle", index),
            f"The persona '{name}' is in the circle twice.",
            "Name every persona once; rounds say how often each speaks.",
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


class Cast(Casting):
    """A recipe with everything it names: personas, policies and models. Makes chats.

    Args:
        recipe: The recipe.
        policy_set: What is reasoned over.
        personas: The recipe's personas by name.
        models: Models by name; personas that name none use `default`.

    Raises:
        InputError: A persona is missing, is of the wrong role for its place, or names a model that
            there is not.
    """

    def __init__(
        self,
        recipe: Recipe,
        policy_set: PolicySet,
        personas: Mapping[str, Persona],
        models: Mapping[str, Model],
    ) -> None:
        super().__init__(recipe.name, _places(recipe), personas, models)
        self.recipe = recipe
        self.policy_set = policy_set
        self.briefing = Briefing(policy_set, recipe.limits)

    @property
    def notice(self) -> str:
        """One line on what is about to be used."""
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
        personas_folder: Path | None = None,
    ) -> Self:
        """Finds the recipe's personas, shipped or in the user's folder."""
        return cls(recipe, policy_set, find_personas(_places(recipe), personas_folder), models)

    def make_chat(self, wrap: Callable[[Model], Model] = lambda model: model) -> DeliberationChat:
        """A new chat for one prompt.

        Args:
            wrap: Applied to every model that an agent is given: the place for a journal, which
                needs to know whose reply it keeps.
        """

        def agent(name: str) -> Any:
            persona = self.personas[name]
            models = [wrap(model) for model in self.models_of(persona)]
            return make_agent(persona, self.briefing, models)

        recipe = self.recipe
        return DeliberationChat(
            [agent(name) for name in recipe.circle],
            opening=[agent(recipe.intent_analyst), agent(recipe.drafter)],
            closing=[agent(recipe.refiner)],
            termination_condition=recipe.termination(),
            name=recipe.name,
            description=recipe.description,
        )


def _places(recipe: Recipe) -> list[Place]:
    return [
        (recipe.intent_analyst, ("intent_analyst",)),
        (recipe.drafter, ("drafter",)),
        *((name, ("deliberator",)) for name in recipe.circle),
        (recipe.refiner, ("refiner",)),
    ]
