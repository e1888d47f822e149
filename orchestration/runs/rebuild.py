"""What a run that is there already does, and who takes part: from its `run.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.models.model import HIDDEN, Model, ModelConfig
from agents.persona import Persona
from orchestration.journal import FILE_NAME
from orchestration.pairs.exemplars import Seeds
from orchestration.pairs.job import BASELINE, PAIRS, PairJob
from orchestration.pairs.recipe import PairCast, PairRecipe
from orchestration.recipe import Cast, Recipe
from orchestration.runs.folder import SETTINGS_NAME, load_settings
from orchestration.runs.job import Deliberations
from policies import InputError, PolicySet


def job_of_run(
    folder: Path, configs: dict[str, ModelConfig] | None, allowed: Sequence[str]
) -> Deliberations | PairJob:
    """What a run does, and who takes part.

    Args:
        folder: The run.
        configs: Models to use instead of those of `run.yaml`, which holds no secrets.
        allowed: Module prefixes that a component's classes may come from.

    Raises:
        InputError: `run.yaml` cannot be read, or a model needs a secret that it does not hold.
    """
    settings = load_settings(folder)
    if configs is None:
        configs = configs_of_run(folder)
    try:
        policy_set = PolicySet.model_validate(settings["policies"])
        personas = {n: Persona.model_validate(p) for n, p in settings["personas"].items()}
        models = {name: Model(name, config, allowed=allowed) for name, config in configs.items()}
        if settings.get("kind") != PAIRS:
            recipe = Recipe.model_validate(settings["recipe"])
            return Deliberations(Cast(recipe, policy_set, personas, models))
        cast = PairCast(
            PairRecipe.model_validate(settings["recipe"]),
            policy_set,
            personas,
            models,
            Seeds.model_validate(settings["seeds"]),
            bool(settings["baseline"]),
        )
        return PairJob(cast, records_of(folder, settings))
    except (ValidationError, KeyError, TypeError, AttributeError):
        raise _unreadable(folder) from None


def records_of(folder: Path, settings: dict[str, Any]) -> Path:
    """The run whose records a run's pairs are made of.

    Args:
        folder: The run that makes pairs.
        settings: Its settings.
    """
    place = folder.resolve()
    # Inside the run of its records, where it moved with that.
    inside = place.name in (PAIRS, BASELINE) and (place.parent / FILE_NAME).exists()
    return place.parent if inside else Path(settings["records"])


def policies_of_run(folder: Path) -> PolicySet:
    """The policies of a run.

    Raises:
        InputError: `run.yaml` cannot be read.
    """
    try:
        return PolicySet.model_validate(load_settings(folder)["policies"])
    except (ValidationError, KeyError, TypeError):
        raise _unreadable(folder) from None


def configs_of_run(folder: Path) -> dict[str, ModelConfig]:
    """The models of a run.

    Raises:
        InputError: `run.yaml` cannot be read, or a model needs a secret that it does not hold.
    """
    found = load_settings(folder).get("models")
    _check_secrets(found)
    try:
        return {name: ModelConfig.model_validate(config) for name, config in found.items()}  # type: ignore[union-attr]
    except (ValidationError, AttributeError):
        raise _unreadable(folder) from None


def _unreadable(folder: Path) -> InputError:
    return InputError(
        f"{folder / SETTINGS_NAME} is not as aidsafe wrote it.",
        "Restore it from a copy, or start the command that made it again.",
    )


def _check_secrets(node: Any) -> None:
    if isinstance(node, dict):
        for value in node.values():
            _check_secrets(value)
    elif isinstance(node, list):
        for value in node:
            _check_secrets(value)
    elif isinstance(node, str) and HIDDEN in node:
        raise InputError(
            "A model of the run needs a secret, which run.yaml does not hold.",
            "Name the models file that the run was started with: --models FILE.",
        )
