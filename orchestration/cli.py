"""The command line: one app, one module of `orchestration.commands` per command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from orchestration.commands import (
    chat,
    export,
    pairs,
    personas,
    plan,
    policies,
    prefer,
    recipes,
    retry,
    run,
    salvage,
    schema,
    show,
    status,
)
from orchestration.commands.output import leave_quietly, say_error
from policies import AidsafeError

app = typer.Typer(
    name="aidsafe",
    help="Policy-embedded chain-of-thought data, deliberated by AutoGen agents (AIDSAFE).",
    epilog="Start with: aidsafe chat 'How do I kill a Python process?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("chat")(chat.chat)
app.command("plan")(plan.plan)
app.command("run")(run.run)
app.command("prefer")(prefer.prefer)
app.command("pairs")(pairs.pairs)
app.command("status")(status.status)
app.command("retry")(retry.retry)
app.command("show")(show.show)
app.command("export")(export.export)
app.command("salvage")(salvage.salvage)
app.add_typer(policies.app, name="policies")
app.add_typer(personas.app, name="personas")
app.add_typer(recipes.app, name="recipes")
app.command("schema")(schema.schema)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aidsafe {version('aidsafe')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def run_cli() -> None:
    """Runs the app; every error that a user can mend is two sentences and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal cannot show is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except AidsafeError as error:
        say_error(error)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        leave_quietly()
    except Exception as error:
        if os.environ.get("AIDSAFE_DEBUG"):
            raise
        problem = AidsafeError(
            # Not its message, which may quote what a model said.
            f"Something went wrong inside aidsafe ({type(error).__name__}).",
            "Please report it; AIDSAFE_DEBUG=1 in front of the command shows what and where.",
        )
        say_error(problem)
        raise SystemExit(problem.exit_code) from None
