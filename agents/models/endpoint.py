"""`EndpointClient`: any endpoint that speaks the OpenAI protocol, as an AutoGen model client.

It posts plain bodies through the official SDK, which does authentication, retries and
`Retry-After`, and leaves out the SDK's typed response objects, which cost more CPU than all the
rest of a turn. Errors come out as the typed errors of `agents.models.errors`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import httpx2
import openai
from autogen_core import CancellationToken, Component
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    CreateResult,
    FinishReasons,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel, ConfigDict, Field

from agents.models.errors import (
    ContextExceeded,
    EndpointError,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointTimeout,
    EndpointUnreachable,
    UnusableAnswer,
)

_FINISH: dict[str, FinishReasons] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")


class EndpointConfig(BaseModel):
    """Where an endpoint is, and how to talk to it. Holds the name of the key, never the key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://")
    """Address up to and including the version, such as `https://api.openai.com/v1`."""
    model: str = Field(min_length=1)
    """Model name as the endpoint knows it."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. None is needed on loopback."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that one attempt may take."""
    max_retries: int = Field(default=4, ge=0, le=20)
    """Further attempts after a 408, 409, 429, 5xx or a lost connection."""
    json_as: Literal["json_schema", "llguidance"] = "json_schema"
    """How a JSON schema is sent: as OpenAI's `response_format`, or as a grammar of llama.cpp built
    with llguidance, which leaves out white space (the embedded model is asked so)."""
    connections: int = Field(default=1000, ge=1)
    """Size of the connection pool; at least the number of concurrent calls."""


class EndpointResult(CreateResult):
    """A `CreateResult` with what AutoGen's leaves out."""

    cached_tokens: int = 0
    """Prompt tokens that the endpoint's prefix cache served."""
    refusal: str | None = None
    """The `refusal` field of the message, where the endpoint has one."""
    served_model: str | None = None
    """The model that the endpoint says it used."""


class EndpointClient(ChatCompletionClient, Component[EndpointConfig]):
    """Calls one model at one endpoint.

    Clients of the same endpoint share one SDK client per event loop, since building one costs 40 ms
    and its connections are worth keeping.
    """

    component_type = "model"
    component_config_schema = EndpointConfig
    component_provider_override = "agents.models.endpoint.EndpointClient"

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self._total = RequestUsage(0, 0)

    async def create(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> EndpointResult:
        """Asks for one reply.

        Args:
            messages: The conversation; text only.
            tools: Must be empty: agents here speak, they do not act.
            tool_choice: Of no effect.
            json_output: True for any JSON object, or a pydantic model for its schema.
            extra_create_args: Further fields of the request body, such as `response_format`.
            cancellation_token: Cancels the call under way.

        Returns:
            The reply, with the tokens that the endpoint counted.

        Raises:
            EndpointMisconfigured: Wrong address, key or model, or a request it does not support.
            EndpointError: This call failed; the subclass says how.
        """
        if tools:
            raise ValueError("EndpointClient takes no tools")
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [_to_wire(message) for message in messages],
        }
        if json_output is True:
            body["response_format"] = {"type": "json_object"}
        elif isinstance(json_output, type):
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {
                    "name": json_output.__name__,
                    "schema": json_output.model_json_schema(),
                },
            }
        body.update(extra_create_args or {})
        if self._is_openai():
            _adapt_to_openai(body)
        elif self.config.json_as == "llguidance" and "response_format" in body:
            _adapt_to_llguidance(body)
        task = asyncio.ensure_future(self._post(body))
        if cancellation_token is not None:
            cancellation_token.link_future(task)
        return self._read(await task)

    async def _post(self, body: dict[str, Any]) -> Any:
        try:
            return await self._sdk().post("/chat/completions", body=body, cast_to=object)
        except openai.APIError as error:
            raise self._explain(error) from None
        except ValueError as error:  # a body that is no JSON
            raise UnusableAnswer(
                f"{self._where()} sent an answer that is not JSON ({type(error).__name__}).",
                "Check that the address is that of an OpenAI-compatible API.",
            ) from None

    def _read(self, answer: Any) -> EndpointResult:
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            usage = answer.get("usage") or {}
            details = usage.get("prompt_tokens_details") or {}
            result = EndpointResult(
                content=message.get("content") or "",
                finish_reason=_FINISH.get(choice.get("finish_reason") or "", "unknown"),
                usage=RequestUsage(
                    usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
                ),
                cached=False,
                thought=message.get("reasoning_content"),
                cached_tokens=details.get("cached_tokens") or 0,
                refusal=message.get("refusal") or None,
                served_model=answer.get("model"),
            )
        except (TypeError, KeyError, IndexError, AttributeError, ValueError):
            raise UnusableAnswer(
                f"{self._where()} sent an answer that is not a chat completion.",
                "Check that the address is that of an OpenAI-compatible API.",
            ) from None
        self._total = RequestUsage(
            self._total.prompt_tokens + result.usage.prompt_tokens,
            self._total.completion_tokens + result.usage.completion_tokens,
        )
        return result

    def _sdk(self) -> openai.AsyncOpenAI:
        shared = _SDKS.setdefault(asyncio.get_running_loop(), {})
        settings = self._settings()
        if settings not in shared:
            base_url, key, timeout, max_retries, connections = settings
            limits = httpx2.Limits(
                max_connections=connections, max_keepalive_connections=connections
            )
            shared[settings] = openai.AsyncOpenAI(
                base_url=base_url,
                api_key=key,
                timeout=timeout,
                max_retries=max_retries,
                http_client=openai.DefaultAioHttpClient(limits=limits),
            )
        return shared[settings]

    def _settings(self) -> tuple[str, str, float, int, int]:
        c = self.config
        return (c.base_url, self._key(), c.timeout, c.max_retries, c.connections)

    def _key(self) -> str:
        key = os.environ.get(self.config.api_key_env, "")
        if not key and not is_loopback(self.config.base_url):
            raise EndpointMisconfigured(
                f"{self._where()} needs a key, and {self.config.api_key_env} is not set.",
                f"Set it with: export {self.config.api_key_env}=…",
            )
        return key or "none"  # the SDK insists on one; loopback servers do not read it

    def _is_openai(self) -> bool:
        host = urlsplit(self.config.base_url).hostname or ""
        return host.endswith((".openai.com", ".openai.azure.com"))

    def _where(self) -> str:
        return f"The endpoint {self.config.base_url}"

    def _explain(self, error: openai.APIError) -> EndpointError:
        """The typed error for an SDK error. Never repeats what may hold a key or a prompt."""
        where, config = self._where(), self.config
        if isinstance(error, openai.APITimeoutError):
            return EndpointTimeout(
                f"{where} did not answer within {config.timeout:g} s.",
                "Raise the model's timeout, or lower the concurrency.",
            )
        if isinstance(error, openai.APIConnectionError):
            return EndpointUnreachable(
                f"{where} cannot be reached.", "Check the address, and that the server is running."
            )
        if not isinstance(error, openai.APIStatusError):
            return UnusableAnswer(
                f"{where} sent an answer that the SDK cannot read ({type(error).__name__}).",
                "Check that the address is that of an OpenAI-compatible API.",
            )
        status = error.status_code
        if status in (401, 403):
            return EndpointMisconfigured(
                f"{where} refused the key ({status}).",
                f"Check the key in {config.api_key_env}, and that it may use '{config.model}'.",
            )
        if status == 404:
            return EndpointMisconfigured(
                f"{where} knows no model '{config.model}' (404).",
                "Check the model's name, and that the address ends where /chat/completions begins.",
            )
        if status == 400 and (error.code in _CONTEXT_CODES or error.type in _CONTEXT_CODES):
            return ContextExceeded(
                f"The chat grew longer than the context of '{config.model}'.",
                "Use a model with a longer context, or a recipe with fewer rounds.",
            )
        if status == 429 and error.code == "insufficient_quota":
            return EndpointMisconfigured(
                f"{where} says that the quota is used up (429).",
                "Top it up, then start the same command again: what is done stays done.",
            )
        if status == 429 or status >= 500 or status == 408:
            return EndpointOverloaded(
                f"{where} answered {status}, after {config.max_retries + 1} attempts.",
                "Try again later, or lower the concurrency.",
            )
        return EndpointMisconfigured(
            f"{where} did not accept the request ({status}): {self._redact(error)}",
            "Check that the model supports JSON-schema replies and the sampling settings.",
        )

    def _redact(self, error: openai.APIStatusError) -> str:
        text = " ".join(str(error.message).split())[:300]
        key = os.environ.get(self.config.api_key_env)
        return (text.replace(key, "***") if key else text).rstrip(".") + "."

    async def create_stream(
        self,
        messages: Sequence[LLMMessage],
        *,
        tools: Sequence[Tool | ToolSchema] = (),
        tool_choice: Tool | Literal["auto", "required", "none"] = "auto",
        json_output: bool | type[BaseModel] | None = None,
        extra_create_args: Mapping[str, Any] | None = None,
        cancellation_token: CancellationToken | None = None,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """Same as `create`, as a stream of one chunk: replies are parsed whole."""
        result = await self.create(
            messages,
            tools=tools,
            json_output=json_output,
            extra_create_args=extra_create_args,
            cancellation_token=cancellation_token,
        )
        yield str(result.content)
        yield result

    async def close(self) -> None:
        """Closes the connections that this event loop's clients of the endpoint share."""
        sdk = _SDKS.get(asyncio.get_running_loop(), {}).pop(self._settings(), None)
        if sdk is not None:
            await sdk.close()

    def actual_usage(self) -> RequestUsage:
        """Tokens of all calls of this client."""
        return self._total

    def total_usage(self) -> RequestUsage:
        """Tokens of all calls of this client."""
        return self._total

    def count_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """An estimate, at four characters a token: the endpoint's tokenizer is not known here."""
        return sum(len(str(message.content)) for message in messages) // 4

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """An estimate against a context of 128,000 tokens: the real one is not known here."""
        return 128_000 - self.count_tokens(messages)

    @property
    def capabilities(self) -> ModelInfo:
        """Same as `model_info` (deprecated in AutoGen)."""
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        """What AutoGen may expect of the model."""
        return ModelInfo(
            vision=False,
            function_calling=False,
            json_output=True,
            family=ModelFamily.UNKNOWN,
            structured_output=True,
        )

    def _to_config(self) -> EndpointConfig:
        return self.config

    @classmethod
    def _from_config(cls, config: EndpointConfig) -> Self:
        return cls(config)


_SDKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, openai.AsyncOpenAI]] = (
    WeakKeyDictionary()
)


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _to_wire(message: LLMMessage) -> dict[str, str]:
    if isinstance(message, SystemMessage):
        return {"role": "system", "content": message.content}
    role = "user" if isinstance(message, UserMessage) else "assistant"
    if not isinstance(message, UserMessage | AssistantMessage) or isinstance(message.content, list):
        raise ValueError("EndpointClient takes text messages alone")
    return {"role": role, "content": message.content}


def _adapt_to_openai(body: dict[str, Any]) -> None:
    """OpenAI's own service takes no string lengths in strict schemas, and renamed `max_tokens`."""
    if "response_format" in body:
        body["response_format"] = _without_lengths(body["response_format"])
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")


def _adapt_to_llguidance(body: dict[str, Any]) -> None:
    """Asks llama.cpp for compact JSON.

    Its own reading of `response_format` lets a model write any white space, and a code fence around
    the object. A small model then spends half of its tokens on them, in a tokenization that is not
    the one of the same text in the next prompt, so that the prefix cache misses every reply.
    """
    form = body["response_format"]
    if form.get("type") == "json_schema":
        del body["response_format"]
        compact = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        schema = {**form["json_schema"]["schema"], "x-guidance": compact}
        body["grammar"] = f"%llguidance {{}}\nstart: %json {json.dumps(schema)}"


def _without_lengths(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_lengths(value)
            for key, value in node.items()
            if key not in ("minLength", "maxLength")
        }
    return [_without_lengths(item) for item in node] if isinstance(node, list) else node
