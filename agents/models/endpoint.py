"""`EndpointClient`: any endpoint that speaks the OpenAI protocol, as an AutoGen model client.

It posts plain bodies through the official SDK, which does authentication and connections, but not
through the SDK's typed methods: they cost more CPU than the rest of a turn. Errors are those of
`agents.models.errors`.
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
from pydantic import BaseModel

from agents.models.config import EndpointConfig
from agents.models.context import NoCancellation
from agents.models.errors import (
    EndpointError,
    EndpointMisconfigured,
    RequestRejected,
    SchemaUnsupported,
)
from agents.models.failure import filter_result, to_endpoint_error
from agents.models.http import HttpClient
from agents.models.json_mode import apply_json_mode, json_mode_selector
from agents.models.rate_limiter import limiter_of
from agents.models.request import (
    OMITTED_CLIENT_HEADERS,
    adapt_to_openai,
    encode_request,
    is_openai,
)
from agents.models.response import EndpointResult, read_completion
from agents.models.retries import Retries


class EndpointClient(ChatCompletionClient, Component[EndpointConfig]):
    """Calls one model at one endpoint.

    Clients of the same endpoint share one SDK client per event loop: creating one takes 40 ms, and
    its connections are reused.
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
        """Requests one reply.

        Args:
            messages: The conversation; text only.
            tools: Must be empty.
            tool_choice: Ignored.
            json_output: True for any JSON object, or a pydantic model for its schema.
            extra_create_args: Further fields of the request body, such as `response_format`.
            cancellation_token: Cancels the call.

        Returns:
            The reply, with the tokens that the endpoint counted.

        Raises:
            EndpointMisconfigured: Wrong address, key or model, or an unsupported request.
            EndpointError: The call failed; the subclass tells how.
            CallNotStarted: The run is stopping.
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
        """One call, in as many attempts as it needs and is allowed.

        Args:
            body: The request without its messages.
            messages: The messages; encoded for each attempt, and released once they are sent.
        """
        config = self.config
        if is_openai(config.base_url):
            adapt_to_openai(body)
        key = self._key()
        limiter = limiter_of(config.base_url, config.rate_limit)
        limiter.bound(config.min_concurrency, config.max_concurrency)
        json_modes = json_mode_selector(config)
        retries = Retries(config, limiter)
        while True:
            await retries.start()
            mode = json_modes.current  # read after the wait: other calls may have learned more
            request = apply_json_mode(body, mode)
            try:
                result = await self._post(request, messages, key)
            except BaseException:
                retries.end(None)
                raise
            retries.end(result)
            if isinstance(result, SchemaUnsupported):
                if "response_format" not in request:
                    result = RequestRejected(result.cause, result.remedy)  # no JSON was requested
                elif json_modes.step_down(mode):
                    retries.after_rejected_mode(result)
                    continue
            if isinstance(result, EndpointResult):
                json_modes.confirm(mode)
                result.attempts = retries.made
                result.json_as = mode if "response_format" in body else None
                return result
            # Raised without the SDK's error as its context: that holds the request, and the key.
            await retries.after_failure(result)

    async def _post(
        self, body: dict[str, Any], messages: Sequence[LLMMessage], key: str
    ) -> EndpointResult | EndpointError:
        """One attempt: its result, or its error."""
        content, headers = encode_request(body, messages)
        try:
            # The SDK's own time-out applies to each read from the socket, and some proxies send a
            # blank now and then to keep the connection open.
            async with asyncio.timeout(self.config.timeout):
                # The complete address: putting it together would cost the SDK 40 us a call.
                response = await self._sdk(key).post(
                    f"{self.config.base_url}/chat/completions",
                    content=content,
                    cast_to=httpx2.Response,
                    options={
                        "headers": headers,
                        "timeout": self.config.timeout,
                        "follow_redirects": False,
                        "max_retries": 0,  # `Retries` informs the rate limiter and the observer
                        "idempotency_key": "none",  # not sent; without it, the SDK generates one
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
                api_key=key or "none",  # the SDK requires one; servers on loopback ignore it
                default_headers=OMITTED_CLIENT_HEADERS,
                # No bound (aiohttp takes 0 for that): a call that waited for a connection would
                # count the wait towards its time-out.
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
                f"The key in {self.config.api_key_env} contains characters that are not allowed.",
                "Copy it again, without surrounding text.",
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
        # With any key: it may have been corrected since.
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
        """An estimate, at four characters per token: the endpoint's tokenizer is unknown."""
        return sum(len(str(message.content)) for message in messages) // 4

    def remaining_tokens(
        self, messages: Sequence[LLMMessage], *, tools: Sequence[Tool | ToolSchema] = ()
    ) -> int:
        """An estimate, for a context of 128,000 tokens: the real one is unknown."""
        return 128_000 - self.count_tokens(messages)

    @property
    def capabilities(self) -> ModelInfo:
        """Same as `model_info` (deprecated in AutoGen)."""
        return self.model_info

    @property
    def model_info(self) -> ModelInfo:
        """The features that AutoGen may use."""
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
