"""One exchange with an endpoint: a request, and its reply or a typed error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
import httpx2
import openai
from autogen_core.models import LLMMessage

from agents.models.adaptation import Adaptation
from agents.models.config import EndpointConfig
from agents.models.dialects import error_within, read_error
from agents.models.errors import EndpointError
from agents.models.failure import Endpoint, of_exception, of_said, unsupported_proxy, unusable
from agents.models.http import BodyTooLarge, HttpClient
from agents.models.proxies import proxy_of
from agents.models.request import OMITTED_CLIENT_HEADERS, encode_request
from agents.models.response import EndpointResult, join_stream, read_completion, request_size
from agents.models.timeouts import AttemptTimeout, Timeouts

_SDKS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, ...], openai.AsyncOpenAI]] = (
    WeakKeyDictionary()
)

_NO_TIMEOUT = 1e6
"""Seconds: `AttemptTimeout` bounds the time. The transport's own would also count time during which
the process was suspended, and throw away replies that arrived then."""


class Exchange:
    """Posts requests to one model at one endpoint.

    Args:
        config: Where it is.
        key: Its key; empty if it needs none.
        timeouts: Of the model.
    """

    def __init__(self, config: EndpointConfig, key: str, timeouts: Timeouts) -> None:
        self._config = config
        self._key = key
        self._timeouts = timeouts
        self._endpoint = Endpoint(config.base_url, config.model, config.api_key_env)
        self._own_headers: dict[str, Any] = dict(config.headers)
        if config.api_key_header is not None:
            self._own_headers |= {config.api_key_header: key, "Authorization": openai.Omit()}

    async def post(
        self,
        adaptation: Adaptation,
        body: dict[str, Any],
        messages: Sequence[LLMMessage],
        attempt: int = 1,
    ) -> EndpointResult | EndpointError:
        """One attempt: its result, or its error.

        Args:
            adaptation: How the request is changed for the endpoint.
            body: The request without its messages, before that.
            messages: Its messages.
            attempt: Number of the attempt; later ones are given more time.
        """
        fields, sent = adaptation.apply(body, messages)
        content, headers = encode_request(fields, sent)
        limit = AttemptTimeout(self._timeouts, attempt)
        error: Exception
        try:
            # The SDK's own time-out applies to each read from the socket, and some proxies send a
            # blank now and then to keep the connection open.
            async with limit:
                # The complete address: putting it together would cost the SDK 40 us a call.
                response = await self._sdk().post(
                    f"{self._config.base_url}/chat/completions",
                    content=content,
                    cast_to=httpx2.Response,
                    options={
                        "headers": {**headers, **self._own_headers},
                        **({"params": self._config.query} if self._config.query else {}),
                        "timeout": _NO_TIMEOUT,
                        "follow_redirects": False,
                        "max_retries": 0,  # `Retries` informs the rate limiter and the observer
                        "idempotency_key": "none",  # not sent; without it, the SDK generates one
                    },
                )
        except openai.APIStatusError as failed:
            said = read_error(failed.status_code, _parsed(failed.response.content))
            return of_said(said, self._endpoint, failed.response.headers)
        except (
            openai.OpenAIError,
            aiohttp.ClientError,
            OSError,
            ValueError,
            BodyTooLarge,
            httpx2.InvalidURL,
        ) as failed:
            error = failed
        else:
            self._timeouts.add(limit.seconds)
            return self._read(response.content, fields, sent, adaptation.stream)
        return of_exception(error, self._endpoint, limit.allowed)

    def _read(
        self, content: bytes, body: dict[str, Any], messages: Sequence[LLMMessage], stream: bool
    ) -> EndpointResult | EndpointError:
        answer = _parsed(content)
        if isinstance(answer, str):
            joined = join_stream(answer)
            if joined is None:
                return unusable(self._endpoint, "sent an answer that is not JSON")
            answer = joined
        within = error_within(answer)
        if within is None:
            return read_completion(
                answer, self._endpoint.where, partial(request_size, body, messages)
            )
        said = read_error(200, within)
        return of_said(said, self._endpoint, {})

    def _sdk(self) -> openai.AsyncOpenAI:
        shared = _SDKS.setdefault(asyncio.get_running_loop(), {})
        settings = (self._config.base_url, self._key)
        if settings not in shared:
            proxy = proxy_of(self._config.base_url)
            if proxy is not None and not proxy.is_http:
                raise unsupported_proxy(self._endpoint, proxy)
            shared[settings] = openai.AsyncOpenAI(
                base_url=self._config.base_url,
                api_key=self._key or "none",  # the SDK requires one; loopback servers ignore it
                default_headers=OMITTED_CLIENT_HEADERS,
                # No bound (aiohttp takes 0 for that): a call that waited for a connection would
                # count the wait towards its time-out.
                http_client=HttpClient(limits=httpx2.Limits(max_connections=0)),
            )
        return shared[settings]


async def close_connections(base_url: str) -> None:
    """Closes the connections that this event loop's clients of an endpoint share."""
    shared = _SDKS.get(asyncio.get_running_loop(), {})
    # With any key: it may have been corrected since.
    for settings in [found for found in shared if found[0] == base_url]:
        await shared.pop(settings).close()


def _parsed(content: bytes) -> Any:
    """A body as JSON if it is that, else as text."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return content.decode(errors="replace").strip()
