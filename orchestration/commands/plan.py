"""`aidsafe plan`: what a run will take, before it is paid for."""

from __future__ import annotations

import math
import shlex
from typing import Annotated

import typer

from orchestration.commands import drive, options
from orchestration.commands.output import out, write_json
from orchestration.commands.run import Column, Folder, IdColumn, Limit, Prompts
from orchestration.progress import duration, short
from orchestration.prompts import read_prompts
from orchestration.runs import Run
from orchestration.runs.intake import Source
from orchestration.runs.job import Deliberations
from orchestration.runs.plan import Estimate, Forecast, Pilot, forecast
from orchestration.runs.state import Summary
from orchestration.view import plain, table
from policies import AidsafeError, ExitCode


def plan(
    prompts: Prompts,
    folder: Folder,
    pilot: Annotated[
        int,
        typer.Option(min=2, metavar="N", help="Prompts to try, drawn at random from all."),
    ] = 20,
    column: Column = None,
    id_column: IdColumn = None,
    limit: Limit = None,
    concurrency: drive.Concurrency = None,
    max_cost: drive.MaxCost = None,
    max_tokens: drive.MaxTokens = None,
    max_time: drive.MaxTime = None,
    otel: drive.Otel = False,
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
    """Forecast calls, tokens, cost and time of a run from a pilot, which counts as work done.

    Example: aidsafe plan prompts.jsonl --out runs/first --model gpt-4.1 --price 2,8,0.5
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
    bounds = drive.limits(max_cost, max_tokens, max_time)
    at_once = concurrency or setup.default_concurrency
    prices = {each.name: each.config.price for each in setup.cast.models_in_use}
    found: list[Forecast | None] = []
    with (
        read_prompts(prompts, column=column, id_column=id_column) as reader,
        drive.telemetry(otel) as telemetry,
    ):
        the_run = Run(
            folder, Deliberations(setup.cast), Source(prompts, column, id_column, limit), telemetry
        )
        setup.announce()
        drive.announce_changes(the_run)
        chosen = Pilot(the_run.journal, pilot, seed or 0)

        async def work() -> None:
            summary = await the_run.execute(
                reader, min(at_once, pilot), limits=bounds, chosen=chosen.choose
            )
            found.append(forecast(the_run.journal, chosen, summary.waiting, at_once, prices.get))

        def report(_: Summary) -> None:
            if not found or found[0] is None:
                raise AidsafeError(
                    "The pilot gave nothing to forecast from.", "Look at its errors."
                )
            if json:
                write_json(found[0].model_dump(mode="json"))
            else:
                _print(found[0], shlex.quote(str(folder)))
            if not found[0].outcomes.get("completed"):
                raise typer.Exit(ExitCode.NOT_COMPLETED)

        drive.drive(the_run, setup, work, json, report=report)


def _print(found: Forecast, name: str) -> None:
    def row(what: str, estimate: Estimate, unit: str = "") -> tuple[str, str, str]:
        high = "any" if math.isinf(estimate.high) else f"{short(estimate.high)}{unit}"
        interval = f"{short(estimate.low)} to {high}"
        return what, f"{short(estimate.expected)}{unit}", interval

    rows = [
        row("calls", found.calls),
        row("prompt tokens", found.prompt_tokens),
        row("  of them cached", found.cached_tokens),
        row("completion tokens", found.completion_tokens),
        *(
            (
                f"cost, {currency}",
                f"{cost.expected:,.2f}",
                f"{cost.low:,.2f} to {cost.high:,.2f}",
            )
            for currency, cost in found.cost.items()
        ),
        (
            f"time, {found.concurrency} chats at once",
            duration(found.seconds.expected),
            f"{duration(found.seconds.low)} to "
            + ("any" if math.isinf(found.seconds.high) else duration(found.seconds.high)),
        ),
    ]
    console = out()
    console.print()
    console.print(
        plain(
            f"For the {found.waiting:,} of {found.prompts:,} prompts that have no outcome yet, "
            f"from a pilot of {found.pilot} (intervals hold nine times in ten):"
        )
    )
    console.print(table(("still to come", "expected", "interval"), rows))
    if not found.cost:
        console.print(plain("No price is configured, so there is no cost: --price IN,OUT[,CACHED]"))
    elif found.unpriced:
        console.print(plain(f"Without a price, and not in the cost: {', '.join(found.unpriced)}."))
    console.print(
        plain(
            "The time holds if the endpoint is as fast with so many chats at once as it was with "
            "the pilot's.",
            style="dim",
        )
    )
    console.print(plain(f"Go on:  the same options with: aidsafe run … --out {name}", style="dim"))
