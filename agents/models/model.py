"""`Model`: a model as agents use it: a name, a client, and how to sample from it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from autogen_core import CancellationToken
from autogen_core import _component_config as autogen_components
from autogen_core.models import ChatCompletionClient, LLMMessage
from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.models.embedded import DEFAULT_NAME, EmbeddedConfig, serve
from agents.models.endpoint import EndpointClient, EndpointConfig, EndpointResult
from agents.models.errors import (
    CallNotBegun,
    ComponentFailed,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
)
from agents.models.wire import as_text
from agents.turns import Usage
from policies import AidsafeError, InputError, load_yaml

ALLOWED_PROVIDERS = ("autogen_ext.models",)
"""Where the class of an AutoGen component may come from: loading one can run any code."""


class Price(BaseModel):
    """What a model's tokens cost, per million."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: float = Field(ge=0)
    """A million tokens of the prompt."""
    completion: float = Field(ge=0)
    """A million tokens of the reply."""
    cached: float | None = Field(default=None, ge=0)
    """A million tokens of the prompt that the endpoint's cache served; as `prompt` if left out."""
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
    """Sampling temperature; null leaves it to the endpoint. A persona may have its own. Of no
    effect on components of other protocols than OpenAI's, which sample as their config says."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; left to the endpoint if left out."""
    max_tokens: int | None = Field(default=4096, ge=16)
    """Upper bound on the tokens of a reply. A persona may have its own."""
    seed: int | None = 0
    """Seed sent with every call; null sends none. `--seed` overrides it."""
    price: Price | None = None
    """What its tokens cost; for `--max-cost` and forecasts, and never guessed."""
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
        """Where it is, in a few words, without anything secret."""
        if self.endpoint:
            return f"{self.endpoint.model} at {self.endpoint.base_url}"
        if self.embedded:
            return f"{self.embedded.path or DEFAULT_NAME} (embedded)"
        config = (self.component or {}).get("config") or {}
        return f"{config.get('model', '?')} ({(self.component or {}).get('provider')})"

    @property
    def takes_sampling(self) -> bool:
        """Whether sampling and the reply's schema are sent with each call.

        AutoGen's clients of other protocols refuse those fields, or pass them on to an SDK that
        does: they sample as their own config says, and are held to the reply's form by parsing.
        """
        provider = str((self.component or {}).get("provider", ""))
        return self.component is None or "openai" in provider.lower()

    def public(self) -> dict[str, Any]:
        """The configuration as run files and records may hold it: without keys."""
        parts = ("endpoint", "embedded", "component", "price")
        absent = {part for part in parts if getattr(self, part) is None}
        if not self.takes_sampling:
            absent |= {"temperature", "top_p", "max_tokens", "seed"}
        dumped: dict[str, Any] = _without_secrets(self.model_dump(mode="json", exclude=absent))
        return dumped


EMBEDDED = ModelConfig(
    embedded=EmbeddedConfig(), temperature=0.4, max_tokens=1024, extra={"dry_multiplier": 0.8}
)
"""What runs when nothing is configured."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    """A model's reply, before anyone has read it."""

    text: str
    finish_reason: str
    usage: Usage
    latency: float
    """Seconds."""
    refusal: str | None = None
    served_model: str | None = None
    attempts: int = 1
    """Requests that it took."""
    json_as: str | None = None
    """The form in which JSON was asked for, where the client says."""
    first_token: dict[str, float] | None = None
    """Log probabilities of the likeliest first tokens, where they were asked for."""


class Model:
    """A model that can be asked.

    Args:
        name: What configuration and records call it.
        config: Where it is, and how to sample from it.
        client: The client to use; opened from the configuration at the first call if left out.
        allowed: Module prefixes that a component's classes may come from.
    """

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        client: ChatCompletionClient | None = None,
        allowed: Sequence[str] = ALLOWED_PROVIDERS,
    ) -> None:
        self.name = name
        self.config = config
        self._client = client
        if config.component is not None and client is None:
            # At once, not at the first call: what it names must not wait in a queue to be loaded.
            self._client = _open_component(config.component, allowed)

    async def ask(
        self,
        messages: Sequence[LLMMessage],
        *,
        response_format: Mapping[str, Any] | None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        cancellation_token: CancellationToken | None = None,
        reseed: int = 0,
        logprobs: int = 0,
    ) -> Answer:
        """Asks for one reply.

        Args:
            messages: The whole prompt.
            response_format: Form of the reply, as the OpenAI protocol has it; None for plain text.
            temperature: Overrides the model's own.
            max_tokens: Overrides the model's own.
            cancellation_token: Cancels the call.
            reseed: Added to the seed, for asking the same thing once more differently.
            logprobs: For how many of the likeliest first tokens the answer is to hold the log
                probability.

        Raises:
            InputError: Log probabilities are asked of a model that gives none here.
            EndpointError: There was no reply.
            CallNotBegun: The run is stopping.
        """
        client = await self.open()
        config = self.config
        request = {
            "temperature": config.temperature if temperature is None else temperature,
            "max_tokens": config.max_tokens if max_tokens is None else max_tokens,
            "top_p": config.top_p,
            "seed": None if config.seed is None else config.seed + reseed,
            **config.extra,
        }
        request = {key: value for key, value in request.items() if value is not None}
        json_output: bool | None = None
        if logprobs:
            if config.component is not None:
                raise InputError(
                    f"The model '{self.name}' is an AutoGen component, which gives no log "
                    "probabilities of its tokens.",
                    "Name an endpoint for it in the models file, or use a judge as the scorer.",
                )
            request |= {"logprobs": True, "top_logprobs": logprobs}
        if config.takes_sampling:
            if response_format is not None:
                request["response_format"] = response_format
        else:
            request = dict(config.extra)
            json_output = bool(client.model_info["json_output"]) or None
        started = time.perf_counter()
        failure: EndpointError | None = None
        try:
            result = await client.create(
                messages,
                json_output=json_output,
                extra_create_args=request,
                cancellation_token=cancellation_token,
            )
        except (AidsafeError, CallNotBegun):
            raise
        except Exception as error:
            if config.component is None:
                raise
            failure = self._explain(error)
        if failure is not None:
            raise failure  # without the component's error as its context: that may hold a key
        latency = time.perf_counter() - started
        more = result if isinstance(result, EndpointResult) else None
        return Answer(
            text=as_text(result.content) if isinstance(result.content, str) else "",
            finish_reason=result.finish_reason,
            usage=Usage(
                prompt_tokens=result.usage.prompt_tokens,
                completion_tokens=result.usage.completion_tokens,
                cached_tokens=more.cached_tokens if more else 0,
            ),
            latency=latency,
            refusal=more.refusal if more else None,
            served_model=more.served_model if more else None,
            attempts=more.attempts if more else 1,
            json_as=more.json_as if more else None,
            first_token=more.first_token if more else None,
        )

    def _explain(self, error: Exception) -> EndpointError:
        """The typed error for what a component raised: its own SDK's errors, or anything else."""
        component = self.config.component or {}
        what = f"The model component '{component.get('provider')}'"
        status = getattr(error, "status_code", None)
        if status in (401, 403, 404):
            refused = EndpointForbidden if status == 403 else EndpointMisconfigured
            return refused(
                f"{what} was refused by its endpoint ({status}).",
                "Check its key, its model and its address.",
            )
        text = " ".join(f"{type(error).__name__}: {error}".split())
        for secret in _secrets(component):
            text = text.replace(secret, "***")
        return ComponentFailed(
            f"{what} gave no reply ({text[:300].rstrip('.')}).",
            "Check its config and its endpoint.",
        )

    async def open(self) -> ChatCompletionClient:
        """The client; an embedded model is started if it is not running yet."""
        if self._client is None:
            endpoint = self.config.endpoint
            if self.config.embedded is not None:
                endpoint = await asyncio.to_thread(serve, self.config.embedded)
            assert endpoint is not None  # noqa: S101 - a component is opened in __init__
            self._client = EndpointClient(endpoint)
        return self._client

    async def close(self) -> None:
        """Closes the client's connections."""
        if self._client is not None:
            await self._client.close()
            if self.config.component is None:
                self._client = None

    def to_config(self) -> NamedModelConfig:
        """Declarative form, from which `from_config` makes the model again."""
        return NamedModelConfig(name=self.name, config=self.config)

    @classmethod
    def from_config(cls, named: NamedModelConfig) -> Self:
        """The model of a declarative form; its component, if it is one, must be AutoGen's own."""
        return cls(named.name, named.config)


class NamedModelConfig(BaseModel):
    """A model's name and configuration, inside an agent's component config."""

    name: str
    config: ModelConfig


def _open_component(component: Mapping[str, Any], allowed: Sequence[str]) -> ChatCompletionClient:
    if not isinstance(component.get("provider"), str):
        raise InputError(
            "A model component names no provider.",
            "Write it as the client's dump_component() gives it: provider and config.",
        )
    for provider in _providers(component):
        known = autogen_components.WELL_KNOWN_PROVIDERS.get(provider, provider)
        if not any(known == name or known.startswith(f"{name}.") for name in allowed):
            raise InputError(
                f"The model component '{provider}' is not one of AutoGen's model clients.",
                "Loading it would run its code; if you trust it, allow it with "
                f"--allow-provider {provider.rpartition('.')[0] or provider}.",
            )
    failure = ""
    try:
        client = ChatCompletionClient.load_component(dict(component))
    except Exception as error:  # noqa: BLE001 - whatever the component's own code raises
        failure = type(error).__name__
    else:
        if isinstance(client, ChatCompletionClient):
            return client
        failure = f"it is a {type(client).__name__}"
    # Out here: the error itself may hold the config, and so a key.
    raise InputError(
        f"The model component '{component['provider']}' cannot be loaded ({failure}).",
        "Check its provider and config, and that the package it needs is installed.",
    )


def _providers(node: Any) -> Iterator[str]:
    """Every class that a component config names, those of nested components included."""
    if isinstance(node, Mapping):
        if isinstance(node.get("provider"), str):
            yield node["provider"]
        for value in node.values():
            yield from _providers(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _providers(item)


_SECRET = re.compile(
    r"(key|secret|password|passwd|authorization|token|credential|cookie)s?$|headers$", re.IGNORECASE
)
_NAMED = "key secret password passwd authorization token credential sig signature"
_SECRET_IN_URL = re.compile(
    rf"(?<=//)[^/@\s]+(?=@)|(?:{'|'.join(f'(?<={name}=)' for name in _NAMED.split())})[^&#\s]+",
    re.IGNORECASE,
)
HIDDEN = "***"


def _without_secrets(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {
            key: _hidden(key, value) if _SECRET.search(str(key)) else _without_secrets(value)
            for key, value in node.items()
        }
    if isinstance(node, str):
        return _SECRET_IN_URL.sub(HIDDEN, node)
    return [_without_secrets(item) for item in node] if isinstance(node, list | tuple) else node


def _hidden(key: object, value: Any) -> Any:
    """A secret's place. The number of `max_tokens` is none; nor is a switch, or what is empty."""
    if isinstance(value, bool) or _is_count(key, value):
        return value
    return HIDDEN if value or isinstance(value, int | float) else value


def _is_count(key: object, value: Any) -> bool:
    return isinstance(value, int | float) and str(key).lower().endswith("tokens")


def _secrets(node: Any, hidden: bool = False) -> Iterator[str]:
    """The texts that `_without_secrets` hides; never the empty one."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not _is_count(key, value):
                yield from _secrets(value, hidden or bool(_SECRET.search(str(key))))
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _secrets(item, hidden)
    elif isinstance(node, str) and node:
        yield from [node] if hidden else _SECRET_IN_URL.findall(node)
    elif hidden and isinstance(node, int | float) and not isinstance(node, bool):
        yield str(node)
