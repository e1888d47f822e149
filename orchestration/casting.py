"""Who takes part: personas in their places, each with its models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from agents.models.model import Model
from agents.persona import Persona, find_persona
from agents.turns import Role
from policies import InputError

Place: TypeAlias = tuple[str, tuple[Role, ...]]
"""Name of a persona, and the roles that it may have there."""


class Casting(ABC):
    """Personas in their places.

    Args:
        recipe: Name of the recipe that names them, for messages.
        places: Who is needed.
        personas: Personas by name.
        models: Models by name; personas that name none use `default`.

    Raises:
        InputError: A persona is missing, is of the wrong role for its place, or names a model that
            there is not.
    """

    def __init__(
        self,
        recipe: str,
        places: Sequence[Place],
        personas: Mapping[str, Persona],
        models: Mapping[str, Model],
    ) -> None:
        self.recipe_name = recipe
        self.personas = personas
        self.models = models
        self._names = [name for name, _ in places]
        for name, roles in places:
            persona = personas.get(name)
            if persona is None:
                raise InputError(
                    f"The recipe '{recipe}' names the persona '{name}', which there is not.",
                    f"Given are: {', '.join(personas)}.",
                )
            if persona.role not in roles:
                raise InputError(
                    f"The recipe '{recipe}' needs a persona of role {' or '.join(roles)}, "
                    f"but '{name}' has the role {persona.role}.",
                    "Put a persona of the right role in its place.",
                )
            self.models_of(persona)

    def models_of(self, persona: Persona) -> list[Model]:
        """The persona's model, then its fallbacks."""
        names = [persona.model or "default", *persona.fallback_models]
        for name in names:
            if name not in self.models:
                raise InputError(
                    f"The persona '{persona.name}' names the model '{name}', which there is not.",
                    f"Configured are: {', '.join(self.models)}; add it with --models FILE.",
                )
        return [self.models[name] for name in names]

    @property
    @abstractmethod
    def notice(self) -> str:
        """One line on what is about to be used."""

    @property
    def models_in_use(self) -> list[Model]:
        """The models that may be called, each once."""
        found: dict[str, Model] = {}
        for name in self._names:
            for model in self.models_of(self.personas[name]):
                found.setdefault(model.name, model)
        return list(found.values())


def find_personas(places: Sequence[Place], folder: Path | None) -> dict[str, Persona]:
    """The personas of some places, shipped or in the user's folder."""
    return {name: find_persona(name, folder) for name, _ in places}
