"""The options that say who deliberates over what, on which model; the same for every command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agents.models.endpoint import EndpointConfig
from agents.models.model import ALLOWED_PROVIDERS, EMBEDDED, Model, ModelConfig, load_models
from orchestration.recipe import Cast, load_recipe
from policies import InputError, load_policy_set

OPENAI = "https://api.openai.com/v1"

EMBEDDED_NOTICE = (
    "This is the embedded model: real, but very small. It shows how everything works; "
    "its reasoning is not worth training on."
)

Policies = Annotated[
    str, typer.Option("--policies", help="Policy set: a shipped name or a YAML file.")
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Who takes part and for how long: a shipped name or a YAML file. "
        "[default: default; small on the embedded model]",
        show_default=False,
    ),
]
Personas = Annotated[
    Path | None,
    typer.Option("--personas", help="Folder with persona YAMLs of yours.", show_default=False),
]
Models = Annotated[
    Path | None,
    typer.Option("--models", help="YAML file with a models: block.", show_default=False),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        help="Endpoint that speaks the OpenAI protocol; the key is read from OPENAI_API_KEY.",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", help="Model at that endpoint.", show_default=False),
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Seed for every model.", show_default=False)
]
AllowProvider = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-provider",
        help="Python module that a model component may be loaded from (runs its code).",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


@dataclass(frozen=True)
class Setup:
    """What the options say, read and checked."""

    cast: Cast
    embedded: bool
    """Whether nothing but the shipped embedded model is used."""

    @property
    def default_concurrency(self) -> int:
        """Chats at the same time: what a server takes, or as many as embedded models have slots."""
        slots = [m.config.embedded.slots for m in self.cast.models_in_use if m.config.embedded]
        return min(slots, default=16)

    @property
    def notice(self) -> str:
        """One line on what is about to be used."""
        cast = self.cast
        models = "; ".join(model.config.label for model in cast.models_in_use)
        policy_set = cast.policy_set
        return (
            f"{models} | policies {policy_set.id} ({len(policy_set.policies)}) | recipe "
            f"{cast.recipe.name}: {', '.join(cast.recipe.circle)}, "
            f"up to {cast.recipe.rounds} rounds"
        )


def set_up(
    *,
    policies: str,
    recipe: str | None,
    personas: Path | None,
    models: Path | None,
    base_url: str | None,
    model: str | None,
    seed: int | None,
    allow_provider: list[str] | None,
) -> Setup:
    """Reads everything that the options name.

    Raises:
        InputError: Something is not there, or options contradict each other.
        YamlError: A YAML file has problems.
    """
    configs = _model_configs(models, base_url, model)
    if seed is not None:
        configs = {n: c.model_copy(update={"seed": seed}) for n, c in configs.items()}
    allowed = [*ALLOWED_PROVIDERS, *(allow_provider or [])]
    embedded = configs["default"].embedded == EMBEDDED.embedded and len(configs) == 1
    cast = Cast.load(
        load_recipe(recipe or ("small" if embedded else "default")),
        load_policy_set(policies),
        {name: Model(name, config, allowed=allowed) for name, config in configs.items()},
        personas,
    )
    return Setup(cast, embedded)


def _model_configs(
    models: Path | None, base_url: str | None, model: str | None
) -> dict[str, ModelConfig]:
    if models is not None:
        if base_url or model:
            raise InputError(
                "--models and --base-url or --model contradict each other.",
                "Give one or the other.",
            )
        return load_models(models)
    if base_url is None and model is None:
        return {"default": EMBEDDED}
    if model is None:
        raise InputError(
            "--base-url needs the name of a model.", "Add --model NAME, as the endpoint knows it."
        )
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    if not url.startswith(("http://", "https://")):
        raise InputError(
            f"'{url}' is not the address of an endpoint.",
            "Write it whole, such as http://localhost:8000/v1.",
        )
    return {"default": ModelConfig(endpoint=EndpointConfig(base_url=url.rstrip("/"), model=model))}
