"""Personas: who an agent is, in YAML that anyone can edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agents.replies import Role
from agents.yaml_files import Name, SingleLine, check_file_name, content_hash
from policies import InputError, load_yaml

SHIPPED = Path(__file__).parent / "personas"


class Persona(BaseModel):
    """One persona. A file of it is all that a new deliberator needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    # Not cached: `model_copy`, by which scripts edit a persona, would copy the cache too.
    @property
    def hash(self) -> str:
        """Fingerprint of the persona's content, as records cite it."""
        return content_hash(self)


def load_persona(path: Path) -> Persona:
    """Reads one persona file.

    Raises:
        YamlError: With every problem of the file, each with its line and remedy; one is that the
            file has another name than the persona.
    """
    return load_yaml(path, Persona, checks=[check_file_name(path, "persona")])


def persona_files(folder: Path | None = None) -> dict[str, Path]:
    """Persona files by name: the shipped ones and those of the user's folder, which hide them.

    Raises:
        InputError: The folder does not exist.
    """
    files = {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}
    if folder is not None:
        if not folder.is_dir():
            raise InputError(
                f"The personas folder {folder} does not exist.",
                "Name a folder that holds persona YAML files, or leave --personas out.",
            )
        files |= {path.stem: path for path in sorted(folder.glob("*.y*ml"))}
    return files


def find_persona(name: str, folder: Path | None = None) -> Persona:
    """The persona of that name.

    Raises:
        InputError: No file of that name.
        YamlError: The file has problems.
    """
    files = persona_files(folder)
    if name not in files:
        raise InputError(
            f"There is no persona '{name}'.",
            f"Use one of {', '.join(files)}, or add {name}.yaml to a folder of yours "
            "and name it with --personas.",
        )
    return load_persona(files[name])
