"""`aidsafe run`: many prompts, into a run folder."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestration.commands import options
from orchestration.commands.chat import NOT_COMPLETED
from orchestration.commands.output import INTERRUPTED, Stopper, err, out, run_async
from orchestration.progress import Progress, print_summary
from orchestration.prompts import PromptReader, read_prompts
from orchestration.run import Run, Summary


def run(
    prompts: Annotated[
        str,
        typer.Argument(
            help="JSONL, CSV, TSV, Parquet or text file; hf:owner/name for a Hugging Face data "
            "set; - for standard input."
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Run folder; made if it is not there.")],
    column: Annotated[
        str | None, typer.Option(help="Column of the prompts.", show_default="prompt")
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(help="Column of the ids. [default: made from the text]", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take so many prompts only.", show_default=False)
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Chats at the same time. [default: 16; the number of slots on the embedded model]",
            show_default=False,
        ),
    ] = None,
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
    """Let the agents deliberate over many prompts. The same command again goes on with a run.

    Example: aidsafe run prompts.jsonl --out runs/first --limit 200
    """
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
    with read_prompts(prompts, column=column, id_column=id_column, limit=limit) as reader:
        source = {"source": prompts, "column": column, "id_column": id_column, "limit": limit}
        the_run = Run(folder, setup.cast, source)
        try:
            err().print(Text(setup.notice, style="dim"))
            if setup.embedded:
                err().print(Text(options.EMBEDDED_NOTICE, style="yellow"))
            at_once = concurrency or setup.default_concurrency
            summary = run_async(_execute(the_run, setup, reader, at_once, limit))
        finally:
            the_run.close()
    if json:
        print_json(summary, reader)
    else:
        print_summary(out(), folder, summary, reader)
    if summary.interrupted:
        err().print(Text("Stopped. Go on with the same command.", style="bold"))
        raise typer.Exit(INTERRUPTED)
    if not summary.outcomes["completed"]:
        raise typer.Exit(NOT_COMPLETED)


async def _execute(
    the_run: Run, setup: options.Setup, reader: PromptReader, concurrency: int, limit: int | None
) -> Summary:
    notice = "Stopping: chats under way are finished first. Ctrl-C again stops now."
    with Stopper(notice) as stopper, Progress(err(), limit) as progress:
        try:
            return await the_run.execute(
                reader, concurrency, on_record=progress.advance, stopping=stopper.stopping
            )
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
        finally:
            await asyncio.gather(*(model.close() for model in setup.cast.models_in_use))


def print_json(summary: Summary, reader: PromptReader) -> None:
    """The summary for a program."""
    import json

    data = summary.as_json() | {"duplicates": reader.duplicates, "empty": reader.empty}
    sys.stdout.write(json.dumps(data, indent=2) + "\n")
