"""The configuration of models: where each is, how to sample from it, what its tokens cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.models.embedded import DEFAULT_NAME, EmbeddedConfig
from agents.models.endpoint import EndpointConfig
from agents.models.redaction import redact
from agents.models.usage import Usage
from policies import InputError, load_yaml


class Price(BaseModel):
    """What a model's tokens cost, per million."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0)
    """Per million tokens of the prompt."""
    completion: float = Field(ge=0)
    """Per million tokens of the reply."""
    cached: float | None = Field(default=None, ge=0)
    """Per million prompt tokens that the endpoint's cache served; `prompt` if left out."""
    currency: str = Field(default="USD", min_length=1, max_length=12)

    def cost(self, usage: Usage) -> float:
        """What these tokens cost, in the price's currency."""
        cached = self.prompt if self.cached is None else self.cached
        return (
            (usage.prompt_tokens - usage.cached_tokens) * self.prompt
            + usage.cached_tokens * cached
            + usage.completion_tokens * self.completion
        ) / 1e6


class ModelConfig(BaseModel):
    """One entry of a `models:` block: where a model is, and how to sample from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: EndpointConfig | None = None
    """An endpoint that speaks the OpenAI protocol."""
    embedded: EmbeddedConfig | None = None
    """A GGUF file, run in this process."""
    component: dict[str, Any] | None = None
    """Config of any other AutoGen model client, as its `dump_component` gives it."""
    temperature: float | None = Field(default=0.7, ge=0, le=2)
    """Sampling temperature; null sends none. A persona may have its own. Components of protocols
    other than OpenAI's ignore it and sample as their config says."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; not sent if left out."""
    max_tokens: int | None = Field(default=4096, ge=16)
    """Upper bound on the tokens of a reply. A persona may have its own."""
    seed: int | None = 0
    """Seed sent with every call; null sends none. `--seed` overrides it."""
    price: Price | None = None
    """What its tokens cost, for `--max-cost` and forecasts. Never guessed."""
    extra: dict[str, Any] = {}
    """Further fields of the request body, such as `top_k`."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [k for k in ("endpoint", "embedded", "component") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(
                "needs exactly one of endpoint, embedded and component; "
                f"it has {', '.join(given) or 'none'}"
            )
        return self

    @property
    def label(self) -> str:
        """The model and its location in a few words, without secrets."""
        if self.endpoint:
            return f"{self.endpoint.model} at {self.endpoint.base_url}"
        if self.embedded:
            return f"{self.embedded.path or DEFAULT_NAME} (embedded)"
        config = (self.component or {}).get("config") or {}
        return f"{config.get('model', '?')} ({(self.component or {}).get('provider')})"

    @property
    def takes_sampling(self) -> bool:
        """Whether sampling and the reply's schema are sent with each call.

        AutoGen's clients of other protocols reject those fields, or pass them to an SDK that does.
        Those models sample as their own config says, and the form of a reply is checked by parsing.
        """
        provider = str((self.component or {}).get("provider", ""))
        return self.component is None or "openai" in provider.lower()

    def public(self) -> dict[str, Any]:
        """The configuration without secrets, for run files and records."""
        parts = ("endpoint", "embedded", "component", "price")
        absent = {part for part in parts if getattr(self, part) is None}
        if not self.takes_sampling:
            absent |= {"temperature", "top_p", "max_tokens", "seed"}
        dumped: dict[str, Any] = redact(self.model_dump(mode="json", exclude=absent))
        return dumped


EMBEDDED = ModelConfig(
    embedded=EmbeddedConfig(), temperature=0.4, max_tokens=1024, extra={"dry_multiplier": 0.8}
)
"""The model that is used when none is configured."""


class ModelsFile(BaseModel):
    """A YAML file with a `models:` block."""

    model_config = ConfigDict(extra="forbid")

    models: dict[str, ModelConfig] = Field(min_length=1)
    """Models by name. Personas that name none use `default`."""


def load_models(path: Path) -> dict[str, ModelConfig]:
    """Reads a `models:` block.

    Raises:
        YamlError: With every problem of the file.
        InputError: There is no model called `default`.
    """
    models = load_yaml(path, ModelsFile).models
    if "default" not in models:
        raise InputError(
            f"{path} has no model called 'default'.",
            "Give one of them that name: personas that name no model use it.",
        )
    return models


class NamedModelConfig(BaseModel):
    """A model's name and configuration, inside an agent's component config."""

    name: str
    config: ModelConfig
