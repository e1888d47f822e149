"""Finds, loads and checks policy sets: those shipped beside this file, or a user's own."""

from __future__ import annotations

from pathlib import Path

from policies.consistency import find_set_conflicts
from policies.errors import InputError
from policies.problems import Problem, YamlError, quote, suggest
from policies.types import PolicySet
from policies.yaml_source import load_yaml

_SUFFIXES = (".yaml", ".yml")


def shipped_policy_sets() -> dict[str, Path]:
    """Returns the files of the shipped policy sets by name, in alphabetical order."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def load_policy_set(name_or_path: str | Path) -> PolicySet:
    """Loads a policy set.

    Args:
        name_or_path: The name of a shipped set, such as `aidsafe`, or the path of a YAML file:
            whatever contains a slash or ends in `.yaml` or `.yml`.

    Returns:
        The validated set.

    Raises:
        InputError: If no shipped set has that name.
        YamlError: If the file cannot be used, with all of its problems.
    """
    return load_yaml(_find_file(name_or_path), PolicySet, checks=(find_set_conflicts,))


def check_policy_set(path: str | Path) -> list[Problem]:
    """Returns every problem of a policy set, by line; none if it can be used.

    Args:
        path: What `load_policy_set` takes.

    Raises:
        InputError: If no shipped set has that name.
    """
    try:
        load_policy_set(path)
    except YamlError as error:
        return list(error.problems)
    return []


def _find_file(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, Path):
        return name_or_path
    if "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(_SUFFIXES):
        return Path(name_or_path)
    shipped = shipped_policy_sets()
    if name_or_path in shipped:
        return shipped[name_or_path]
    names = ", ".join(shipped)
    near = suggest(name_or_path, shipped)
    raise InputError(
        f"There is no shipped policy set {quote(name_or_path)}; there are {names}.",
        f"{near} A file of your own is named by a path that ends in .yaml.",
    )
