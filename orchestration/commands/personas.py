"""`aidsafe personas`: list, read and check personas."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from agents.persona import find_persona, load_persona, persona_files
from orchestration.commands.options import Json, Personas
from orchestration.commands.output import err, out
from orchestration.view import table
from policies import InputError, YamlError

app = typer.Typer(help="List, read and check personas.", no_args_is_help=True)


@app.command("list")
def list_personas(personas: Personas = None, json: Json = False) -> None:
    """List the personas, shipped and of your own folder.

    Example: aidsafe personas list --personas my_personas
    """
    found = [find_persona(name, personas) for name in persona_files(personas)]
    if json:
        data = [p.model_dump(mode="json", include={"name", "role", "description"}) for p in found]
        sys.stdout.write(jsonlib.dumps(data, indent=2, ensure_ascii=False) + "\n")
        return
    rows = table("name", "role", "description")
    for persona in sorted(found, key=lambda p: (p.role, p.name)):
        rows.add_row(persona.name, persona.role, persona.description)
    out().print(rows)


@app.command("show")
def show_persona(
    name: Annotated[str, typer.Argument(help="Name of the persona.")],
    personas: Personas = None,
    json: Json = False,
) -> None:
    """Print a persona's file, which you can copy and edit.

    Example: aidsafe personas show risk_analyst > my_personas/my_analyst.yaml
    """
    persona = find_persona(name, personas)
    if json:
        data = persona.model_dump(mode="json") | {"hash": persona.hash}
        sys.stdout.write(jsonlib.dumps(data, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(persona_files(personas)[name].read_text(encoding="utf-8"))


@app.command("check")
def check_personas(
    files: Annotated[list[Path], typer.Argument(help="Persona YAML files.")],
) -> None:
    """Check personas and name every problem with its line.

    Example: aidsafe personas check my_personas/*.yaml
    """
    problems = 0
    for file in files:
        try:
            persona = load_persona(file)
        except YamlError as error:
            problems += len(error.problems)
            for problem in error.problems:
                err().print(str(problem), markup=False, soft_wrap=True)
            continue
        out().print(f"{file}: good, a {persona.role}, {persona.hash}")
    if problems:
        raise typer.Exit(InputError.exit_code)
