"""The cast of a run that is there already, from its `run.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.models.model import HIDDEN, Model, ModelConfig
from agents.persona import Persona
from orchestration.recipe import Cast, Recipe
from orchestration.runs.folder import SETTINGS_NAME, load_settings
from policies import InputError, PolicySet


def cast_of_run(
    folder: Path, configs: dict[str, ModelConfig] | None, allowed: Sequence[str]
) -> Cast:
    """Who takes part in a run.

    Args:
        folder: The run.
        configs: Models to use instead of those of `run.yaml`, which holds no secrets.
        allowed: Module prefixes that a component's classes may come from.

    Raises:
        InputError: `run.yaml` cannot be read, or a model needs a secret that it does not hold.
    """
    settings = load_settings(folder)
    try:
        if configs is None:
            _check_secrets(settings.get("models"))
            configs = {
                name: ModelConfig.model_validate(config)
                for name, config in settings["models"].items()
            }
        return Cast(
            Recipe.model_validate(settings["recipe"]),
            PolicySet.model_validate(settings["policies"]),
            {n: Persona.model_validate(p) for n, p in settings["personas"].items()},
            {name: Model(name, config, allowed=allowed) for name, config in configs.items()},
        )
    except (ValidationError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{folder / SETTINGS_NAME} is not as `aidsafe run` wrote it.",
            "Restore it from a copy, or start the run's `aidsafe run` command again.",
        ) from None


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
