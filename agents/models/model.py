"""`ChatModel`: a model as agents use it. `Model` is the one that calls a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from autogen_core import CancellationToken
from autogen_core.models import ChatCompletionClient, CreateResult, LLMMessage

from agents.models.components import ALLOWED_PROVIDERS, load_component
from agents.models.config import ModelConfig
from agents.models.embedded import serve
from agents.models.endpoint import EndpointClient
from agents.models.errors import (
    CallNotStarted,
    ComponentFailed,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
)
from agents.models.redaction import REDACTED, secrets_in
from agents.models.response import EndpointResult, valid_text
from agents.models.usage import Usage
from policies import AidsafeError, InputError


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A model's reply, not yet parsed."""

    text: str
    finish_reason: str
    usage: Usage
    latency: float
    """Seconds."""
    refusal: str | None = None
    """The message's `refusal` field, where the endpoint has one."""
    served_model: str | None = None
    """The model that the endpoint says it used."""
    attempts: int = 1
    """Requests that it took."""
    json_as: str | None = None
    """The mode in which JSON was requested, where the client reports it."""
    first_token: dict[str, float] | None = None
    """Log probabilities of the most likely first tokens, where they were requested."""


class ChatModel(Protocol):
    """What agents need of a model. Wrappers of a `Model` implement it too."""

    @property
    def name(self) -> str:
        """Its name in configuration and records."""

    @property
    def config(self) -> ModelConfig:
        """Where it is, and how to sample from it."""

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
    ) -> ModelReply:
        """Requests one reply.

        Args:
            messages: The whole prompt.
            response_format: Form of the reply, as in the OpenAI protocol; None for plain text.
            temperature: Overrides the model's own.
            max_tokens: Overrides the model's own.
            cancellation_token: Cancels the call.
            reseed: Added to the seed, to sample another reply to the same messages.
            logprobs: Number of most likely first tokens whose log probabilities to return.

        Raises:
            InputError: Log probabilities are requested of a model that cannot give them.
            EndpointError: There was no reply.
            CallNotStarted: The run is stopping.
        """


class Model:
    """A `ChatModel` that calls a client: of an endpoint, of the embedded model, or a component.

    Args:
        name: Its name in configuration and records.
        config: Where it is, and how to sample from it.
        client: The client to use; opened from the configuration at the first call if left out.
        allowed: Module prefixes that a component's classes may come from.

    Raises:
        InputError: The component cannot be loaded.
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
            # At once, not at the first call: an error in it should end the program early.
            self._client = load_component(config.component, allowed)

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
    ) -> ModelReply:
        """Requests one reply. See `ChatModel.ask`."""
        client = await self.open()
        json_output: bool | None = None
        if self.config.takes_sampling:
            request = self._sampling(temperature, max_tokens, reseed)
            if response_format is not None:
                request["response_format"] = response_format
        else:
            request = dict(self.config.extra)
            json_output = bool(client.model_info["json_output"]) or None
        if logprobs:
            if self.config.component is not None:
                raise InputError(
                    f"The model '{self.name}' is an AutoGen component, which gives no log "
                    "probabilities of its tokens.",
                    "Name an endpoint for it in the models file, or use a judge as the scorer.",
                )
            request |= {"logprobs": True, "top_logprobs": logprobs}
        started = time.perf_counter()
        failure: EndpointError | None = None
        try:
            result = await client.create(
                messages,
                json_output=json_output,
                extra_create_args=request,
                cancellation_token=cancellation_token,
            )
        except (AidsafeError, CallNotStarted):
            raise
        except Exception as error:
            if self.config.component is None:
                raise
            failure = self._explain(error)
        if failure is not None:
            raise failure  # outside the except block: the component's error may hold a key
        return _to_reply(result, time.perf_counter() - started)

    def _sampling(
        self, temperature: float | None, max_tokens: int | None, reseed: int
    ) -> dict[str, Any]:
        config = self.config
        fields = {
            "temperature": config.temperature if temperature is None else temperature,
            "max_tokens": config.max_tokens if max_tokens is None else max_tokens,
            "top_p": config.top_p,
            "seed": None if config.seed is None else config.seed + reseed,
            **config.extra,
        }
        return {key: value for key, value in fields.items() if value is not None}

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
        for secret in secrets_in(component):
            text = text.replace(secret, REDACTED)
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


def _to_reply(result: CreateResult, latency: float) -> ModelReply:
    details: dict[str, Any] = {}
    cached_tokens = 0
    if isinstance(result, EndpointResult):
        cached_tokens = result.cached_tokens
        names = ("refusal", "served_model", "attempts", "json_as", "first_token")
        details = {name: getattr(result, name) for name in names}
    return ModelReply(
        text=valid_text(result.content) if isinstance(result.content, str) else "",
        finish_reason=result.finish_reason,
        usage=Usage(
            prompt_tokens=result.usage.prompt_tokens,
            completion_tokens=result.usage.completion_tokens,
            cached_tokens=cached_tokens,
        ),
        latency=latency,
        **details,
    )
