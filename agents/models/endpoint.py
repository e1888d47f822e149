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
from functools import lru_cache
from typing import Any, Literal, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import aiohttp
import httpx2
import openai
from autogen_core import CancellationToken, Component
from autogen_core.models import (
    ChatCompletionClient,
    CreateResult,
    LLMMessage,
    ModelFamily,
    ModelInfo,
    RequestUsage,
)
from autogen_core.tools import Tool, ToolSchema
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agents.models.context import NoCancellation
from agents.models.errors import (
    EndpointError,
    EndpointMisconfigured,
    RequestRejected,
    SchemaUnsupported,
)
from agents.models.failure import filter_result, to_endpoint_error
from agents.models.http import HttpClient
from agents.models.json_mode import JsonMode, apply_json_mode, json_mode_selector
from agents.models.rate_limiter import limiter_of
from agents.models.request import adapt_to_openai, encode_request, is_openai
from agents.models.response import EndpointResult, read_completion
from agents.models.retries import Retries

__all__ = ["EndpointClient", "EndpointConfig", "EndpointResult", "is_loopback"]


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
    """Seconds that one attempt may take; then it is abandoned."""
    max_retries: int = Field(default=8, ge=0, le=100)
    """Further attempts after a 408, 409, 429, 5xx, a lost connection, a time-out or an answer that
    is no chat completion."""
    retry_seconds: float = Field(default=1800.0, ge=0)
    """Seconds that one call may go on being tried, the waits between its attempts included. An
    attempt that timed out is followed by one more whatever this says."""
    max_concurrency: int | None = Field(default=None, ge=1)
    """Calls at the same time at most; as many as there are chats if left out."""
    min_concurrency: int = Field(default=1, ge=1)
    """Calls at the same time that are allowed however much the endpoint throttles."""
    json_as: JsonMode = "json_schema"
    """How JSON is asked for: by a schema in OpenAI's `response_format`; by its plain `json_object`;
    in words alone (`text`); or as a grammar of llama.cpp built with llguidance, which leaves out
    white space (the embedded model is asked so)."""
    json_fallback: bool = True
    """Whether an endpoint that does not know `json_schema` is asked in a plainer way from then on;
    if not, the run stops."""

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises if it is no number
        except ValueError:
            raise ValueError("is not an address such as https://api.openai.com/v1") from None
        if not parts.hostname:
            raise ValueError("names no host; write it as https://api.openai.com/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            # It stands in run files, records and messages.
            raise ValueError(
                "may hold no password and nothing after a '?'; keys are read from "
                "the environment variable that api_key_env names"
            )
        return url.rstrip("/")


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
        body: dict[str, Any] = {"model": self.config.model}
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
        if cancellation_token is None or isinstance(cancellation_token, NoCancellation):
            result = await self._call(body, messages)
        else:
            task = asyncio.ensure_future(self._call(body, messages))
            cancellation_token.link_future(task)
            result = await task
        self._total = RequestUsage(
            self._total.prompt_tokens + result.usage.prompt_tokens,
            self._total.completion_tokens + result.usage.completion_tokens,
        )
        return result

    async def _call(self, body: dict[str, Any], messages: Sequence[LLMMessage]) -> EndpointResult:
        """One call, in as many attempts as it needs and may have.

        Args:
            body: The request without its messages.
            messages: The messages, put into each attempt anew: in flight, nobody holds them twice.
        """
        config = self.config
        if is_openai(config.base_url):
            adapt_to_openai(body)
        key = self._key()
        throttle = limiter_of(config.base_url, config.max_concurrency, config.min_concurrency)
        json_modes = json_mode_selector(config)
        attempts = Retries(config.max_retries, config.retry_seconds, throttle, config.base_url)
        while True:
            await attempts.begin()
            mode = json_modes.current  # read after the wait: other calls may have learned more
            sent = apply_json_mode(body, mode)
            try:
                result = await self._post(sent, messages, key)
            except BaseException:
                attempts.end(None)
                raise
            attempts.end(result)
            if isinstance(result, SchemaUnsupported):
                if "response_format" not in sent:
                    result = RequestRejected(result.cause, result.remedy)  # no JSON was requested
                elif json_modes.step_down(mode):
                    attempts.json_mode_rejected(result)
                    continue
            if not isinstance(result, EndpointError):
                json_modes.confirm(mode)
                attempts.answered()
                result.attempts = attempts.made
                result.json_as = mode if "response_format" in body else None
                return result
            # The SDK's error is not its context: that one holds the request, and so the key.
            await attempts.failed(result)

    async def _post(
        self, body: dict[str, Any], messages: Sequence[LLMMessage], key: str
    ) -> EndpointResult | EndpointError:
        """One attempt: its result, or what kept it from one."""
        content, headers = encode_request(body, messages)
        try:
            # The SDK's own time-out is for each read from the socket; some proxies send a blank
            # now and then to keep a dead call alive.
            async with asyncio.timeout(self.config.timeout):
                # The whole address: the SDK would put it together anew, at 40 us a call.
                response = await self._sdk(key).post(
                    f"{self.config.base_url}/chat/completions",
                    content=content,
                    cast_to=httpx2.Response,
                    options={
                        "headers": headers,
                        "timeout": self.config.timeout,
                        "follow_redirects": False,
                        "max_retries": 0,  # ours are known to the throttle, and to whoever watches
                        "idempotency_key": "none",  # is not sent; else the SDK draws one
                    },
                )
            answer = json.loads(response.content)
        except (openai.OpenAIError, aiohttp.ClientError, OSError, ValueError) as error:
            return filter_result(error) or to_endpoint_error(
                error,
                where=self._where(),
                model=self.config.model,
                key_env=self.config.api_key_env,
                key=key,
                timeout=self.config.timeout,
            )
        return read_completion(answer, self._where())

    def _sdk(self, key: str) -> openai.AsyncOpenAI:
        shared = _SDKS.setdefault(asyncio.get_running_loop(), {})
        settings = (self.config.base_url, key)
        if settings not in shared:
            shared[settings] = openai.AsyncOpenAI(
                base_url=self.config.base_url,
                api_key=key or "none",  # the SDK insists on one; loopback servers do not read it
                default_headers=_OMITTED_HEADERS,
                # As many connections as there are calls: a call that waits for a free one would
                # count the wait against its time-out. aiohttp takes 0 for no bound.
                http_client=HttpClient(limits=httpx2.Limits(max_connections=0)),
            )
        return shared[settings]

    def _key(self) -> str:
        key = os.environ.get(self.config.api_key_env, "").strip()
        if not key and not is_loopback(self.config.base_url):
            raise EndpointMisconfigured(
                f"{self._where()} needs a key, and {self.config.api_key_env} is not set.",
                f"Set it with: export {self.config.api_key_env}=…",
            )
        if not (key.isascii() and key.isprintable()):
            raise EndpointMisconfigured(
                f"The key in {self.config.api_key_env} holds characters that no key has.",
                "Copy it again, without anything around it.",
            )
        return key

    def _where(self) -> str:
        return f"The endpoint {self.config.base_url}"

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
        shared = _SDKS.get(asyncio.get_running_loop(), {})
        # Whatever the key was: it may have been corrected since.
        for settings in [found for found in shared if found[0] == self.config.base_url]:
            await shared.pop(settings).close()

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


# What the SDK would say of this machine with every call, kept several times while in flight.
_OMITTED_HEADERS: Any = {
    f"X-Stainless-{name}": openai.Omit()
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
}
_SDKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], openai.AsyncOpenAI]] = (
    WeakKeyDictionary()
)


@lru_cache
def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
