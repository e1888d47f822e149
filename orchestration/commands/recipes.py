"""`aidsafe recipes`: list, read and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.persona import find_persona
from orchestration.commands.options import Json, Personas
from orchestration.commands.output import out, write, write_json
from orchestration.commands.yaml_files import check_files
from orchestration.recipe import load_recipe, recipe_files
from orchestration.view import table

app = typer.Typer(help="List, read and check recipes.", no_args_is_help=True)


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the shipped recipes.

    Example: aidsafe recipes list
    """
    found = [load_recipe(name) for name in recipe_files()]
    if json:
        write_json([recipe.model_dump(mode="json") for recipe in found])
        return
    rows = [(r.name, str(r.rounds), ", ".join(r.circle), r.description) for r in found]
    out().print(table(("name", "rounds", "circle", "description"), rows))


@app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A shipped name or a YAML file.")],
    json: Json = False,
) -> None:
    """Print a recipe's file, which you can copy and edit.

    Example: aidsafe recipes show default > my_recipe.yaml
    """
    recipe = load_recipe(name)
    if json:
        write_json(recipe.model_dump(mode="json") | {"hash": recipe.hash})
    else:
        write(recipe_files().get(name, Path(name)).read_text(encoding="utf-8"))


@app.command("check")
def check_recipes(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Recipe YAML files.")],
    personas: Personas = None,
) -> None:
    """Check recipes, and that their personas exist; name every problem with its line.

    Example: aidsafe recipes check my_recipe.yaml
    """

    def check(file: Path) -> str:
        recipe = load_recipe(str(file.absolute()))
        named = [recipe.intent_analyst, recipe.drafter, *recipe.circle, recipe.refiner]
        for name in named:
            find_persona(name, personas)
        return f"{len(recipe.circle)} deliberators, up to {recipe.rounds} rounds, {recipe.hash}"

    check_files(files, check)
