"""Personas: who an agent is, in YAML that anyone can edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from agents.replies import Role
from policies import YamlFiles
from policies.yaml_model import Name, SingleLine, YamlModel


class Persona(YamlModel):
    """One persona. A file of it is all that a new deliberator needs."""

    name: Name
    """Name of the persona and of its agent in the chat: lower case, digits, underscores."""
    role: Role
    """What it does in the chat, and so which reply it gives."""
    description: SingleLine
    """One line: what this persona is for. Shown in lists, and to AutoGen's speaker selectors."""
    instructions: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8_000)
    ]
    """What the agent is told about itself, in the second person."""
    model: SingleLine | None = None
    """Name of a model in the `models:` block; the block's `default` if left out."""
    fallback_models: tuple[SingleLine, ...] = ()
    """Models to ask, in this order, when one refuses to take part."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; the model's own setting if left out."""
    max_tokens: int | None = Field(default=None, ge=16, le=100_000)
    """Upper bound on the tokens of a reply; the model's own setting if left out."""


PERSONAS = YamlFiles(
    "persona",
    Path(__file__).parent / "personas",
    lambda: Persona,
    is_named=True,
    own="or add a file of that name to a folder of yours and name it with --personas",
)
find_persona = PERSONAS.load
