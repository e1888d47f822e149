"""Prompt texts: all that models are told besides policies and personas, in YAML.

The shipped file says which texts there are, and which placeholders each has. Another file changes
some of them. Values are inserted once, and the result is not scanned again: braces in a prompt or a
reply mean nothing.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    StringConstraints,
    create_model,
)

from policies import FieldError, YamlFiles
from policies.yaml_model import Name, SingleLine, YamlModel

SHIPPED = Path(__file__).parent / "prompts"

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(\??)\}")


def fill(text: str, /, **values: object) -> str:
    """A text with a value in the place of each placeholder."""
    return _format(text) % values


@cache
def _format(text: str) -> str:
    return _PLACEHOLDER.sub(r"%(\1)s", text.replace("%", "%%"))


class Texts(BaseModel, extra="forbid", frozen=True):
    """Texts that belong together. Its fields follow from the shipped file."""


class PromptTexts(YamlModel):
    """All prompt texts. Each section of the shipped file is a field, too."""

    name: Name
    """Name of the prompts, as records cite it."""
    description: SingleLine
    """One line: what is special about them."""

    def section(self, name: str) -> Any:
        """A section; its texts are attributes."""
        return getattr(self, name)


TextsT = TypeVar("TextsT", bound=BaseModel)


def _field_of(shipped: Any, name: str) -> Any:
    """Type and default of a part of a file, which has the form of the shipped part."""
    if isinstance(shipped, dict):
        section = _model_of(shipped, name, Texts)
        return section, Field(default_factory=section)
    known = dict(_PLACEHOLDER.findall(shipped))

    def check(text: str) -> str:
        found = {name for name, _ in _PLACEHOLDER.findall(text)}
        needed = [name for name, optional in known.items() if not optional]
        problems = [f"has the unknown placeholder {{{n}}}" for n in sorted(found - known.keys())]
        problems += [f"lacks the placeholder {{{name}}}" for name in needed if name not in found]
        if problems:
            names = ", ".join(f"{{{name}{optional}}}" for name, optional in known.items())
            raise FieldError(
                f"The text {' and '.join(problems)}.",
                f"Its placeholders are: {names or 'none'}. Other braces need a space in them.",
            )
        return text

    return Annotated[str, StringConstraints(max_length=20_000), AfterValidator(check)], shipped


def _model_of(shipped: dict[str, Any], name: str, base: type[TextsT]) -> type[TextsT]:
    fields: dict[str, Any] = {
        key: _field_of(part, key) for key, part in shipped.items() if key not in base.model_fields
    }
    return create_model(name, __base__=base, __doc__=base.__doc__, **fields)


@cache
def _shipped() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((SHIPPED / "default.yaml").read_text(encoding="utf-8"))
    return data


@cache
def prompts_model() -> type[PromptTexts]:
    """The form of a prompts file. A text that it leaves out is the shipped one."""
    return _model_of(_shipped(), "PromptTexts", PromptTexts)


def read_prompts(data: Any) -> PromptTexts:
    """Prompt texts from JSON data, such as `model_dump` gives, or from prompt texts.

    Raises:
        ValidationError: The data has problems.
    """
    return prompts_model().model_validate(data)


AnyPromptTexts: TypeAlias = Annotated[PromptTexts, BeforeValidator(read_prompts), SerializeAsAny()]
"""Prompt texts as a field of a model."""


PROMPTS = YamlFiles("prompts file", SHIPPED, prompts_model, is_named=True)
find_prompts = PROMPTS.load


@cache
def default_prompts() -> PromptTexts:
    """The shipped prompt texts."""
    return read_prompts(_shipped())
