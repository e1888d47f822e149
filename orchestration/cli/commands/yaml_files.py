"""`aidsafe policies`, `personas`, `recipes`, `prompts`: list, show and check YAML files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer

from agents.persona import Persona, find_persona, load_persona, persona_files
from agents.prompt_texts import find_prompts, prompts_files
from orchestration.chat.view import plain, table
from orchestration.cli.console import err, out, write, write_json
from orchestration.cli.exit_codes import ExitCode
from orchestration.cli.options import OutputOptions, argument, command, option
from orchestration.deliberation.recipe import load_recipe, recipe_files
from orchestration.pairs.exemplars import load_seeds, seed_files
from orchestration.pairs.recipe import load_pair_recipe, pair_recipe_files
from policies import PolicySet, YamlError, load_policy_set, render_policy_set, shipped_policy_sets


@dataclass(frozen=True, kw_only=True)
class YamlKind:
    """How YAML files of one kind are read, and what is printed of them."""

    files: Callable[[], Mapping[str, Path]]
    """The known files by name."""
    load: Callable[[str], Any]
    """Reads one by its name or path."""
    verify: Callable[[Any], object] = lambda _: None
    """Looks for what one names."""
    summary: Callable[[Any], str]
    """What a check prints of a valid file."""
    columns: tuple[str, ...]
    """Fields that the list shows, after the name."""


@dataclass(frozen=True, kw_only=True)
class FileOptions(OutputOptions):
    """Options of `list`, and of all three commands as far as they apply."""

    personas: Path | None = option("Folder with your own persona YAMLs.", "FOLDER")
    pairs: bool = option("Pair recipes, of `aidsafe prefer`, instead.", default=False)
    seeds: bool = option("The beliefs that a pair recipe begins with, instead.", default=False)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(FileOptions):
    """Options of `show`."""

    name: str = argument("A known name or the path of a YAML file.", "NAME")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(FileOptions):
    """Options of `check`."""

    files: list[Path] = argument("YAML files.", "FILES...")


def _policies(_: FileOptions) -> YamlKind:
    return YamlKind(
        files=shipped_policy_sets,
        load=load_policy_set,
        summary=lambda s: f"{len(s.policies)} policies with {len(s.rule_ids)} rules",
        columns=("version", "policies", "title"),
    )


def _personas(options: FileOptions) -> YamlKind:
    folder = options.personas
    return YamlKind(
        files=lambda: persona_files(folder),
        load=lambda name: load_persona(Path(name)) if "/" in name else find_persona(name, folder),
        summary=lambda p: f"a {p.role}",
        columns=("role", "description"),
    )


def _prompts(_: FileOptions) -> YamlKind:
    return YamlKind(
        files=prompts_files,
        load=find_prompts,
        summary=lambda p: "prompt texts",
        columns=("description",),
    )


def _recipes(options: FileOptions) -> YamlKind:
    def find(*names: str) -> list[Persona]:
        return [find_persona(name, options.personas) for name in names]

    if options.seeds:
        return YamlKind(
            files=seed_files,
            load=load_seeds,
            summary=lambda s: f"seeds for {len(s.policies)} policies",
            columns=("policies", "description"),
        )
    if options.pairs:
        return YamlKind(
            files=pair_recipe_files,
            load=load_pair_recipe,
            verify=lambda r: (
                find(r.whisperer, r.generator, r.scorer, r.sampler),
                load_seeds(r.seeds),
                find_prompts(r.prompts),
            ),
            summary=lambda r: f"{r.scorer}, up to {r.attempts} attempts",
            columns=("attempts", "strategy", "scorer", "description"),
        )
    return YamlKind(
        files=recipe_files,
        load=load_recipe,
        verify=lambda r: (
            find(r.intent_analyst, r.drafter, *r.circle, r.refiner),
            find_prompts(r.prompts),
        ),
        summary=lambda r: f"{len(r.circle)} deliberators, up to {r.rounds} rounds",
        columns=("rounds", "circle", "description"),
    )


def make_app(
    name: str,
    noun: str,
    kind_of: Callable[[FileOptions], YamlKind],
    shown: str,
    checked: str,
    read: Collection[str] = (),
    check: Collection[str] = (),
) -> typer.Typer:
    """The commands `list`, `show` and `check`.

    Args:
        name: The command that they belong to.
        noun: What the files hold, in the plural.
        kind_of: The kind that options choose.
        shown: Arguments of the example of `show`.
        checked: Arguments of the example of `check`.
        read: Options of `list` and `show`, besides `--json`.
        check: Options of `check`.
    """

    def list_files(options: FileOptions) -> None:
        kind = kind_of(options)
        found = {name: kind.load(name) for name in kind.files()}
        if options.json:
            write_json([{**_json(item), "name": name} for name, item in found.items()])
            return
        rows = [[name, *(_cell(item, c) for c in kind.columns)] for name, item in found.items()]
        out().print(table(("name", *kind.columns), rows))

    def show_file(options: ShowOptions) -> None:
        kind = kind_of(options)
        found = kind.load(options.name)
        if options.json:
            write_json(_json(found))
        elif isinstance(found, PolicySet):
            write(render_policy_set(found))
        else:
            file = kind.files().get(options.name, Path(options.name))
            write(file.read_text(encoding="utf-8"))

    def check_files(options: CheckOptions) -> None:
        kind, valid = kind_of(options), True
        for file in options.files:
            try:
                found = kind.load(f"{file.parent}/{file.name}")  # with a slash, it is no name
                kind.verify(found)
            except YamlError as error:
                valid = False
                for problem in error.problems:
                    err().print(plain(str(problem)), soft_wrap=True)
                continue
            text = f"{file}: valid, {kind.summary(found)}, {found.hash}"
            out().print(plain(text), soft_wrap=True)
        if not valid:
            raise typer.Exit(ExitCode.INPUT)

    app = typer.Typer(help=f"List, read and check {noun}.", no_args_is_help=True)
    commands: tuple[tuple[Callable[[Any], None], Collection[str], str, str], ...] = (
        (list_files, {"json", *read}, f"List the known {noun}.", "list"),
        (show_file, {"json", *read}, f"Print one of the {noun}, to read or edit.", f"show {shown}"),
        (check_files, check, f"Check {noun}, and print problems by line.", f"check {checked}"),
    )
    for function, given, text, example in commands:
        without = {each.name for each in fields(FileOptions)}.difference(given)
        made = command(function, without)
        text += f"\n\nExample: aidsafe {name} {example}"
        app.command(example.split()[0], help=text)(made)
    return app


def _json(item: Any) -> dict[str, Any]:
    """The content of a file, with its fingerprint."""
    parts = item.policies if isinstance(item, PolicySet) else ()
    hashes = {"hashes": {policy.id: policy.hash for policy in parts}} if parts else {}
    return {**item.model_dump(mode="json"), "hash": item.hash, **hashes}


def _cell(item: Any, column: str) -> str:
    """A field's value in the list: text, the items of a list of texts, the length of another."""
    value = getattr(item, column)
    if isinstance(value, str | int):
        return str(value)
    is_texts = isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    return ", ".join(value) if is_texts else str(len(value))


policies = make_app("policies", "policy sets", _policies, "aidsafe", "my_policies.yaml")
personas = make_app(
    "personas",
    "personas",
    _personas,
    "risk_analyst > my_personas/risk_analyst.yaml",
    "my_personas/*.yaml",
    read=("personas",),
)
recipes = make_app(
    "recipes",
    "recipes",
    _recipes,
    "default > my_recipe.yaml",
    "my_recipe.yaml",
    read=("pairs", "seeds"),
    check=("pairs", "seeds", "personas"),
)
prompts = make_app(
    "prompts", "prompt texts", _prompts, "default > my_prompts.yaml", "my_prompts.yaml"
)
