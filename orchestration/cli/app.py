"""The command line: which commands there are, and how their errors are reported."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from orchestration.cli.console import print_error
from orchestration.cli.exit_codes import ExitCode, exit_code
from orchestration.cli.machine import of_the_machine
from policies import AidsafeError

COMMANDS = {
    "chat": ("chat", "Let the agents deliberate over one prompt, and watch them."),
    "plan": ("forecast", "Forecast what a run will take, from a small pilot."),
    "run": ("run", "Let the agents deliberate over many prompts."),
    "prefer": ("prefer", "Make preference pairs for DPO of a run's records."),
    "pairs": ("pairs", "Report on a run's preference pairs."),
    "status": ("status", "Show the progress of a run, while it runs or after."),
    "retry": ("retry", "Retry prompts of a run that failed, were refused, and so on."),
    "show": ("show", "List the results of a run, or read one turn by turn."),
    "export": ("export", "Export the completed results of a run as JSON lines."),
    "salvage": ("salvage", "Copy all that is intact in a damaged run to a new one."),
    "policies": ("yaml_files", "List, read and check policy sets."),
    "personas": ("yaml_files", "List, read and check personas."),
    "recipes": ("yaml_files", "List, read and check recipes."),
    "prompts": ("yaml_files", "List, read and check prompt texts."),
    "schema": ("schema", "Print the JSON Schema of a result or a YAML file."),
}
"""The module of `orchestration.cli.commands` that defines each command by its name, and the
command's line in the help."""


def make_app(used: str | None) -> typer.Typer:
    """The app.

    Args:
        used: The command that will run. Only that one is imported, since importing all takes
            seconds; the others appear in the help.
    """
    app = typer.Typer(
        name="aidsafe",
        help="Policy-embedded chain-of-thought data, deliberated by AutoGen agents (AIDSAFE).",
        epilog="Start with: aidsafe chat 'How do I kill a Python process?'",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_main)
    for name, (module, summary) in COMMANDS.items():
        if name != used:
            app.command(name, help=summary)(lambda: None)
            continue
        found = getattr(importlib.import_module(f"orchestration.cli.commands.{module}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"aidsafe {version('aidsafe')}")
        raise typer.Exit


def _main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def run_cli(
    on_start: Callable[[], None] = lambda: None, on_end: Callable[[], None] = lambda: None
) -> None:
    """Runs the command line; errors become two sentences and an exit code.

    Args:
        on_start: Called before the command begins, when all is imported.
        on_end: Called when it has ended, before its error is reported.
    """
    for stream in (sys.stdout, sys.stderr):
        # A character that a terminal cannot show is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app = make_app(next((word for word in sys.argv[1:] if not word.startswith("-")), None))
        try:
            on_start()
            app()
        finally:
            on_end()
    except AidsafeError as error:
        print_error(error)
        raise SystemExit(exit_code(error)) from None
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of pydantic is no Exception
        if os.environ.get("AIDSAFE_DEBUG"):
            # Imported here: a command that succeeds does not need it.
            from agents.models.redaction import hold_environment, redact_text

            hold_environment()
            sys.stderr.write(redact_text(traceback.format_exc()))
            raise SystemExit(ExitCode.INTERNAL) from None
        problem = of_the_machine(error) or AidsafeError(
            # Without the error's message, which may quote a reply.
            f"An error inside aidsafe ({type(error).__name__}).",
            "Please report it; with AIDSAFE_DEBUG=1 the command prints a traceback.",
        )
        print_error(problem)
        raise SystemExit(exit_code(problem)) from None
