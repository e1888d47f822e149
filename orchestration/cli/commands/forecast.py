"""`aidsafe plan`: the forecast of a run, before it is paid for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable

import typer

from orchestration.chat.view import plain, table
from orchestration.cli.console import out, write_json
from orchestration.cli.exit_codes import ExitCode
from orchestration.cli.options import PromptsOptions, command, option
from orchestration.cli.progress import duration, short
from orchestration.cli.session import Session
from orchestration.deliberation.job import DeliberationJob
from orchestration.runs.forecast import Estimate, Forecast, Pilot, forecast
from orchestration.runs.reader import RunReader
from policies import AidsafeError


@command
def plan(
    options: PromptsOptions,
    pilot: int = option("Prompts to try, drawn at random from all.", "N", default=20, min=2),
) -> None:
    """Forecast calls, tokens, cost and time of a run from a pilot, which counts as work done.

    Example: aidsafe plan prompts.jsonl --out runs/first --model gpt-4.1 --price 2,8,0.5
    """
    job = DeliberationJob(options.cast(options.price))
    prices = {model.name: model.config.price for model in job.cast.models_in_use}
    with (
        options.read() as reader,
        Session(options.out, job, options.source, options, personas=options.personas) as session,
    ):
        run, at_once = session.run, session.concurrency
        sample = Pilot(run.journal, pilot, options.seed or 0)

        async def work() -> Forecast | None:
            summary = await run.execute(
                reader, min(at_once, pilot), limits=session.limits, choose=sample.choose
            )
            results = RunReader(run.journal, job.kind)
            return forecast(results, sample, summary.pending, at_once, prices.get)

        def report(found: Forecast | None) -> None:
            if found is None:
                raise AidsafeError(
                    "The pilot has no outcome to forecast from.", "Read its errors above."
                )
            if options.json:
                write_json(found.model_dump(mode="json"))
            else:
                _print(found, shlex.quote(str(options.out)))
            if not found.outcomes.get("completed"):
                raise typer.Exit(ExitCode.NOT_COMPLETED)

        session.execute(work, report)


def _print(found: Forecast, folder: str) -> None:
    def row(what: str, estimate: Estimate, show: Callable[[float], str] = short) -> list[str]:
        high = "any" if math.isinf(estimate.high) else show(estimate.high)
        return [what, show(estimate.expected), f"{show(estimate.low)} to {high}"]

    rows = [
        row("calls", found.calls),
        row("prompt tokens", found.prompt_tokens),
        row("  of them cached", found.cached_tokens),
        row("completion tokens", found.completion_tokens),
        *([row("  estimated", found.estimated_tokens)] if found.estimated_tokens.expected else []),
        *(row(f"cost, {name}", cost, lambda c: f"{c:,.2f}") for name, cost in found.cost.items()),
        row(f"time, {found.concurrency} chats at once", found.seconds, duration),
    ]
    console = out()
    head = (
        f"\nFor the {found.pending:,} of {found.prompts:,} prompts that have no outcome yet, "
        f"from a pilot of {found.pilot} (intervals of 90%):"
    )
    console.print(plain(head))
    console.print(table(("pending", "expected", "interval"), rows))
    if not found.cost:
        console.print(plain("No price is configured, so there is no cost: --price IN,OUT[,CACHED]"))
    elif found.unpriced:
        console.print(plain(f"Without a price, and not in the cost: {', '.join(found.unpriced)}."))
    remark = (
        "The time assumes that the endpoint is as fast with that many chats at once as it was with "
        f"the pilot's.\nRun it:  aidsafe run … --out {folder}, with the same options"
    )
    console.print(plain(remark, "dim"))
