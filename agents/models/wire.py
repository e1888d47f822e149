"""The OpenAI protocol on the wire: what is sent, what comes back, and what its errors mean."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
from autogen_core.models import (
    AssistantMessage,
    CreateResult,
    FinishReasons,
    LLMMessage,
    RequestUsage,
    SystemMessage,
    UserMessage,
)
from openai._types import Headers

from agents.models.errors import (
    ContextExceeded,
    EndpointAbsent,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointThrottled,
    EndpointTimeout,
    EndpointUnreachable,
    QuotaExhausted,
    RequestRejected,
    SchemaUnsupported,
    UnusableAnswer,
)
from agents.models.fixed import Fixed

_FINISH: dict[str, FinishReasons] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}
# OpenAI and llama.cpp have a code for it; vLLM and LiteLLM say it in words.
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")
_CONTEXT_WORDS = re.compile(r"context (length|size|window)|ContextWindowExceeded|maximum model len")
# Azure and OpenAI answer a prompt that their filters dislike with a 400; LiteLLM names Azure's.
_FILTER_CODES = ("content_filter", "content_policy_violation", "invalid_prompt")
_FILTER_WORDS = re.compile(r"ContentPolicyViolation|content management policy")
# A 400 that is about `response_format`, in the words of OpenAI, vLLM, LiteLLM, DeepSeek and others.
_FORM_WORDS = re.compile(
    r"response[_ ]format|json[_ ](schema|object)|structured[_ ]output|guided", re.IGNORECASE
)
_UNKNOWN_WORDS = re.compile(
    r"not (currently |one of the )?(supported|allowed|permitted|available|recognized|implemented"
    r"|valid)|unsupported|does(n't| not) support|unavailable|unknown|unrecognized|extra|should be"
    r"|must (be|contain)",
    re.IGNORECASE,
)

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
_MOST_TOKENS = 10**12
_NOT_OPENAI = "Check that the address is that of an OpenAI-compatible API."


class EndpointResult(CreateResult):
    """A `CreateResult` with what AutoGen's leaves out."""

    cached_tokens: int = 0
    """Prompt tokens that the endpoint's prefix cache served."""
    refusal: str | None = None
    """The `refusal` field of the message, where the endpoint has one."""
    served_model: str | None = None
    """The model that the endpoint says it used."""
    attempts: int = 1
    """Requests that it took."""
    json_as: str | None = None
    """The form in which JSON was asked for."""
    first_token: dict[str, float] | None = None
    """Log probabilities of the likeliest first tokens, where the endpoint gives them."""


def to_wire(message: LLMMessage) -> dict[str, str]:
    """A message as the protocol has it.

    Raises:
        ValueError: It is not text.
    """
    if isinstance(message, SystemMessage):
        return {"role": "system", "content": message.content}
    role = "user" if isinstance(message, UserMessage) else "assistant"
    if not isinstance(message, UserMessage | AssistantMessage) or isinstance(message.content, list):
        raise ValueError("EndpointClient takes text messages alone")
    return {"role": role, "content": message.content}


def as_content(
    body: dict[str, Any], messages: Sequence[LLMMessage]
) -> tuple[AsyncIterator[bytes], Headers]:
    """A request's content, and the headers that go with it.

    The content is let go once it is sent: it is the largest part of what a call in flight would
    otherwise hold, and a reply may take minutes.
    """
    # The system prompt is most of the first calls and the same in all: it is encoded once.
    said = [
        _system(message.content)
        if isinstance(message, SystemMessage)
        else json.dumps(to_wire(message))
        for message in messages
    ]
    parts = [
        f"{json.dumps(name)}: {value.text if isinstance(value, Fixed) else json.dumps(value)}"
        for name, value in body.items()
    ]
    data = f'{{{", ".join(parts)}, "messages": [{", ".join(said)}]}}'.encode()
    return _once([data]), {"Content-Length": str(len(data)), **_UNSAID}


@lru_cache(maxsize=8)
def _system(content: str) -> str:
    return json.dumps({"role": "system", "content": content})


async def _once(parts: list[bytes]) -> AsyncIterator[bytes]:
    while parts:
        yield parts.pop()


# Headers that the SDK adds to each request: of no use to an endpoint, and held while in flight.
_UNSAID: Any = {f"x-stainless-{name}": openai.Omit() for name in ("retry-count", "read-timeout")}


def adapt_to_openai(body: dict[str, Any]) -> None:
    """OpenAI's own service takes no string lengths in strict schemas, and renamed `max_tokens`."""
    if "response_format" in body:
        form = body["response_format"]
        body["response_format"] = (form if isinstance(form, Fixed) else Fixed(form)).without_lengths
    if "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")


def adapt_to_llguidance(body: dict[str, Any]) -> None:
    """Asks llama.cpp for compact JSON.

    Its own reading of `response_format` lets a model write any white space, and a code fence around
    the object. A small model then spends half of its tokens on them, in a tokenization that is not
    the one of the same text in the next prompt, so that the prefix cache misses every reply.
    """
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        del body["response_format"]
        compact = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        schema = {**form["json_schema"]["schema"], "x-guidance": compact}
        body["grammar"] = f"%llguidance {{}}\nstart: %json {json.dumps(schema)}"


def is_openai(url: str) -> bool:
    """Whether a URL is that of OpenAI's own service, or of its twin on Azure."""
    return (urlsplit(url).hostname or "").endswith((".openai.com", ".openai.azure.com"))


def read_completion(answer: Any, where: str) -> EndpointResult | UnusableAnswer:
    """The first choice of a chat completion.

    Args:
        answer: The parsed body.
        where: The endpoint, as messages name it.

    Returns:
        The result; or the error, if it is no chat completion.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return EndpointResult(
            content=as_text(message.get("content") or ""),
            finish_reason=_FINISH.get(choice.get("finish_reason") or "", "unknown"),
            usage=RequestUsage(
                _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
            ),
            cached=False,
            thought=message.get("reasoning_content"),
            cached_tokens=_count(details.get("cached_tokens")),
            refusal=as_text(message.get("refusal") or "") or None,
            served_model=as_text(answer.get("model") or "") or None,
            first_token=_first_token(choice.get("logprobs")),
        )
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError):
        return UnusableAnswer(f"{where} sent an answer that is not a chat completion.", _NOT_OPENAI)


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The likeliest first tokens. Two that are written alike, as bytes may be, add up."""
    content = (logprobs or {}).get("content")
    if not content:
        return None
    sums: dict[str, float] = {}
    if not content[0].get("top_logprobs"):
        return None
    for token in content[0]["top_logprobs"]:
        text, logprob = as_text(token["token"]), float(token["logprob"])
        chance = math.exp(min(0.0, logprob)) if logprob == logprob else 0.0  # not NaN
        sums[text] = sums.get(text, 0.0) + chance
    return {text: math.log(share) for text, share in sums.items() if share > 0}


def as_text(text: str) -> str:
    """Text that can be kept: halves of characters, which a cut-off emoji leaves, are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _count(number: Any) -> int:
    """A number of tokens, of a size that can be kept."""
    return min(max(0, int(number or 0)), _MOST_TOKENS)


def filtered(error: Exception) -> EndpointResult | None:
    """The result that an error stands for, if it says that a provider's filter took the prompt."""
    if not isinstance(error, openai.APIStatusError) or error.status_code != 400:
        return None
    named = error.code in _FILTER_CODES or error.type in _FILTER_CODES
    if not named and not _FILTER_WORDS.search(str(error.message)):
        return None
    return EndpointResult(
        content="", finish_reason="content_filter", usage=RequestUsage(0, 0), cached=False
    )


def explain(
    error: Exception, *, where: str, model: str, key_env: str, key: str, timeout: float
) -> EndpointError:
    """The typed error for whatever the SDK raised. The key is in none of it.

    Args:
        error: Raised by the SDK, after its retries.
        where: The endpoint, as messages name it.
        model: The model that was asked.
        key_env: The environment variable of the key.
        key: The key, so that it can be struck out of what the endpoint says; empty if none.
        timeout: Seconds that were waited at most.
    """
    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, where, model, key_env, key)
    if isinstance(error, openai.APIResponseValidationError | ValueError):
        return UnusableAnswer(
            f"{where} sent an answer that is not JSON ({type(error).__name__}).", _NOT_OPENAI
        )
    # The SDK's aiohttp transport calls every lost or refused connection a time-out; only the
    # error underneath tells them apart.
    causes = list(_causes(error))
    if any(isinstance(e, aiohttp.ClientPayloadError | ConnectionError) for e in causes) and not any(
        isinstance(e, ConnectionRefusedError) for e in causes
    ):
        return EndpointUnreachable(
            f"{where} broke the connection off before its answer was whole.",
            "Check the server's log, and any proxy on the way.",
        )
    if any(isinstance(e, aiohttp.ServerDisconnectedError) for e in causes):
        return EndpointUnreachable(
            f"{where} closed the connection without an answer.",
            "Check the server's log, and any proxy on the way.",
        )
    lost = any(isinstance(e, OSError) and not isinstance(e, TimeoutError) for e in causes)
    if isinstance(error, openai.APITimeoutError | TimeoutError) and not lost:
        return EndpointTimeout(
            f"{where} did not answer within {timeout:g} s.",
            "Raise the model's timeout, or lower the concurrency.",
        )
    return EndpointAbsent(
        f"{where} cannot be reached.", "Check the address, and that the server is running."
    )


def _explain_status(
    error: openai.APIStatusError, where: str, model: str, key_env: str, key: str
) -> EndpointError:
    status = error.status_code
    said = as_text(" ".join(str(error.message).split()))
    if key:
        said = said.replace(key, "***")
    if status in (401, 403) and not {error.code, error.type} & _QUOTA_CODES:
        refused = EndpointForbidden if status == 403 else EndpointMisconfigured
        return refused(
            f"{where} refused the key ({status}).",
            f"Check the key in {key_env}, and that it may use '{model}'.",
        )
    if 300 <= status < 400:
        # What is sent is let go with the sending, so it cannot be sent once more elsewhere.
        elsewhere = as_text(error.response.headers.get("Location", "?"))[:200]
        return EndpointMisconfigured(
            f"{where} redirects to another address ({status}): {elsewhere}.",
            "Use that as the base URL, up to where /chat/completions begins.",
        )
    if status == 404:
        return EndpointMisconfigured(
            f"{where} knows no model '{model}' (404).",
            "Check the model's name, and that the address ends where /chat/completions begins.",
        )
    if status in (400, 413, 422) and (
        error.code in _CONTEXT_CODES or error.type in _CONTEXT_CODES or _CONTEXT_WORDS.search(said)
    ):
        return ContextExceeded(
            f"The chat grew longer than the context of '{model}'.",
            "Use a model with a longer context, or a recipe with fewer rounds.",
        )
    if status == 402 or (status in (403, 429) and {error.code, error.type} & _QUOTA_CODES):
        return QuotaExhausted(
            f"{where} says that the quota is used up ({status}).",
            "Top it up, then start the same command again: what is done stays done.",
        )
    if status in (408, 409, 429) or status >= 500:
        kind = EndpointThrottled if status == 429 else EndpointOverloaded
        return kind(
            f"{where} answered {status}.",
            "Try again later, or lower the concurrency.",
            status,
            _retry_after(error.response.headers),
        )
    if status in (400, 422) and _FORM_WORDS.search(said) and _UNKNOWN_WORDS.search(said):
        return SchemaUnsupported(
            f"{where} does not know the form in which JSON is asked for ({status}): "
            f"{said[:300].rstrip('.')}.",
            "Set json_as to json_object or text in the models file, or json_fallback to true.",
        )
    return RequestRejected(
        f"{where} did not accept the request ({status}): {said[:300].rstrip('.')}.",
        "Check that the model supports the sampling settings.",
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number of them, or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            seconds = float(text) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if seconds == seconds:  # not "nan"
            return max(0.0, seconds)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
