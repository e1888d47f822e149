"""Finds, loads and checks policy sets: those shipped beside this file, or a user's own."""

from __future__ import annotations

from pathlib import Path

from policies.consistency import find_set_conflicts
from policies.errors import InputError
from policies.problems import Problem, YamlError, quote, suggest
from policies.types import PolicySet
from policies.yaml_source import load_yaml


def shipped_policy_sets() -> dict[str, Path]:
    """Returns the files of the shipped policy sets by name, in alphabetical order."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def load_policy_set(name_or_path: str | Path) -> PolicySet:
    """Loads a policy set.

    Args:
        name_or_path: The name of a shipped set, such as `aidsafe`, or the path of a YAML file:
            whatever contains a slash or ends in `.yaml` or `.yml`.

    Raises:
        InputError: No shipped set has that name.
        YamlError: The file cannot be used, with all of its problems.
    """
    return load_yaml(_find_file(name_or_path), PolicySet, checks=(find_set_conflicts,))


def check_policy_set(name_or_path: str | Path) -> list[Problem]:
    """Every problem of a policy set, by line; none if it can be used. See `load_policy_set`."""
    try:
        load_policy_set(name_or_path)
    except YamlError as error:
        return list(error.problems)
    return []


def _find_file(name_or_path: str | Path) -> Path:
    shipped, name = shipped_policy_sets(), str(name_or_path)
    is_path = isinstance(name_or_path, Path) or "/" in name or "\\" in name
    if is_path or name.endswith((".yaml", ".yml")):
        return Path(name)
    if name in shipped:
        return shipped[name]
    raise InputError(
        f"There is no shipped policy set {quote(name)}; there are {', '.join(shipped)}.",
        f"{suggest(name, shipped)} A file of your own is named by a path that ends in .yaml.",
    )
