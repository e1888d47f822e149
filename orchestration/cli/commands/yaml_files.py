"""`aidsafe policies`, `personas`, `recipes`, `prompts`: list, show and check YAML files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import typer

from agents.persona import PERSONAS
from agents.prompt_texts import PROMPTS
from orchestration.chat.view import plain, table
from orchestration.cli.console import err, out, write, write_json
from orchestration.cli.exit_codes import ExitCode
from orchestration.cli.options import OutputOptions, argument, command, option
from orchestration.deliberation.recipe import RECIPES
from orchestration.pairs.exemplars import SEEDS
from orchestration.pairs.recipe import PAIR_RECIPES
from policies import PolicySet, YamlError, YamlFiles, render_policy_set
from policies.loader import POLICY_SETS


@dataclass(frozen=True)
class Listing:
    """What is printed of the YAML files of one kind."""

    files: YamlFiles[Any]
    columns: tuple[str, ...]
    """Fields that the list shows, after the name."""
    summary: Callable[[Any], str]
    """What a check prints of a valid file."""
    personas: Callable[[Any], Sequence[str]] = lambda _: ()
    """The personas that one names."""

    def check(self, file: Path, folder: Path | None) -> Any:
        """Loads a file, and everything that it names."""
        found = self.files.load(file)
        for name in self.personas(found):
            PERSONAS.load(name, folder)
        for field, others in self.files.names.items():
            others.load(getattr(found, field))
        return found


LISTINGS = {
    "policies": Listing(
        POLICY_SETS,
        ("version", "policies", "title"),
        lambda s: f"{len(s.policies)} policies with {len(s.rule_ids)} rules",
    ),
    "personas": Listing(PERSONAS, ("role", "description"), lambda p: f"a {p.role}"),
    "prompts": Listing(PROMPTS, ("description",), lambda _: "prompt texts"),
    "recipes": Listing(
        RECIPES,
        ("rounds", "circle", "description"),
        lambda r: f"{len(r.circle)} deliberators, up to {r.rounds} rounds",
        lambda r: (r.intent_analyst, r.drafter, *r.circle, r.refiner),
    ),
    "pairs": Listing(
        PAIR_RECIPES,
        ("attempts", "strategy", "scorer", "description"),
        lambda r: f"{r.scorer}, up to {r.attempts} attempts",
        lambda r: (r.whisperer, r.generator, r.scorer, r.sampler),
    ),
    "seeds": Listing(
        SEEDS,
        ("policies", "description"),
        lambda s: f"seeds for {len(s.policies)} policies",
    ),
}


@dataclass(frozen=True, kw_only=True)
class FileOptions(OutputOptions):
    """Options of `list`, and of all three commands as far as they apply."""

    personas: Path | None = option("Folder with your own persona YAMLs.", "FOLDER")
    pairs: bool = option("Pair recipes, of `aidsafe prefer`, instead.", default=False)
    seeds: bool = option("The beliefs that a pair recipe begins with, instead.", default=False)

    def listing(self, name: str) -> Listing:
        """That of the command, or of the files that are to be read instead."""
        return LISTINGS["seeds" if self.seeds else "pairs" if self.pairs else name]


def make_app(
    name: str,
    noun: str,
    shown: str,
    checked: str,
    read: Collection[str] = (),
    check: Collection[str] = (),
) -> typer.Typer:
    """The commands `list`, `show` and `check`.

    Args:
        name: The command that they belong to.
        noun: What the files hold, in the plural.
        shown: Arguments of the example of `show`.
        checked: Arguments of the example of `check`.
        read: Options of `list` and `show`, besides `--json`.
        check: Options of `check`.
    """

    def list_files(options: FileOptions) -> None:
        listing, folder = options.listing(name), options.personas
        files = listing.files
        found = {each: files.load(each, folder) for each in files.by_name(folder)}
        if options.json:
            write_json([{**_json(item), "name": each} for each, item in found.items()])
            return
        columns = listing.columns
        rows = [[each, *(_cell(item, c) for c in columns)] for each, item in found.items()]
        out().print(table(("name", *columns), rows))

    def show_file(
        options: FileOptions,
        file: str = argument("A known name or the path of a YAML file.", "NAME"),
    ) -> None:
        files, folder = options.listing(name).files, options.personas
        found = files.load(file, folder)
        if options.json:
            write_json(_json(found))
        elif isinstance(found, PolicySet):
            write(render_policy_set(found))
        else:
            path = files.by_name(folder).get(file, Path(file))
            write(path.read_text(encoding="utf-8"))

    def check_files(
        options: FileOptions, files: list[Path] = argument("YAML files.", "FILES...")
    ) -> None:
        listing, valid = options.listing(name), True
        for file in files:
            try:
                found = listing.check(file, options.personas)
            except YamlError as error:
                valid = False
                for problem in error.problems:
                    err().print(plain(str(problem)), soft_wrap=True)
                continue
            text = f"{file}: valid, {listing.summary(found)}, {found.hash}"
            out().print(plain(text), soft_wrap=True)
        if not valid:
            raise typer.Exit(ExitCode.INPUT)

    app = typer.Typer(help=f"List, read and check {noun}.", no_args_is_help=True)
    commands: tuple[tuple[Callable[..., None], Collection[str], str, str], ...] = (
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


policies = make_app("policies", "policy sets", "aidsafe", "my_policies.yaml")
personas = make_app(
    "personas",
    "personas",
    "risk_analyst > my_personas/risk_analyst.yaml",
    "my_personas/*.yaml",
    read=("personas",),
)
recipes = make_app(
    "recipes",
    "recipes",
    "default > my_recipe.yaml",
    "my_recipe.yaml",
    read=("pairs", "seeds"),
    check=("pairs", "seeds", "personas"),
)
prompts = make_app("prompts", "prompt texts", "default > my_prompts.yaml", "my_prompts.yaml")
