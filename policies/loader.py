"""Finds and loads YAML files of every kind by name or path; policy sets are the first kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

from policies.errors import Finding, InputError, Problem, YamlError, closest, shorten
from policies.types import PolicySet
from policies.yaml_model import NAME_PATTERN, Check
from policies.yaml_source import M, load_yaml


@dataclass(frozen=True)
class YamlFiles(Generic[M]):
    """The YAML files of one kind: those that are shipped, and a user's own."""

    noun: str
    """What messages call one of them."""
    folder: Path
    """Where the shipped ones are."""
    model: Callable[[], type[M]]
    """Gives the type of their content."""
    is_named: bool = False
    """Whether a file must have the name that is in it."""
    names: Mapping[str, YamlFiles[Any]] = field(default_factory=dict)
    """Fields that name a YAML file of another kind: a shipped name, or a path beside this one."""
    own: str = "or the path of a YAML file"
    """How a user names a file that is not shipped."""

    def by_name(self, folder: Path | None = None) -> dict[str, Path]:
        """The shipped files in alphabetical order, and those of a user's folder, which hide them.

        Raises:
            InputError: The folder does not exist.
        """
        files = {path.stem: path for path in sorted(self.folder.glob("*.yaml"))}
        if folder is not None:
            if not folder.is_dir():
                raise InputError(
                    f"The {self.noun}s folder {folder} does not exist.",
                    f"Name a folder that holds {self.noun} YAML files, or leave --{self.noun}s "
                    "out.",
                )
            files |= {path.stem: path for path in sorted(folder.glob("*.y*ml"))}
        return files

    def load(self, name_or_path: str | Path, folder: Path | None = None) -> M:
        """Loads a file.

        Args:
            name_or_path: A name, or the path of a YAML file: whatever contains a slash or ends in
                `.yaml` or `.yml`.
            folder: A user's folder, whose files have names too.

        Raises:
            InputError: The name is unknown.
            YamlError: The file cannot be used, with all of its problems.
        """
        path = self._find(name_or_path, folder)
        checks = [_check_name(path, self.noun.removesuffix(" file"))] if self.is_named else []
        found = load_yaml(path, self.model(), checks=checks)
        given = {key: getattr(found, key) for key in self.names}
        beside = {
            k: str(path.parent / v) for k, v in given.items() if v.endswith((".yaml", ".yml"))
        }
        return found.model_copy(update=beside) if beside else found

    def _find(self, name_or_path: str | Path, folder: Path | None) -> Path:
        name = str(name_or_path)
        if isinstance(name_or_path, Path) or re.search(r"[/\\]|\.ya?ml$", name):
            return Path(name)
        files = self.by_name(folder)
        if name not in files:
            raise InputError(
                f"There is no {self.noun} '{shorten(name)}'.",
                f"Use one of {', '.join(files)}, {self.own}. {closest(name, files)}".rstrip(),
            )
        return files[name]


def _check_name(path: Path, noun: str) -> Check:
    def check(data: Any) -> Iterator[Finding]:
        name = data.get("name") if isinstance(data, Mapping) else None
        if isinstance(name, str) and re.match(NAME_PATTERN, name) and name != path.stem:
            cause = f"The file is called '{path.stem}', but the {noun} in it '{name}'."
            yield ("name",), cause, "Give both the same name."

    return check


POLICY_SETS = YamlFiles("policy set", Path(__file__).parent, lambda: PolicySet)
load_policy_set = POLICY_SETS.load
shipped_policy_sets = POLICY_SETS.by_name


def check_policy_set(name_or_path: str | Path) -> list[Problem]:
    """Every problem of a policy set, by line; none if it can be used. See `load_policy_set`."""
    try:
        load_policy_set(name_or_path)
    except YamlError as error:
        return list(error.problems)
    return []
