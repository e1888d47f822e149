"""`aidsafe recipes`: list, read and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.persona import find_persona
from orchestration.commands.options import Json, Personas
from orchestration.commands.output import out, write, write_json
from orchestration.commands.yaml_files import check_files
from orchestration.pairs.exemplars import Seeds, load_seeds, seed_files
from orchestration.pairs.recipe import PairRecipe, load_pair_recipe, pair_recipe_files
from orchestration.recipe import Recipe, load_recipe, recipe_files
from orchestration.view import table

app = typer.Typer(help="List, read and check recipes.", no_args_is_help=True)


Pairs = Annotated[bool, typer.Option("--pairs", help="Pair recipes, of `aidsafe prefer`, instead.")]


@app.command("list")
def list_recipes(pairs: Pairs = False, json: Json = False) -> None:
    """List the shipped recipes.

    Example: aidsafe recipes list
    """
    if pairs:
        _list_pair_recipes(json)
        return
    found = [load_recipe(name) for name in recipe_files()]
    if json:
        write_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = [(r.name, str(r.rounds), ", ".join(r.circle), r.description) for r in found]
    out().print(table(("name", "rounds", "circle", "description"), rows))


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped name or a YAML file.")],
    pairs: Pairs = False,
    seeds: Annotated[
        bool, typer.Option("--seeds", help="The beliefs that a pair recipe begins with, instead.")
    ] = False,
    json: Json = False,
) -> None:
    """Print a recipe's file, which you can copy and edit.

    Example: aidsafe recipes show default > my_recipe.yaml
    """
    found: Recipe | PairRecipe | Seeds
    if seeds:
        found, files = load_seeds(name), seed_files()
    elif pairs:
        found, files = load_pair_recipe(name), pair_recipe_files()
    else:
        found, files = load_recipe(name), recipe_files()
    if json:
        write_json(found.model_dump(mode="json") | {"hash": found.hash})
    else:
        write(files.get(name, Path(name)).read_text(encoding="utf-8"))


@app.command("check")
def check_recipes(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Recipe YAML files.")],
    pairs: Pairs = False,
    personas: Personas = None,
) -> None:
    """Check recipes, and that their personas exist; name every problem with its line.

    Example: aidsafe recipes check my_recipe.yaml
    """

    def check_pairs(file: Path) -> str:
        recipe = load_pair_recipe(str(file.absolute()))
        load_seeds(recipe.seeds)
        for name in (recipe.whisperer, recipe.generator, recipe.scorer, recipe.sampler):
            find_persona(name, personas)
        return f"{recipe.scorer}, up to {recipe.attempts} attempts, {recipe.hash}"

    def check(file: Path) -> str:
        recipe = load_recipe(str(file.absolute()))
        named = [recipe.intent_analyst, recipe.drafter, *recipe.circle, recipe.refiner]
        for name in named:
            find_persona(name, personas)
        return f"{len(recipe.circle)} deliberators, up to {recipe.rounds} rounds, {recipe.hash}"

    check_files(files, check_pairs if pairs else check)


def _list_pair_recipes(json: bool) -> None:
    found = [load_pair_recipe(name) for name in pair_recipe_files()]
    if json:
        write_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = [(r.name, str(r.attempts), r.strategy, r.scorer, r.description) for r in found]
    out().print(table(("name", "attempts", "strategy", "scorer", "description"), rows))
