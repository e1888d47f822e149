"""Reads YAML files that people write, strictly, and reports everything wrong with them at once.

Nothing in a file is ever executed or expanded: tags, anchors, aliases and merge keys are refused
while the file is read, before there is any data. Values are then checked by a pydantic model, and
each of its errors is led back to the line it comes from.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from policies.problems import Finding, Problem, YamlError
from policies.yaml_nodes import PlainYaml, read_plain
from policies.yaml_sentences import explain_value

MAX_BYTES = 1_000_000
"""Larger files are refused unread; a policy set has a few tens of kilobytes."""

M = TypeVar("M", bound=BaseModel)

Check = Callable[[Any], Iterable[Finding]]
"""Finds what a model cannot see, such as an id used twice. It gets the raw data even where that has
the wrong shape, and must cope, so that all problems of a file are reported together."""


def load_yaml(path: Path, model: type[M], *, checks: Sequence[Check] = ()) -> M:
    """Reads one YAML file into a model.

    Args:
        path: The file, UTF-8, at most `MAX_BYTES`.
        model: What it must hold.
        checks: Further checks of the raw data.

    Raises:
        YamlError: With every problem of the file.
    """
    return parse_yaml_text(_read_text(path), str(path), model, checks)


def parse_yaml_text(text: str, name: str, model: type[M], checks: Sequence[Check] = ()) -> M:
    """Reads YAML text into a model, as `load_yaml` does with a file; problems call it `name`."""
    source = read_plain(text, name, next(iter(model.model_fields), "key"))
    result, findings = _validate(source, model, checks)
    problems = [*source.problems, *(Problem(name, source.line_of(at), *s) for at, *s in findings)]
    if problems or result is None:
        raise YamlError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return result


def _validate(
    source: PlainYaml, model: type[M], checks: Sequence[Check]
) -> tuple[M | None, list[Finding]]:
    found = [finding for check in checks for finding in check(source.data)]
    try:
        return model.model_validate(source.data), found
    except ValidationError as error:
        details = error.errors(include_url=False)
    for detail in details:
        loc = detail["loc"]
        # A validator that guards models built in Python says again, less precisely, what a check
        # has said.
        if detail["type"] == "value_error" and any(at[: len(loc)] == loc for at, _, _ in found):
            continue
        # Pydantic counts the valid items only; what is wrong with the others is said of them.
        if detail["type"] == "too_short" and any(
            len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in details
        ):
            continue
        found.append((loc, *explain_value(detail, model, source.written.get(loc))))
    return None, found


def _read_text(path: Path) -> str:
    def refused(cause: str, remedy: str, line: int | None = None) -> YamlError:
        return YamlError.at(str(path), line, cause, remedy)

    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise refused("This is a folder.", "Name one YAML file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise refused("This is not a regular file.", "Save the YAML as a file.")
        if status.st_size > MAX_BYTES:
            cause = f"This file is too large: {status.st_size:,} bytes, of at most {MAX_BYTES:,}."
            raise refused(cause, "Split it, or check that it is the right file.")
        content = path.read_bytes()
    except FileNotFoundError:
        raise refused("There is no such file.", "Check the path and the spelling.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        cause = f"This file cannot be read: {reason}."
        raise refused(cause, "Check the path and its permissions.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        cause = f"This file is not UTF-8 text (byte {error.start:,} cannot be read)."
        raise refused(cause, "Save it with the encoding UTF-8.", line) from None
