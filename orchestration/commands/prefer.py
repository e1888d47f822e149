"""`aidsafe prefer`: a preference pair for every completed record of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agents.models.model import ALLOWED_PROVIDERS, EMBEDDED, Model, ModelConfig
from orchestration.commands import drive, options
from orchestration.commands.output import err
from orchestration.journal import FILE_NAME
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.job import PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.places import is_pairs, pairs_folder
from orchestration.pairs.recipe import PairCast, load_pair_recipe
from orchestration.record import Kept
from orchestration.runs import Run
from orchestration.runs.folder import load_settings
from orchestration.runs.rebuild import configs_of_run, policies_of_run
from orchestration.view import plain
from policies import InputError

NOTICE = (
    "This writes bad answers on purpose, as rejected sides for preference training: answers under "
    "false beliefs, which violate the policies or refuse what is harmless. "
)
SAMPLED = (
    "This samples answers again without a belief, as rejected sides to compare with; the worst of "
    "them may violate the policies. "
)
KEPT = (
    "They are kept in {folder}, and labelled there. Do not train on them as targets, and do not "
    "pass them on to anyone who does not know what they are."
)


def prefer(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="The run whose records get a worse twin.")
    ],
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="NAME|FILE",
            help="Pair recipe: a shipped name (default, small, shieldgemma) or a YAML file. "
            "[default: default; small on the embedded model]",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline",
            help="Make the rejected sides by sampling again, without a belief, into a folder of "
            "their own: for comparison with `aidsafe pairs`.",
        ),
    ] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Folder of the pairs. [default: pairs in RUN_DIR; baseline with --baseline]",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, metavar="N", help="Take so many records only.", show_default=False
        ),
    ] = None,
    show_unsafe: Annotated[
        bool,
        typer.Option("--show-unsafe", help="Show each belief and rejected response as it is made."),
    ] = False,
    concurrency: drive.Concurrency = None,
    max_cost: drive.MaxCost = None,
    max_tokens: drive.MaxTokens = None,
    max_time: drive.MaxTime = None,
    otel: drive.Otel = False,
    personas: options.Personas = None,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models",
            metavar="FILE",
            help="YAML file with a models: block. [default: the models of the run]",
            show_default=False,
        ),
    ] = None,
    base_url: options.BaseUrl = None,
    model: options.ModelName = None,
    price: options.PriceText = None,
    seed: options.Seed = None,
    allow_provider: options.AllowProvider = None,
    json: options.Json = False,
) -> None:
    """Make preference pairs for DPO: a policy-violating twin for every completed record of a run.

    The same command again goes on with them.

    Example: aidsafe prefer runs/first
    """
    if is_pairs(folder):
        raise InputError(
            f"{folder} holds pairs, and pairs are made of records.",
            "Name the run that its records are in.",
        )
    if not (folder / FILE_NAME).is_file():
        raise InputError(f"There is no run in {folder}.", "Name the folder that `run` made.")
    setup = _set_up(
        folder,
        config,
        baseline,
        personas,
        options.model_configs(models, base_url, model, price, seed),
        price,
        seed,
        allow_provider,
    )
    bounds = drive.limits(max_cost, max_tokens, max_time)
    place = to or pairs_folder(folder, baseline)
    if is_pairs(place) and bool(load_settings(place).get("baseline")) != baseline:
        raise InputError(
            f"{place} holds pairs that were made {'by' if baseline else 'without'} a belief.",
            "Name another folder with --out.",
        )
    job = PairJob(setup.cast, folder)
    try:
        if not job.records.outcomes()["completed"]:
            raise InputError(
                f"The run in {folder} has no completed record.",
                "Let it come to some first, with the `aidsafe run` command that it was made with.",
            )
        with drive.telemetry(otel) as telemetry:
            run = Run(place, job, job.source(limit), telemetry)
            setup.announce()
            err().print(
                plain((SAMPLED if baseline else NOTICE) + KEPT.format(folder=place), "yellow")
            )
            drive.announce_changes(run)
            at_once = concurrency or setup.default_concurrency

            def on_record(pair: Kept) -> None:
                if show_unsafe and isinstance(pair, PreferencePair):
                    err().print(plain(_told(pair)))

            async def work() -> None:
                await run.execute(
                    job.records.finished(), at_once, limits=bounds, on_record=on_record
                )

            drive.drive(run, setup, work, json)
    finally:
        job.close()


def _set_up(
    folder: Path,
    config: str | None,
    baseline: bool,
    personas: Path | None,
    configs: dict[str, ModelConfig],
    price: str | None,
    seed: int | None,
    allow_provider: list[str] | None,
) -> options.Setup[PairCast]:
    """Reads the run's settings and what the options say.

    Raises:
        InputError: Something is not there, or options contradict each other.
        YamlError: A YAML file has problems.
    """
    configs = configs or options.with_overrides(configs_of_run(folder), price, seed)
    embedded = list(configs) == ["default"] and configs["default"].embedded == EMBEDDED.embedded
    recipe = load_pair_recipe(config or ("small" if embedded else "default"))
    allowed = [*ALLOWED_PROVIDERS, *(allow_provider or [])]
    cast = PairCast.load(
        recipe,
        policies_of_run(folder),
        {name: Model(name, each, allowed=allowed) for name, each in configs.items()},
        load_seeds(recipe.seeds),
        personas,
        baseline,
    )
    return options.Setup(cast, embedded, personas)


def _told(pair: PreferencePair) -> str:
    """A pair in a few lines, unsafe text included."""
    head = f"{pair.id}  {pair.outcome}, {pair.reason}, {pair.attempts} attempts"
    if pair.rejected is None:
        return head
    head += f", score {pair.rejected.score:.2f}" if pair.rejected.score is not None else ""
    belief = f"\n  belief (false): {pair.belief}" if pair.belief else ""
    response = " ".join(pair.rejected.response.split())[:300]
    return f"{head}{belief}\n  rejected ({pair.rejected.label}): {response}"
