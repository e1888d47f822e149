"""Who takes part in a chat: personas in their roles, each with its models."""

from __future__ import annotations

import asyncio
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeAlias

from pydantic import StringConstraints

from agents.layout import Briefing
from agents.models.model import ChatModel, Model
from agents.persona import Persona, find_persona
from agents.policy_agent import PolicyAgent
from agents.replies import Role
from policies import InputError
from policies.yaml_model import Name, YamlModel

Part: TypeAlias = tuple[str, tuple[Role, ...]]
"""A part in a chat: name of a persona, and the roles that it may have."""
Personas: TypeAlias = str | Path | Mapping[str, Persona] | Iterable[Persona]
"""Personas of the user, which hide shipped ones of the same name: a folder of YAML files, or
objects; or all personas by name."""

WrapModel: TypeAlias = Callable[[ChatModel], ChatModel]
"""Applied to every model that an agent is given."""

DEFAULT_CONCURRENCY = 16


class BaseRecipe(YamlModel):
    """What all recipes have."""

    unhashed: ClassVar[tuple[str, ...]] = ("prompts",)

    name: Name
    """Name of the recipe."""
    description: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    """One line: what it is for."""


class BaseCast(ABC):
    """A recipe with its personas, policies and models.

    Args:
        recipe: The recipe.
        parts: The parts that it names.
        briefing: What its agents share.
        models: Models by name; personas that name none use `default`.
        personas: See `Personas`; the shipped ones if left out.

    Raises:
        InputError: A persona is missing, has the wrong role for its part, or names an unknown
            model.
    """

    agent_type: ClassVar[type[PolicyAgent]]
    """The base class of its agents."""

    def __init__(
        self,
        recipe: BaseRecipe,
        parts: Sequence[Part],
        briefing: Briefing,
        models: Mapping[str, Model],
        personas: Personas | None,
    ) -> None:
        self.recipe = recipe
        self.briefing = briefing
        self._own_briefings: dict[Role, Briefing] = {}  # of roles that are not shown all policies
        self.policy_set = briefing.policy_set
        """The policies that agents are shown."""
        self.own_policies = briefing.policy_set
        """The policies of the run, as they were given."""
        self.prompts = briefing.prompts
        self.personas = personas = _find_personas(parts, personas)
        self.models = models
        self.own_termination: dict[str, Any] | None = None
        """What is recorded of a termination condition that is not the recipe's."""
        self._names = [name for name, _ in parts]
        for name, roles in parts:
            persona = personas.get(name)
            if persona is None:
                raise InputError(
                    f"The recipe '{recipe.name}' names the persona '{name}', which is unknown.",
                    f"Known are: {', '.join(personas)}.",
                )
            if persona.role not in roles:
                raise InputError(
                    f"The recipe '{recipe.name}' needs a persona of role {' or '.join(roles)}, "
                    f"but '{name}' has the role {persona.role}.",
                    "Name a persona of the right role.",
                )
            self.models_of(persona)

    def make_agent(
        self, persona_name: str, wrap: WrapModel = lambda model: model, name: str = ""
    ) -> PolicyAgent:
        """A new agent of one of the personas, under its name or another one."""
        persona = self.personas[persona_name]
        models = [wrap(model) for model in self.models_of(persona)]
        briefing = self._own_briefings.get(persona.role, self.briefing)
        return self.agent_type.make(persona, briefing, models, name)

    def models_of(self, persona: Persona) -> list[Model]:
        """The persona's model, then its fallbacks."""
        names = [persona.model or "default", *persona.fallback_models]
        for name in names:
            if name not in self.models:
                raise InputError(
                    f"The persona '{persona.name}' names the model '{name}', which is unknown.",
                    f"Configured are: {', '.join(self.models)}; add it with --models FILE.",
                )
        return [self.models[name] for name in names]

    @property
    @abstractmethod
    def notice(self) -> str:
        """One line on what will be used."""

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """The fields of a provenance that are the same in all results."""
        policy_set = self.policy_set
        return {
            "aidsafe": version("aidsafe"),
            "autogen": version("autogen-agentchat"),
            "python": platform.python_version(),
            "policy_set": f"{policy_set.id}@{policy_set.version}",
            "policy_set_hash": policy_set.hash,
            "policies": {policy.id: policy.hash for policy in policy_set.policies},
            "recipe": self.recipe.name,
            "recipe_hash": self.recipe.hash,
            "prompts": self.prompts.name,
            "prompts_hash": self.prompts.hash,
            "personas": {name: persona.hash for name, persona in self.personas.items()},
            "termination": self.own_termination,
            "models": {model.name: model.config.public() for model in self.models_in_use},
        }

    @property
    def models_in_use(self) -> list[Model]:
        """The models that may be called, each once."""
        models = (m for name in self._names for m in self.models_of(self.personas[name]))
        return list({model.name: model for model in models}.values())

    @property
    def default_concurrency(self) -> int:
        """Chats at the same time: 16, or the smallest number of slots of an embedded model."""
        embedded = (model.config.embedded for model in self.models_in_use)
        return min((config.slots for config in embedded if config), default=DEFAULT_CONCURRENCY)

    async def close(self) -> None:
        """Closes the models' connections; in the event loop that used them."""
        await asyncio.gather(*(model.close() for model in self.models_in_use))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _find_personas(parts: Sequence[Part], personas: Personas | None) -> Mapping[str, Persona]:
    """The personas of some parts: those given by name, or the user's and the shipped ones."""
    if isinstance(personas, Mapping):
        return personas
    if personas is None or isinstance(personas, str | Path):
        folder = Path(personas) if personas is not None else None
        return {name: find_persona(name, folder) for name, _ in parts}
    given = {persona.name: persona for persona in personas}
    return {name: given.get(name) or find_persona(name) for name, _ in parts}
