"""`aidsafe run`: many prompts, into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import drive, options
from orchestration.commands.output import err, out, run_async, write_json
from orchestration.progress import short
from orchestration.prompts import read_prompts
from orchestration.runs import Run
from orchestration.runs.dry import DryRun, dry_run
from orchestration.runs.intake import Source
from orchestration.runs.job import Deliberations
from orchestration.view import plain, table

Prompts = Annotated[
    str,
    typer.Argument(
        metavar="PROMPTS",
        help="JSONL, CSV, TSV, Parquet or text file; hf:owner/name for a Hugging Face data "
        "set; - for standard input.",
    ),
]
Folder = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Run folder; made if it is not there.")
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="Column of the prompts. [default: prompt, or the only column]",
        show_default=False,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        metavar="NAME",
        help="Column of the ids. [default: made from the text]",
        show_default=False,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", min=1, metavar="N", help="Take so many prompts only.", show_default=False
    ),
]


def run(
    prompts: Prompts,
    folder: Folder,
    column: Column = None,
    id_column: IdColumn = None,
    limit: Limit = None,
    concurrency: drive.Concurrency = None,
    max_cost: drive.MaxCost = None,
    max_tokens: drive.MaxTokens = None,
    max_time: drive.MaxTime = None,
    otel: drive.Otel = False,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Call nothing: say how many replies of a run that is there would be asked anew.",
        ),
    ] = False,
    policies: options.Policies = "aidsafe",
    recipe: options.RecipeName = None,
    personas: options.Personas = None,
    models: options.Models = None,
    base_url: options.BaseUrl = None,
    model: options.ModelName = None,
    price: options.PriceText = None,
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
        price=price,
        seed=seed,
        allow_provider=allow_provider,
    )
    if dry:
        _say_dry_run(run_async(lambda: dry_run(folder, setup.cast)), json)
        return
    bounds = drive.limits(max_cost, max_tokens, max_time)
    with (
        read_prompts(prompts, column=column, id_column=id_column) as reader,
        drive.telemetry(otel) as telemetry,
    ):
        the_run = Run(
            folder, Deliberations(setup.cast), Source(prompts, column, id_column, limit), telemetry
        )
        setup.announce()
        drive.announce_changes(the_run)
        at_once = concurrency or setup.default_concurrency
        drive.drive(the_run, setup, lambda: the_run.execute(reader, at_once, limits=bounds), json)


def _say_dry_run(found: DryRun, json: bool) -> None:
    if json:
        write_json(found.model_dump())
        return
    rows = [
        ("prompts that end as they did", f"{found.unchanged:,}"),
        ("prompts that need new calls", f"{found.changed:,}"),
        ("prompts without an outcome yet", f"{found.unfinished:,}"),
        ("replies that are used again", f"{found.replies_used:,}"),
        ("replies that are asked anew", f"{found.replies_asked_anew:,}"),
    ]
    out().print(table(("of this run", f"{found.prompts:,} prompts"), rows))
    err().print(
        plain(
            f"About {short(found.replies_asked_anew)} calls, more or fewer where chats take "
            "another course; those of prompts without an outcome come on top.",
            style="dim",
        )
    )
