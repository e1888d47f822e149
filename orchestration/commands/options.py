"""The options that say who deliberates over what, on which model; the same for every command."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer
from pydantic import ValidationError
from rich.text import Text

from agents.models.endpoint import EndpointConfig
from agents.models.model import (
    ALLOWED_PROVIDERS,
    EMBEDDED,
    Model,
    ModelConfig,
    Price,
    load_models,
)
from agents.persona import persona_files
from orchestration.casting import Casting
from orchestration.commands.output import err
from orchestration.recipe import Cast, load_recipe
from orchestration.view import clean
from policies import InputError, load_policy_set

OPENAI = "https://api.openai.com/v1"

EMBEDDED_NOTICE = (
    "This is the embedded model: real, but very small. It shows how everything works; "
    "its reasoning is not worth training on."
)


class OutcomeName(StrEnum):
    """The outcomes of prompts, as options take them."""

    completed = "completed"
    refused = "refused"
    malformed = "malformed"
    truncated = "truncated"
    failed = "failed"
    over_budget = "over_budget"


Policies = Annotated[
    str,
    typer.Option(
        "--policies", metavar="NAME|FILE", help="Policy set: a shipped name or a YAML file."
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="Who takes part and for how long: a shipped name or a YAML file. "
        "[default: default; small on the embedded model]",
        show_default=False,
    ),
]
Personas = Annotated[
    Path | None,
    typer.Option(
        "--personas",
        metavar="FOLDER",
        help="Folder with persona YAMLs of yours.",
        show_default=False,
    ),
]
Models = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="FILE",
        help="YAML file with a models: block, for several models or settings of your own. "
        "[default: the embedded model]",
        show_default=False,
    ),
]
BaseUrl = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        metavar="URL",
        help="Endpoint that speaks the OpenAI protocol; the key is read from OPENAI_API_KEY. "
        "[default: OPENAI_BASE_URL, or OpenAI itself, once --model is given]",
        show_default=False,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Model at that endpoint.", show_default=False),
]
PriceText = Annotated[
    str | None,
    typer.Option(
        "--price",
        metavar="IN,OUT[,CACHED]",
        help="What a million tokens of the prompt, of the reply and of the cached prompt cost; "
        "for --max-cost and the forecast. Prices are never guessed.",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Seed for every model. [default: 0, or that of --models]",
        show_default=False,
    ),
]
AllowProvider = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-provider",
        metavar="MODULE",
        help="Python module that a model component may be loaded from (runs its code).",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program.")]


CastT = TypeVar("CastT", bound=Casting, covariant=True)


@dataclass(frozen=True)
class Setup(Generic[CastT]):
    """What the options say, read and checked."""

    cast: CastT
    embedded: bool
    """Whether nothing but the shipped embedded model is used."""
    personas: Path | None = None
    """The user's folder of personas."""

    @property
    def default_concurrency(self) -> int:
        """Chats at the same time: what a server takes, or as many as embedded models have slots."""
        slots = [m.config.embedded.slots for m in self.cast.models_in_use if m.config.embedded]
        return min(slots, default=16)

    async def close(self) -> None:
        """Closes the models' connections; belongs at the end of the event loop that used them."""
        await asyncio.gather(*(model.close() for model in self.cast.models_in_use))

    @property
    def left_out(self) -> str:
        """One line on personas of the user's that nobody will hear; empty if there are none."""
        names = (
            persona_files(self.personas).keys() - persona_files().keys() - self.cast.personas.keys()
        )
        is_, it = ("is", "it") if len(names) == 1 else ("are", "them")
        if not names:
            return ""
        return (
            f"{', '.join(sorted(names))} {is_} in {self.personas}/, but recipe "
            f"{self.cast.recipe_name} does not name {it}; put {it} into a recipe."
        )

    def announce(self) -> None:
        """Says on standard error what is about to be used, and what of the user's is not."""
        err().print(Text(clean(self.cast.notice), style="dim"))
        if self.left_out:
            err().print(Text(clean(self.left_out), style="yellow"))
        if self.embedded:
            err().print(Text(EMBEDDED_NOTICE, style="yellow"))


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
    price: str | None = None,
) -> Setup[Cast]:
    """Reads everything that the options name.

    Raises:
        InputError: Something is not there, or options contradict each other.
        YamlError: A YAML file has problems.
    """
    configs = model_configs(models, base_url, model, price, seed) or with_overrides(
        {"default": EMBEDDED}, price, seed
    )
    allowed = [*ALLOWED_PROVIDERS, *(allow_provider or [])]
    embedded = list(configs) == ["default"] and configs["default"].embedded == EMBEDDED.embedded
    cast = Cast.load(
        load_recipe(recipe or ("small" if embedded else "default")),
        load_policy_set(policies),
        {name: Model(name, config, allowed=allowed) for name, config in configs.items()},
        personas,
    )
    return Setup(cast, embedded, personas)


def is_embedded(cast: Casting) -> bool:
    """Whether a cast uses nothing but the shipped embedded model."""
    return all(model.config.embedded == EMBEDDED.embedded for model in cast.models_in_use)


def _price(text: str) -> Price:
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
        if not 2 <= len(numbers) <= 3:
            raise ValueError
        return Price(
            prompt=numbers[0],
            completion=numbers[1],
            cached=numbers[2] if len(numbers) == 3 else None,
        )
    except ValueError:
        raise InputError(
            f"--price {text} is no price.",
            "Write what a million tokens cost: of the prompt, of the reply and, if you like, of "
            "the cached prompt, such as 2.5,10,1.25.",
        ) from None


def model_configs(
    models: Path | None,
    base_url: str | None,
    model: str | None,
    price: str | None,
    seed: int | None,
) -> dict[str, ModelConfig]:
    """The models that the options name; none if they name none.

    Raises:
        InputError: They contradict each other, or one cannot be read.
        YamlError: The models file has problems.
    """
    configs = _named_models(models, base_url, model)
    if price is not None and models is not None:
        raise InputError(
            "--price and --models contradict each other.",
            "Put a price: block into the models file.",
        )
    return with_overrides(configs, price, seed)


def with_overrides(
    configs: dict[str, ModelConfig], price: str | None, seed: int | None
) -> dict[str, ModelConfig]:
    """Models with the price and the seed that the options say, if they say one."""
    update: dict[str, Any] = {} if seed is None else {"seed": seed}
    if price is not None:
        update["price"] = _price(price)
    return {name: config.model_copy(update=update) for name, config in configs.items()}


def _named_models(
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
        return {}
    if model is None:
        raise InputError(
            "--base-url needs the name of a model.", "Add --model NAME, as the endpoint knows it."
        )
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI
    try:
        return {"default": ModelConfig(endpoint=EndpointConfig(base_url=url, model=model))}
    except ValidationError as error:
        if any(problem["loc"] == ("model",) for problem in error.errors()):
            raise InputError("The name of the model is empty.", "Give it with --model.") from None
        raise InputError(
            "The address of the endpoint is not one that can be used.",
            "Write it whole and without a key in it, such as http://localhost:8000/v1.",
        ) from None
