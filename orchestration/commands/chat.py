"""`aidsafe chat`: one prompt, read along as the agents speak."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated

import typer
from autogen_agentchat.base import TaskResult
from rich.text import Text

from agents.turns import TurnMessage
from orchestration.commands import options
from orchestration.commands.output import err, out, run_async
from orchestration.prompts import Prompt, prompt_id
from orchestration.record import CoTRecord
from orchestration.serialize import Serializer
from orchestration.view import TurnPrinter, clean, print_record
from policies import InputError

NOT_COMPLETED = 6
"""Exit code of a chat, or a run, that came to its end without a completed record."""


def chat(
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from standard input.")],
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
    text = (sys.stdin.read() if prompt == "-" else prompt).strip()
    if not text:
        raise InputError("The prompt is empty.", "Give it in quotes, or - and standard input.")
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
    err().print(Text(setup.notice, style="dim"))
    if setup.embedded:
        err().print(Text(options.EMBEDDED_NOTICE, style="yellow"))
    record = run_async(_stream(setup, text, quiet=json))
    if json:
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")
    else:
        print_record(out(), record)
    if record.outcome != "completed":
        raise typer.Exit(NOT_COMPLETED)


async def _stream(setup: options.Setup, text: str, quiet: bool) -> CoTRecord:
    console = out()
    printer = TurnPrinter(console)
    team = setup.cast.make_chat()
    started = datetime.now(UTC)
    stop_reason: str | None = None
    if not quiet:
        console.print(Text(f"prompt  {clean(text)}\n", style="bold"))
    async with aclosing(team.run_stream(task=text)) as stream:
        async for item in stream:
            if isinstance(item, TaskResult):
                stop_reason = item.stop_reason
            elif isinstance(item, TurnMessage) and not quiet:
                printer.print(item.content)
    await asyncio.gather(*(model.close() for model in setup.cast.models_in_use))
    serializer = Serializer(setup.cast)
    return serializer.record(Prompt(prompt_id(text), text), team.messages, stop_reason, started)
