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
from agents.models.dialects import Meaning, read_error
from agents.models.embedded import serve
from agents.models.endpoint import EndpointClient
from agents.models.errors import (
    CallNotStarted,
    ComponentFailed,
    EndpointError,
    EndpointMisconfigured,
)
from agents.models.failure import without_reply
from agents.models.redaction import (
    hold_environment,
    hold_secret,
    redact_reply,
    redact_text,
    secrets_in,
)
from agents.models.response import EndpointResult, valid_text
from agents.models.usage import NO_USAGE, Usage
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
    adapted: tuple[str, ...] = ()
    """What else the client changed of the request, since the endpoint does not take it as it is."""
    billed: Usage = NO_USAGE
    """Tokens of further answers to the call, which could not be used."""
    unusable: int = 0
    """How many these were."""
    abandoned: int = 0
    """Attempts of the call that timed out, which the endpoint may have billed."""
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
        if config.component is not None:
            for secret in secrets_in(config.component):
                hold_secret(secret)
            hold_environment()  # the component's SDK reads its key there

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
        failure: EndpointError | EndpointResult | None = None
        result: CreateResult
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
        if isinstance(failure, EndpointResult):
            result = failure
        elif failure is not None:
            raise failure  # outside the except block: the component's error may hold a key
        return _to_reply(result, time.perf_counter() - started)

    def _sampling(
        self, temperature: float | None, max_tokens: int | None, reseed: int
    ) -> dict[str, Any]:
        config = self.config
        # What the configuration leaves to the endpoint, personas leave to it too.
        own_temperature = config.temperature is not None and temperature is not None
        own_bound = config.max_tokens is not None and max_tokens is not None
        fields = {
            "temperature": temperature if own_temperature else config.temperature,
            "max_tokens": max_tokens if own_bound else config.max_tokens,
            "top_p": config.top_p,
            "seed": None if config.seed is None else config.seed + reseed,
            **config.extra,
        }
        return {key: value for key, value in fields.items() if value is not None}

    def _explain(self, error: Exception) -> EndpointError | EndpointResult:
        """The typed error for what a component raised: its own SDK's errors, or anything else.

        A filter's refusal is a result. A 403 may be one too, in words that are not known: it is
        held against the component only if it happens to many prompts in a row.
        """
        component = self.config.component or {}
        what = f"The model component '{component.get('provider')}'"
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            said = read_error(status, getattr(error, "body", None) or str(error))
            if said.meaning is Meaning.FILTERED:
                return without_reply("content_filter")
            if said.meaning in (Meaning.KEY, Meaning.MODEL, Meaning.QUOTA):
                return EndpointMisconfigured(
                    f"{what} was refused by its endpoint ({status}).",
                    "Check its key, its model, its address and its quota.",
                )
        text = redact_text(" ".join(f"{type(error).__name__}: {error}".split()))
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


_DETAILS = (
    *("refusal", "served_model", "attempts", "json_as", "adapted"),
    *("first_token", "billed", "unusable", "abandoned"),
)


def _to_reply(result: CreateResult, latency: float) -> ModelReply:
    details: dict[str, Any] = {}
    used = result.usage
    usage = Usage(prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens)
    if isinstance(result, EndpointResult):
        usage = result.tokens
        details = {name: getattr(result, name) for name in _DETAILS}
        # A gateway may return what it was sent, the key included.
        details |= {
            "refusal": None if result.refusal is None else redact_reply(result.refusal),
            "served_model": result.served_model and redact_text(result.served_model),
        }
    text = valid_text(result.content) if isinstance(result.content, str) else ""
    return ModelReply(
        text=redact_reply(text),
        finish_reason=result.finish_reason,
        usage=usage,
        latency=latency,
        **details,
    )
