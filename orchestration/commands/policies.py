"""`aidsafe policies`: list, read and check policy sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.options import Json
from orchestration.commands.output import out, write, write_json
from orchestration.commands.yaml_files import check_files
from orchestration.view import table
from policies import load_policy_set, render_policy_set, shipped_policy_sets

app = typer.Typer(help="List, read and check policy sets.", no_args_is_help=True)

SetName = Annotated[str, typer.Argument(metavar="NAME", help="A shipped name or a YAML file.")]


@app.command("list")
def list_sets(json: Json = False) -> None:
    """List the shipped policy sets.

    Example: aidsafe policies list
    """
    sets = {name: load_policy_set(name) for name in shipped_policy_sets()}
    if json:
        rows = [
            {"name": n, "version": s.version, "title": s.title, "policies": s.policy_ids}
            for n, s in sets.items()
        ]
        write_json(rows)
        return
    lines = [(n, s.version, str(len(s.policies)), s.title) for n, s in sets.items()]
    out().print(table(("name", "version", "policies", "title"), lines))


@app.command("show")
def show_set(name: SetName, json: Json = False) -> None:
    """Print a policy set as the agents read it, or whole as JSON.

    Example: aidsafe policies show aidsafe
    """
    policy_set = load_policy_set(name)
    if json:
        data = policy_set.model_dump(mode="json")
        data["hashes"] = {policy.id: policy.hash for policy in policy_set.policies}
        write_json(data)
    else:
        write(render_policy_set(policy_set))


@app.command("check")
def check_sets(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Policy-set YAML files.")],
) -> None:
    """Check policy sets and name every problem with its line.

    Example: aidsafe policies check my_policies.yaml
    """

    def check(file: Path) -> str:
        policy_set = load_policy_set(file)
        rules = sum(len(policy.rules) for policy in policy_set.policies)
        return f"{len(policy_set.policies)} policies with {rules} rules, {policy_set.hash}"

    check_files(files, check)
