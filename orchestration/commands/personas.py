"""`aidsafe personas`: list, read and check personas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.persona import find_persona, load_persona, persona_files
from orchestration.commands.options import Json, Personas
from orchestration.commands.output import out, write, write_json
from orchestration.commands.yaml_files import check_files
from orchestration.view import table

app = typer.Typer(help="List, read and check personas.", no_args_is_help=True)


@app.command("list")
def list_personas(personas: Personas = None, json: Json = False) -> None:
    """List the personas, shipped and of your own folder.

    Example: aidsafe personas list --personas my_personas
    """
    found = [find_persona(name, personas) for name in persona_files(personas)]
    if json:
        data = [p.model_dump(mode="json", include={"name", "role", "description"}) for p in found]
        write_json(data)
        return
    found.sort(key=lambda p: (p.role, p.name))
    rows = [(p.name, p.role, p.description) for p in found]
    out().print(table(("name", "role", "description"), rows))


@app.command("show")
def show_persona(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the persona.")],
    personas: Personas = None,
    json: Json = False,
) -> None:
    """Print a persona's file, which you can copy and edit.

    Example: aidsafe personas show risk_analyst > my_personas/risk_analyst.yaml
    """
    persona = find_persona(name, personas)
    if json:
        data = persona.model_dump(mode="json") | {"hash": persona.hash}
        write_json(data)
    else:
        write(persona_files(personas)[name].read_text(encoding="utf-8"))


@app.command("check")
def check_personas(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Persona YAML files.")],
) -> None:
    """Check personas and name every problem with its line.

    Example: aidsafe personas check my_personas/*.yaml
    """

    def check(file: Path) -> str:
        persona = load_persona(file)
        return f"a {persona.role}, {persona.hash}"

    check_files(files, check)
