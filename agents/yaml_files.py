"""What personas, prompts, recipes and seeds have in common as YAML files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints

from policies import Check, Finding, InputError

NAME_PATTERN = r"^[a-z][a-z0-9_]{0,47}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Lower case, digits, underscores."""
SingleLine = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\n]*$")
]


def content_hash(model: BaseModel, exclude: set[str] | None = None) -> str:
    """Fingerprint of a model's content, as records cite it: `sha256:` and 16 hexadecimal digits."""
    content = model.model_dump(mode="json", exclude=exclude)
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:16]


def beside(path: Path, name: str) -> str:
    """A name in a YAML file: the path of the file beside it, if it names one; else as it is."""
    return str(path.parent / name) if name.endswith((".yaml", ".yml")) else name


def find_file(name_or_path: str, shipped: Mapping[str, Path], noun: str) -> Path:
    """A YAML file (a `noun`) by its path, with a slash or suffix, or by the name of a shipped one.

    Raises:
        InputError: The name is unknown.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return Path(name_or_path)
    if name_or_path not in shipped:
        raise InputError(
            f"There is no {noun} '{name_or_path}'.",
            f"Use one of {', '.join(shipped)}, or the path of a YAML file.",
        )
    return shipped[name_or_path]


def check_file_name(path: Path, what: str) -> Check:
    """A check that a file is called as what it holds, a `what`, is named."""

    def check(data: Any) -> Sequence[Finding]:
        name = data.get("name") if isinstance(data, Mapping) else None
        if not isinstance(name, str) or not re.match(NAME_PATTERN, name) or name == path.stem:
            return []
        cause = f"The file is called '{path.stem}', but the {what} in it '{name}'."
        return [(("name",), cause, "Give both the same name.")]

    return check
