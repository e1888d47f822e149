"""`aidsafe retry`: prompts of a run once more that did not come to a completed record."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from agents.models.model import ALLOWED_PROVIDERS, load_models
from orchestration.casting import Casting
from orchestration.commands import drive, options
from orchestration.commands.options import OutcomeName
from orchestration.commands.output import err
from orchestration.journal import FILE_NAME, Journal
from orchestration.runs import Run
from orchestration.runs.rebuild import job_of_run
from policies import InputError


def retry(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")],
    outcome: Annotated[
        list[OutcomeName],
        typer.Option(metavar="OUTCOME", help="Take up prompts of this outcome; may be repeated."),
    ],
    concurrency: drive.Concurrency = None,
    max_cost: drive.MaxCost = None,
    max_tokens: drive.MaxTokens = None,
    max_time: drive.MaxTime = None,
    otel: drive.Otel = False,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The models file that the run was started with, where it holds secrets or "
            "prices. [default: the models of run.yaml]",
            show_default=False,
        ),
    ] = None,
    allow_provider: options.AllowProvider = None,
    json: options.Json = False,
) -> None:
    """Take prompts of a run up again that ended as failed, refused, malformed and so on.

    Example: aidsafe retry runs/first --outcome failed --outcome malformed
    """
    if OutcomeName.completed in outcome:
        raise InputError(
            "A completed prompt is not tried again.",
            "Name another outcome; to have it made anew, change the policies, personas or recipe.",
        )
    bounds = drive.limits(max_cost, max_tokens, max_time)
    configs = load_models(models) if models is not None else None
    job = job_of_run(folder, configs, [*ALLOWED_PROVIDERS, *(allow_provider or [])])
    setup = options.Setup[Casting](job.cast, options.is_embedded(job.cast))
    at_once = concurrency or setup.default_concurrency
    names = [name.value for name in outcome]
    with closing(Journal(folder / FILE_NAME)) as journal:
        there = any(journal.outcomes()[name] for name in names)
        if not there and not journal.waiting_again(-1, 1) and not json:
            err().print(f"Nothing to retry: no prompt ended as {' or '.join(names)}.")
            return
    with drive.telemetry(otel) as telemetry:
        the_run = Run(folder, job, None, telemetry)
        setup.announce()
        drive.drive(the_run, setup, lambda: the_run.retry(names, at_once, limits=bounds), json)
