"""`aidsafe prefer`: a preference pair for every completed record of a run."""

from __future__ import annotations

from pathlib import Path

from orchestration.api import load_pair_cast
from orchestration.chat.view import plain
from orchestration.cli.console import err
from orchestration.cli.options import ModelOptions, SessionOptions, argument, command, option
from orchestration.cli.session import Session
from orchestration.cli.trusting import confirm_models
from orchestration.pairs.job import PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.places import check_records, is_pairs, pairs_folder
from orchestration.runs.folder import load_settings, models_of_run
from orchestration.runs.result import RunResult
from policies import InputError

NOTICE = (
    "This writes bad answers on purpose, as rejected sides for preference training: answers under "
    "false beliefs, which violate the policies or refuse what is harmless. "
)
SAMPLED = (
    "This samples answers again without a belief, as rejected sides to compare with; the worst of "
    "them may violate the policies. "
)
STORED = (
    "They are stored in {folder}, and labelled there. Do not train on them as targets, and do not "
    "pass them on without their labels."
)


@command
def prefer(
    options: SessionOptions,
    named: ModelOptions,
    folder: Path = argument("The run whose records get pairs.", "RUN_DIR"),
    config: str | None = option(
        "Pair recipe: a shipped name (default, small, shieldgemma) or a YAML file. [default: "
        "default; small on the embedded model]",
        "NAME|FILE",
    ),
    baseline: bool = option(
        "Make the rejected sides by sampling again, without a belief, into a separate folder: for "
        "comparison with `aidsafe pairs`.",
        default=False,
    ),
    out: Path | None = option(
        "Folder of the pairs. [default: pairs in RUN_DIR; baseline with --baseline]", "FOLDER"
    ),
    limit: int | None = option("Maximum number of records.", "N", min=1),
    show_unsafe: bool = option(
        "Show each belief and rejected response as it is made.", default=False
    ),
    personas: Path | None = option("Folder with your own persona YAMLs.", "FOLDER"),
    models: Path | None = option(
        "YAML file with a models: block. [default: the models of the run]", "FILE"
    ),
) -> None:
    """Make preference pairs for DPO: a policy-violating answer beside each completed record's own.

    The same command again resumes.

    Example: aidsafe prefer runs/first
    """
    check_records(folder)
    if named.models is None and named.model is None:
        confirm_models(
            models_of_run(folder),
            "If that is right, name the models: --models FILE, or --base-url URL --model NAME.",
        )
    cast = load_pair_cast(
        folder,
        config,
        personas,
        baseline=baseline,
        **named.model_arguments(options.price),
    )
    target = out or pairs_folder(folder, baseline)
    if is_pairs(target) and bool(load_settings(target).get("baseline")) != baseline:
        raise InputError(
            f"{target} holds pairs that were made {'with' if baseline else 'without'} beliefs.",
            "Name another folder with --out.",
        )
    job = PairJob(cast, folder)
    if not job.records.outcomes()["completed"]:
        job.close()
        raise InputError(
            f"The run in {folder} has no completed record.",
            "First complete some, with the `aidsafe run` command that it was made with.",
        )

    def show(pair: RunResult) -> None:
        if show_unsafe and isinstance(pair, PreferencePair):
            err().print(plain(_unsafe_lines(pair)))

    warning = (SAMPLED if baseline else NOTICE) + STORED.format(folder=target)
    source = job.source(limit)
    with Session(target, job, source, options, personas=personas, warning=warning) as session:
        at_once, limits = session.concurrency, session.limits
        session.execute(
            lambda: session.run.execute(job.prompts(), at_once, limits=limits, on_result=show)
        )


def _unsafe_lines(pair: PreferencePair) -> str:
    """A pair in a few lines, unsafe text included."""
    head = f"{pair.id}  {pair.outcome}, {pair.reason}, {pair.attempts} attempts"
    rejected = pair.rejected
    if rejected is None:
        return head
    score = "" if rejected.score is None else f", score {rejected.score:.2f}"
    belief = f"\n  belief (false): {pair.belief}" if pair.belief else ""
    response = " ".join(rejected.response.split())[:300]
    return f"{head}{score}{belief}\n  rejected ({rejected.label}): {response}"
