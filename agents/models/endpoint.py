"""`EndpointClient`: any endpoint that speaks the OpenAI protocol, as an AutoGen model client.

It posts plain bodies through the official SDK, which does authentication and connections, but not
through the SDK's typed methods: they cost more CPU than the rest of a turn. Errors are those of
`agents.models.errors`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Self
from urllib.parse import urlsplit

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

from agents.models.adaptation import Adaptation
from agents.models.config import EndpointConfig
from agents.models.context import NoCancellation
from agents.models.dialects import RENAMED
from agents.models.errors import ContextExceeded, EndpointError, EndpointMisconfigured
from agents.models.exchange import Exchange, close_connections
from agents.models.probing import Result, forget_profiles, profile_of
from agents.models.rate_limiter import limiter_of
from agents.models.redaction import hold_headers, hold_secret, secrets_in
from agents.models.response import EndpointResult
from agents.models.retries import Retries, forget_answers
from agents.models.timeouts import forget_timeouts, timeouts_of

TOKEN_LIMITS = frozenset(RENAMED)
"""The names of the parameter that bounds a reply."""


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
        self._checked_key: str | None = None

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
        timeouts = timeouts_of(config.base_url, config.model, config.timeout)
        exchange = Exchange(config, self._key(), timeouts)
        limiter = limiter_of(config.base_url, config.rate_limit)
        limiter.bound(config.min_concurrency, config.max_concurrency)
        profile = profile_of(config)
        retries = Retries(config, limiter)

        async def send(to: Adaptation, fields: dict[str, Any], said: list[LLMMessage]) -> Result:
            result = await exchange.post(to, fields, said)
            retries.probed(result)
            return result

        fitted = False
        while True:
            sent_at = await retries.start()
            # Read after the wait: other calls may have learned more.
            adaptation = profile.adaptation
            result: Result | None
            try:
                result = await exchange.post(adaptation, body, messages, retries.made)
            except BaseException:
                retries.end(None)
                raise
            retries.end(result)
            if isinstance(result, ContextExceeded) and result.room and not fitted:
                fitted = True
                body = body | dict.fromkeys(TOKEN_LIMITS & body.keys(), result.room)
                retries.adapted(result)
                continue
            if isinstance(result, EndpointError):
                error = result
                result = await profile.examine(error, adaptation, body, sent_at, send)
                if result is None:
                    retries.adapted(error)
                    continue
            if isinstance(result, EndpointResult):
                if result.is_completion:
                    profile.accepted(adaptation, body, sent_at)
                result.json_as = adaptation.json_as if "response_format" in body else None
                result.adapted = adaptation.notes(body)
                return retries.settle(result)
            # Raised without the SDK's error as its context: that holds the request, and the key.
            await retries.after_failure(result)

    def _key(self) -> str:
        name = self.config.api_key_env
        key = os.environ.get(name, "").strip()
        if key == self._checked_key:
            return key
        if not key and not is_loopback(self.config.base_url):
            raise EndpointMisconfigured(
                f"The endpoint {self.config.base_url} needs a key, and {name} is not set.",
                f"Set it with: export {name}=…",
            )
        if not (key.isascii() and key.isprintable()):
            raise EndpointMisconfigured(
                f"The key in {name} contains characters that are not allowed.",
                "Copy it again, without surrounding text.",
            )
        if len(key) > 1 and key[0] == key[-1] and key[0] in "\"'":
            raise EndpointMisconfigured(
                f"The key in {name} stands in quotes.",
                "Remove them: files with variables keep quotes in some tools.",
            )
        for secret in (key, *secrets_in(self.config.query)):
            hold_secret(secret)
        hold_headers(self.config.headers)
        self._checked_key = key
        return key

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
        await close_connections(self.config.base_url)

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


def forget_endpoints() -> None:
    """Forgets what was learned of endpoints, as when another server listens at an address now."""
    forget_profiles()
    forget_timeouts()
    forget_answers()
