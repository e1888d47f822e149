"""`aidsafe retry`: further attempts at prompts of a run that have no completed result."""

from __future__ import annotations

from pathlib import Path

from agents.models.config import load_models
from orchestration.api import open_run
from orchestration.chat.models import with_timeout
from orchestration.cli.console import err
from orchestration.cli.options import (
    REQUIRED,
    ModelOptions,
    ProviderOptions,
    SessionOptions,
    argument,
    command,
    option,
    parse_price,
    parse_time,
)
from orchestration.cli.session import Session
from orchestration.cli.trusting import confirm_models
from orchestration.kinds import load_run
from orchestration.runs.folder import models_of_run
from orchestration.runs.result import OUTCOMES
from orchestration.runs.trust import trust
from policies import InputError


@command
def retry(
    options: SessionOptions,
    providers: ProviderOptions,
    folder: Path = argument("A run folder.", "FOLDER"),
    outcome: list[str] = option(
        "Retry prompts of this outcome; may be repeated.", default=REQUIRED, choices=OUTCOMES
    ),
    models: Path | None = option(
        "Models file of the run, if it holds secrets. [default: the models of run.yaml]", "FILE"
    ),
    timeout: str | None = ModelOptions.timeout,
) -> None:
    """Retry prompts of a run that ended as failed, refused, malformed and so on.

    Example: aidsafe retry runs/first --outcome failed --outcome malformed
    """
    if "completed" in outcome:
        raise InputError(
            "A completed prompt is not retried.",
            "Name another outcome; to make its result again, change policies, personas or recipe.",
        )
    price, seconds = parse_price(options.price, models), parse_time("--timeout", timeout)
    if models is not None:
        configs = load_models(models)
        trust(configs.values())
    else:
        configs = models_of_run(folder)
        confirm_models(configs, "If that is right, name the models: --models FILE.")
    if price is not None:
        configs = {n: c.model_copy(update={"price": price}) for n, c in configs.items()}
    configs = {name: with_timeout(config, seconds) for name, config in configs.items()}
    job = load_run(folder, configs, providers.allowed)
    with open_run(folder) as run:
        found = any(run.journal.outcomes()[each] for each in outcome)
        if not found and not run.journal.pending(None, -1, 1) and not options.json:
            err().print(f"Nothing to retry: no prompt ended as {' or '.join(outcome)}.")
            return
    with Session(folder, job, None, options) as session:
        session.execute(
            lambda: session.run.retry(outcome, session.concurrency, limits=session.limits)
        )
