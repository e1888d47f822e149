"""`aidsafe run`: many prompts, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import options
from orchestration.commands.output import (
    Interrupted,
    Stopper,
    err,
    out,
    run_async,
    write_json,
)
from orchestration.progress import Progress, print_summary
from orchestration.prompts import PromptReader, read_prompts
from orchestration.run import Run
from policies import AidsafeError, ExitCode


def run(
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS",
            help="JSONL, CSV, TSV, Parquet or text file; hf:owner/name for a Hugging Face data "
            "set; - for standard input.",
        ),
    ],
    folder: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Run folder; made if it is not there."),
    ],
    column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of the prompts. [default: prompt, or the only column]",
            show_default=False,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column of the ids. [default: made from the text]",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Take so many prompts only.", show_default=False),
    ] = None,
    retry: Annotated[
        list[options.OutcomeName] | None,
        typer.Option(
            help="Try prompts of this outcome once more, such as failed; may be repeated.",
            metavar="OUTCOME",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
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
        error: AidsafeError | None = None
        try:
            setup.announce()
            at_once = concurrency or setup.default_concurrency
            run_async(
                lambda: _execute(the_run, setup, reader, at_once, limit, retry or []),
                "Go on with the same command: what is done stays done.",
            )
        except AidsafeError as problem:
            error = problem  # told last, below what was done all the same
        finally:
            the_run.close()
    summary = the_run.summary
    if json:
        write_json(summary.as_json() | {"duplicates": reader.duplicates, "empty": reader.empty})
    elif summary.outcomes:
        print_summary(out(), folder, summary, reader)
    if error is not None:
        raise error
    if summary.interrupted:
        raise Interrupted("Stopped.", "Go on with the same command: what is done stays done.")
    if not summary.outcomes["completed"]:
        raise typer.Exit(ExitCode.NOT_COMPLETED)


async def _execute(
    the_run: Run,
    setup: options.Setup,
    reader: PromptReader,
    concurrency: int,
    limit: int | None,
    retry: list[options.OutcomeName],
) -> None:
    notice = "Stopping: chats under way are finished first. Ctrl-C again stops now."
    with Stopper(notice) as stopper, Progress(err(), limit) as progress:
        try:
            await the_run.execute(
                reader,
                concurrency,
                on_record=progress.advance,
                on_passed=progress.pass_over,
                stopping=stopper.stopping,
                retry=retry,
            )
        finally:
            await setup.close()
