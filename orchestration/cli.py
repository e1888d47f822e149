"""The command line: one app, one module of `orchestration.commands` per command."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from orchestration.commands import chat, export, personas, policies, run, schema, show
from orchestration.commands.output import say_error
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
app.command("run")(run.run)
app.command("show")(show.show)
app.command("export")(export.export)
app.add_typer(policies.app, name="policies")
app.add_typer(personas.app, name="personas")
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
    try:
        app()
    except AidsafeError as error:
        say_error(error)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # Whoever read our output has enough of it. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        if os.environ.get("AIDSAFE_DEBUG"):
            raise
        say_error(
            AidsafeError(
                f"Something went wrong inside aidsafe ({type(error).__name__}: {error}).",
                "Please report it; AIDSAFE_DEBUG=1 in front of the command shows where.",
            )
        )
        raise SystemExit(1) from None
