"""Requests of the OpenAI protocol: how messages and settings become the bytes that are sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import openai
from autogen_core.models import AssistantMessage, LLMMessage, SystemMessage, UserMessage

from agents.models.preencoded_json import PreencodedJson

OMITTED_CLIENT_HEADERS: Any = {
    f"X-Stainless-{name}": openai.Omit()
    for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
}
"""Headers about this machine that the SDK would send, which endpoints do not use. A call takes
0.67 ms of CPU without these and `_OMITTED_CALL_HEADERS`, 0.77 ms with them (see `http.py`)."""
_OMITTED_CALL_HEADERS = {
    f"x-stainless-{name}": openai.Omit() for name in ("retry-count", "read-timeout")
}


def encode_request(
    body: dict[str, Any], messages: Sequence[LLMMessage]
) -> tuple[AsyncIterator[bytes], dict[str, str | openai.Omit]]:
    """The content of a request, and the headers that belong to it.

    The content is released once it is sent: it is the largest part of what a call in flight would
    otherwise keep in memory, and a reply may take minutes.
    """
    fields = [f"{json.dumps(name)}: {_encode_value(value)}" for name, value in body.items()]
    # The system prompt is most of the first calls and the same in all, so it is encoded once.
    texts = [
        _encode_system_prompt(message.content)
        if isinstance(message, SystemMessage)
        else json.dumps(encode_message(message))
        for message in messages
    ]
    data = f'{{{", ".join(fields)}, "messages": [{", ".join(texts)}]}}'.encode()
    return _send_once([data]), {"Content-Length": str(len(data)), **_OMITTED_CALL_HEADERS}


def encode_message(message: LLMMessage) -> dict[str, str]:
    """A message in the form of the protocol.

    Raises:
        ValueError: It is not text.
    """
    if isinstance(message, SystemMessage):
        return {"role": "system", "content": message.content}
    role = "user" if isinstance(message, UserMessage) else "assistant"
    if not isinstance(message, UserMessage | AssistantMessage) or isinstance(message.content, list):
        raise ValueError("EndpointClient takes only text messages")
    return {"role": role, "content": message.content}


def _encode_value(value: Any) -> str:
    return value.text if isinstance(value, PreencodedJson) else json.dumps(value)


@lru_cache(maxsize=8)
def _encode_system_prompt(content: str) -> str:
    return json.dumps({"role": "system", "content": content})


async def _send_once(parts: list[bytes]) -> AsyncIterator[bytes]:
    while parts:
        yield parts.pop()


def is_openai(url: str) -> bool:
    """Whether a URL is that of OpenAI's own service, or of its twin on Azure."""
    return (urlsplit(url).hostname or "").endswith((".openai.com", ".openai.azure.com"))
