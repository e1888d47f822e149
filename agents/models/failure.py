"""Failed requests: the typed error for what the SDK raised, and refusals of a provider's filter."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

import aiohttp
import openai
from autogen_core.models import RequestUsage

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
from agents.models.response import NOT_OPENAI, EndpointResult, valid_text

# OpenAI and llama.cpp have a code for it; vLLM and LiteLLM write it in the message.
_CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")
_CONTEXT_WORDS = re.compile(r"context (length|size|window)|ContextWindowExceeded|maximum model len")
# Azure and OpenAI answer 400 to a prompt that their filters reject; LiteLLM quotes Azure's answer.
_FILTER_CODES = ("content_filter", "content_policy_violation", "invalid_prompt")
_FILTER_WORDS = re.compile(r"ContentPolicyViolation|content management policy")
# A 400 about `response_format`, in the words of OpenAI, vLLM, LiteLLM, DeepSeek and others.
_FORMAT_WORDS = re.compile(
    r"response[_ ]format|json[_ ](schema|object)|structured[_ ]output|guided", re.IGNORECASE
)
_UNKNOWN_WORDS = re.compile(
    r"not (currently |one of the )?(supported|allowed|permitted|available|recognized|implemented"
    r"|valid)|unsupported|does(n't| not) support|unavailable|unknown|unrecognized|extra|should be"
    r"|must (be|contain)",
    re.IGNORECASE,
)

_QUOTA_CODES = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}


def filter_result(error: Exception) -> EndpointResult | None:
    """The result of a call whose prompt a provider's filter rejected; None for other errors."""
    if not isinstance(error, openai.APIStatusError) or error.status_code != 400:
        return None
    named = error.code in _FILTER_CODES or error.type in _FILTER_CODES
    if not named and not _FILTER_WORDS.search(str(error.message)):
        return None
    return EndpointResult(
        content="", finish_reason="content_filter", usage=RequestUsage(0, 0), cached=False
    )


def to_endpoint_error(
    error: Exception, *, where: str, model: str, key_env: str, key: str, timeout: float
) -> EndpointError:
    """The typed error for an error of the SDK, without the key.

    Args:
        error: Raised by the SDK.
        where: The endpoint, as messages name it.
        model: The model that was called.
        key_env: The environment variable of the key.
        key: The key, to be removed from what the endpoint says; empty if there is none.
        timeout: Seconds after which an attempt is abandoned.
    """
    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, where, model, key_env, key)
    if isinstance(error, openai.APIResponseValidationError | ValueError):
        return UnusableAnswer(
            f"{where} sent an answer that is not JSON ({type(error).__name__}).", NOT_OPENAI
        )
    # The SDK's aiohttp transport reports every lost or refused connection as a time-out; the
    # causes of its error tell them apart.
    causes = list(_causes(error))
    if any(isinstance(e, aiohttp.ClientPayloadError | ConnectionError) for e in causes) and not any(
        isinstance(e, ConnectionRefusedError) for e in causes
    ):
        return EndpointUnreachable(
            f"{where} closed the connection before its answer was complete.",
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
    message = valid_text(" ".join(str(error.message).split()))
    if key:
        message = message.replace(key, "***")
    if status in (401, 403) and not {error.code, error.type} & _QUOTA_CODES:
        refused = EndpointForbidden if status == 403 else EndpointMisconfigured
        return refused(
            f"{where} refused the key ({status}).",
            f"Check the key in {key_env}, and that it may use '{model}'.",
        )
    if 300 <= status < 400:
        # The content is released once it is sent, so it cannot be sent again to another address.
        elsewhere = valid_text(error.response.headers.get("Location", "?"))[:200]
        return EndpointMisconfigured(
            f"{where} redirects to another address ({status}): {elsewhere}.",
            "Use that as the base URL, up to where /chat/completions begins.",
        )
    if status == 404:
        return EndpointMisconfigured(
            f"{where} has no model '{model}' (404).",
            "Check the model's name, and that the address ends where /chat/completions begins.",
        )
    if status in (400, 413, 422) and (
        error.code in _CONTEXT_CODES
        or error.type in _CONTEXT_CODES
        or _CONTEXT_WORDS.search(message)
    ):
        return ContextExceeded(
            f"The chat grew longer than the context of '{model}'.",
            "Use a model with a longer context, or a recipe with fewer rounds.",
        )
    if status == 402 or (status in (403, 429) and {error.code, error.type} & _QUOTA_CODES):
        return QuotaExhausted(
            f"{where} says that the quota is used up ({status}).",
            "Increase it, then start the same command again: finished work is kept.",
        )
    if status in (408, 409, 429) or status >= 500:
        kind = EndpointThrottled if status == 429 else EndpointOverloaded
        return kind(
            f"{where} answered {status}.",
            "Try again later, or lower the concurrency.",
            status,
            _retry_after(error.response.headers),
        )
    if status in (400, 422) and _FORMAT_WORDS.search(message) and _UNKNOWN_WORDS.search(message):
        return SchemaUnsupported(
            f"{where} does not support the mode in which JSON is requested ({status}): "
            f"{message[:300].rstrip('.')}.",
            "Set json_as to json_object or text in the models file, or json_fallback to true.",
        )
    return RequestRejected(
        f"{where} did not accept the request ({status}): {message[:300].rstrip('.')}.",
        "Check that the model supports the sampling settings.",
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds of a `Retry-After` header, which holds a number of them or a date."""
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
