"""Who takes part in a chat: personas in their roles, each with its models."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeAlias

from agents.models.model import Model
from agents.persona import Persona, find_persona
from agents.replies import Role
from policies import InputError

Part: TypeAlias = tuple[str, tuple[Role, ...]]
"""A part in a chat: name of a persona, and the roles that it may have."""
Personas: TypeAlias = str | Path | Mapping[str, Persona] | Iterable[Persona]
"""Personas that hide shipped ones of the same name: a folder of YAML files, or objects."""

DEFAULT_CONCURRENCY = 16


class BaseCast(ABC):
    """Personas in the parts of a recipe.

    Args:
        recipe: Name of the recipe, for messages.
        parts: The parts that it names.
        personas: Personas by name.
        models: Models by name; personas that name none use `default`.

    Raises:
        InputError: A persona is missing, has the wrong role for its part, or names an unknown
            model.
    """

    def __init__(
        self,
        recipe: str,
        parts: Sequence[Part],
        personas: Mapping[str, Persona],
        models: Mapping[str, Model],
    ) -> None:
        self.recipe_name = recipe
        self.personas = personas
        self.models = models
        self._names = [name for name, _ in parts]
        for name, roles in parts:
            persona = personas.get(name)
            if persona is None:
                raise InputError(
                    f"The recipe '{recipe}' names the persona '{name}', which is unknown.",
                    f"Known are: {', '.join(personas)}.",
                )
            if persona.role not in roles:
                raise InputError(
                    f"The recipe '{recipe}' needs a persona of role {' or '.join(roles)}, "
                    f"but '{name}' has the role {persona.role}.",
                    "Name a persona of the right role.",
                )
            self.models_of(persona)

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

    @property
    def models_in_use(self) -> list[Model]:
        """The models that may be called, each once."""
        found: dict[str, Model] = {}
        for name in self._names:
            for model in self.models_of(self.personas[name]):
                found.setdefault(model.name, model)
        return list(found.values())

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


def find_personas(parts: Sequence[Part], personas: Personas | None) -> dict[str, Persona]:
    """The personas of some parts, the user's or shipped."""
    if personas is None or isinstance(personas, str | Path):
        folder = Path(personas) if personas is not None else None
        return {name: find_persona(name, folder) for name, _ in parts}
    objects = personas.values() if isinstance(personas, Mapping) else personas
    given = {persona.name: persona for persona in objects}
    return {name: given.get(name) or find_persona(name) for name, _ in parts}
