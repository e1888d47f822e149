"""`aidsafe chat`: one prompt, read along as the agents speak."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer
from autogen_agentchat.base import TaskResult
from rich.text import Text

from agents.models.errors import EndpointError
from agents.turns import TurnMessage
from orchestration.commands import options
from orchestration.commands.output import out, run_async, write
from orchestration.prompts import Prompt, prompt_id
from orchestration.recipe import Cast
from orchestration.record import CoTRecord, Outcome
from orchestration.serialize import Serializer
from orchestration.view import TurnPrinter, clean, print_record
from policies import ExitCode, InputError


def chat(
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help="The prompt; - reads it from standard input."),
    ],
    policies: options.Policies = "aidsafe",
    recipe: options.RecipeName = None,
    personas: options.Personas = None,
    models: options.Models = None,
    base_url: options.BaseUrl = None,
    model: options.ModelName = None,
    seed: options.Seed = None,
    allow_provider: options.AllowProvider = None,
    json: options.Json = False,
) -> None:
    """Let the agents deliberate over one prompt, and watch them.

    Example: aidsafe chat "How do I kill a Python process?" --policies my_policies.yaml
    """
    text = (_read_stdin() if prompt == "-" else prompt).strip()
    if not text:
        raise InputError("The prompt is empty.", "Give it in quotes, or - and standard input.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("The prompt is not UTF-8 text.", "Give it as UTF-8.") from None
    setup = options.set_up(
        policies=policies,
        recipe=recipe,
        personas=personas,
        models=models,
        base_url=base_url,
        model=model,
        seed=seed,
        allow_provider=allow_provider,
    )
    setup.announce()
    record, error = run_async(lambda: _stream(setup, text, quiet=json))
    if json:
        write(record.model_dump_json(indent=2) + "\n")
    else:
        print_record(out(), record)
    if error is not None:
        raise error
    if record.outcome != "completed":
        raise typer.Exit(ExitCode.NOT_COMPLETED)


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("Standard input is not UTF-8 text.", "Pipe text into it.") from None


async def _stream(
    setup: options.Setup[Cast], text: str, quiet: bool
) -> tuple[CoTRecord, EndpointError | None]:
    """The chat's record; with the endpoint's error if that ended a chat which had begun."""
    console = out()
    printer = TurnPrinter(console)
    team = setup.cast.make_chat()
    started = datetime.now(UTC)
    stop_reason: str | None = None
    failure: EndpointError | None = None
    if not quiet:
        console.print(Text(f"prompt  {clean(text)}\n", style="bold"))
    try:
        async with aclosing(team.run_stream(task=text)) as stream:
            async for item in stream:
                if isinstance(item, TaskResult):
                    stop_reason = item.stop_reason
                elif isinstance(item, TurnMessage) and not quiet:
                    printer.print(item.content)
    except EndpointError as error:
        if len(team.messages) <= 1:
            raise  # nothing was said, so there is nothing to show
        failure = error
    finally:
        await setup.close()
    broke_off: tuple[Outcome, str] | None = ("failed", failure.cause) if failure else None
    record = Serializer(setup.cast).record(
        Prompt(prompt_id(text), text), team.messages, stop_reason, started, broke_off
    )
    return record, failure
