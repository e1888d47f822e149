"""Personas: who an agent is, in YAML that anyone can edit."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agents.turns import Role
from policies import Finding, InputError, load_yaml

SHIPPED = Path(__file__).parent / "personas"

_NAME = r"^[a-z][a-z0-9_]{0,47}$"

Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\n]*$")
]


class Persona(BaseModel):
    """One persona. A file of it is all that a new deliberator needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=_NAME)]
    """Name of the persona and of its agent in the chat: lower case, digits, underscores."""
    role: Role
    """What it does in the chat, and so which reply it gives."""
    description: Line
    """One line: what this persona is for. Shown in lists, and to AutoGen's speaker selectors."""
    instructions: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=8_000)
    ]
    """What the agent is told about itself, in the second person."""
    model: Line | None = None
    """Name of a model in the `models:` block; the block's `default` if left out."""
    fallback_models: tuple[Line, ...] = ()
    """Models to ask, in this order, when one refuses to take part."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; the model's own setting if left out."""
    max_tokens: int | None = Field(default=None, ge=16, le=100_000)
    """Upper bound on the tokens of a reply; the model's own setting if left out."""

    @cached_property
    def hash(self) -> str:
        """Fingerprint of the persona's content, as records cite it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def load_persona(path: Path) -> Persona:
    """Reads one persona file.

    Raises:
        YamlError: With every problem of the file, each with its line and remedy; one is that the
            file names itself otherwise.
    """

    def check_name(data: Any) -> Sequence[Finding]:
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not re.match(_NAME, name) or name == path.stem:
            return []
        cause = f"The file is called '{path.stem}', but the persona in it '{name}'."
        return [(("name",), cause, "Give both the same name.")]

    return load_yaml(path, Persona, checks=[check_name])


def persona_files(folder: Path | None = None) -> dict[str, Path]:
    """Persona files by name: the shipped ones, and over them those of the user's folder.

    Args:
        folder: A folder with persona YAMLs of the user; a file there hides a shipped one of the
            same name.

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
