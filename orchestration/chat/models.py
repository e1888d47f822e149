"""The models of a chat, from what a script or the command line names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from autogen_core.models import ChatCompletionClient
from pydantic import ValidationError

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import EMBEDDED, EndpointConfig, ModelConfig, Price, load_models
from agents.models.model import Model
from agents.models.redaction import holds_key
from policies import FieldError, InputError

OPENAI = "https://api.openai.com/v1"

ModelSpec: TypeAlias = str | ModelConfig | Model | ChatCompletionClient
"""A model: `URL#NAME`, or `NAME` at OPENAI_BASE_URL or else OpenAI; or an object."""
Models: TypeAlias = str | Path | Mapping[str, ModelSpec]
"""Models by name: a YAML file with a `models:` block, or a mapping."""


def make_models(
    model: ModelSpec | None = None,
    models: Models | None = None,
    *,
    seed: int | None = None,
    price: Price | None = None,
    timeout: float | None = None,
    allowed: Sequence[str] = ALLOWED_PROVIDERS,
) -> dict[str, Model]:
    """The models by name; the embedded model if none is named.

    Args:
        model: The only model, `default`.
        models: Several models, one of them `default`.
        seed: Seed of all of them; `Model` objects keep their own.
        price: Price of all of them; `Model` objects keep their own.
        timeout: Seconds after which an attempt at an endpoint is abandoned; same.
        allowed: Module prefixes that a component's classes may come from.

    Raises:
        InputError: Both are given, one cannot be used, or none is called `default`.
        YamlError: The file has problems.
    """
    specs: Mapping[str, ModelSpec] = {"default": EMBEDDED if model is None else model}
    if models is not None:
        if model is not None:
            raise InputError("Both model and models are given.", "Give one of them.")
        specs = models if isinstance(models, Mapping) else load_models(Path(models))
    if "default" not in specs:
        raise InputError(
            "No model is called 'default'.",
            "Give one of them that name: personas that name no model use it.",
        )
    update = {key: v for key, v in (("seed", seed), ("price", price)) if v is not None}
    return {name: _make(name, spec, update, timeout, allowed) for name, spec in specs.items()}


def _make(
    name: str,
    spec: ModelSpec,
    update: dict[str, Any],
    timeout: float | None,
    allowed: Sequence[str],
) -> Model:
    if isinstance(spec, Model):
        if spec.name != name:
            raise InputError(
                f"The model '{name}' has the name '{spec.name}'.", "Give both the same name."
            )
        return spec
    client: ChatCompletionClient | None = None
    if isinstance(spec, ChatCompletionClient):
        client = spec
        spec = ModelConfig(component=client.dump_component().model_dump(mode="json"))
    elif isinstance(spec, str):
        url, _, model = spec.partition("#") if "://" in spec else ("", "", spec)
        spec = endpoint_model(model, url)
    spec = with_timeout(spec.model_copy(update=update), timeout)
    return Model(name, spec, client, allowed)


def with_timeout(config: ModelConfig, timeout: float | None) -> ModelConfig:
    """A model whose attempts are abandoned after so many seconds; as it is for None."""
    if timeout is None or config.endpoint is None:
        return config
    endpoint = config.endpoint.model_copy(update={"timeout": timeout})
    return config.model_copy(update={"endpoint": endpoint})


def endpoint_model(name: str, url: str | None = None) -> ModelConfig:
    """A model at an endpoint that speaks the OpenAI protocol.

    Args:
        name: As the endpoint knows it.
        url: Address of the endpoint; OPENAI_BASE_URL, or else OpenAI, if left out.

    Raises:
        InputError: One of them cannot be used.
    """
    variable = os.environ.get("OPENAI_BASE_URL", "").strip()
    try:
        return ModelConfig(endpoint=EndpointConfig(base_url=url or variable or OPENAI, model=name))
    except ValidationError as error:
        problems = error.errors(include_input=False)
    refused = [problem for problem in problems if problem["loc"][-1:] == ("model",)]
    if not refused:
        of_variable = " in OPENAI_BASE_URL" if variable and not url else ""
        raise InputError(
            f"The address of the endpoint{of_variable} is not one that can be used.",
            "Write it whole, without quotes and without a key in it, such as "
            "http://localhost:8000/v1.",
        )
    if refused[0]["type"] == "string_too_short":
        raise InputError(
            "The name of the model is empty.",
            "Write NAME as the endpoint knows it, or with its address: URL#NAME.",
        )
    reason = refused[0].get("ctx", {}).get("error")
    if isinstance(reason, FieldError) and holds_key(name):
        raise InputError(reason.cause, reason.remedy)
    raise InputError(
        "The name of the model has a character that cannot be sent (of control, or not UTF-8).",
        "Type it again, as the endpoint knows it.",
    )


def is_embedded(models: Mapping[str, Model]) -> bool:
    """Whether they are nothing but the shipped embedded model."""
    return all(model.config.embedded == EMBEDDED.embedded for model in models.values())
