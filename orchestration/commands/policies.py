"""`aidsafe policies`: list, read and check policy sets."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.options import Json
from orchestration.commands.output import err, out
from orchestration.view import table
from policies import (
    InputError,
    check_policy_set,
    load_policy_set,
    render_policy_set,
    shipped_policy_sets,
)

app = typer.Typer(help="List, read and check policy sets.", no_args_is_help=True)

SetName = Annotated[str, typer.Argument(help="A shipped name or a YAML file.")]


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
        sys.stdout.write(jsonlib.dumps(rows, indent=2) + "\n")
        return
    rows_ = table("name", "version", "policies", "title")
    for name, policy_set in sets.items():
        rows_.add_row(name, policy_set.version, str(len(policy_set.policies)), policy_set.title)
    out().print(rows_)


@app.command("show")
def show_set(name: SetName, json: Json = False) -> None:
    """Print a policy set as the agents read it, or whole as JSON.

    Example: aidsafe policies show aidsafe
    """
    policy_set = load_policy_set(name)
    if json:
        data = policy_set.model_dump(mode="json")
        data["hashes"] = {policy.id: policy.hash for policy in policy_set.policies}
        sys.stdout.write(jsonlib.dumps(data, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(render_policy_set(policy_set))


@app.command("check")
def check_sets(
    files: Annotated[list[Path], typer.Argument(help="Policy-set YAML files.")],
) -> None:
    """Check policy sets and name every problem with its line.

    Example: aidsafe policies check my_policies.yaml
    """
    problems = 0
    for file in files:
        found = check_policy_set(file)
        problems += len(found)
        for problem in found:
            err().print(str(problem), markup=False, soft_wrap=True)
        if not found:
            policy_set = load_policy_set(file)
            rules = sum(len(policy.rules) for policy in policy_set.policies)
            out().print(
                f"{file}: good, {len(policy_set.policies)} policies with {rules} rules, "
                f"{policy_set.hash}"
            )
    if problems:
        raise typer.Exit(InputError.exit_code)
