"""Responses of the OpenAI protocol: reading a chat completion."""

from __future__ import annotations

import math
from typing import Any

from autogen_core.models import CreateResult, FinishReasons, RequestUsage

from agents.models.errors import UnusableAnswer

NOT_OPENAI = "Check that the address is that of an OpenAI-compatible API."
"""The remedy for answers that are not of the protocol."""

_FINISH: dict[str, FinishReasons] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
}
_MOST_TOKENS = 10**12


class EndpointResult(CreateResult):
    """A `CreateResult` with what AutoGen's leaves out."""

    cached_tokens: int = 0
    """Prompt tokens that the endpoint's prefix cache served."""
    refusal: str | None = None
    """The `refusal` field of the message, where the endpoint has one."""
    served_model: str | None = None
    """The model that the endpoint says it used."""
    attempts: int = 1
    """Requests that were needed."""
    json_as: str | None = None
    """The mode in which JSON was requested."""
    first_token: dict[str, float] | None = None
    """Log probabilities of the most likely first tokens, where the endpoint returns them."""


def read_completion(answer: Any, where: str) -> EndpointResult | UnusableAnswer:
    """The first choice of a chat completion.

    Args:
        answer: The parsed body.
        where: The endpoint, as messages name it.

    Returns:
        The result; or the error, if it is not a chat completion.
    """
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") or {}
        return EndpointResult(
            content=valid_text(message.get("content") or ""),
            finish_reason=_FINISH.get(choice.get("finish_reason") or "", "unknown"),
            usage=RequestUsage(
                _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
            ),
            cached=False,
            thought=message.get("reasoning_content"),
            cached_tokens=_count(details.get("cached_tokens")),
            refusal=valid_text(message.get("refusal") or "") or None,
            served_model=valid_text(answer.get("model") or "") or None,
            first_token=_first_token(choice.get("logprobs")),
        )
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError):
        return UnusableAnswer(f"{where} sent an answer that is not a chat completion.", NOT_OPENAI)


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """The most likely first tokens. Tokens of the same text, such as bytes, are added up."""
    content = (logprobs or {}).get("content")
    if not content:
        return None
    sums: dict[str, float] = {}
    if not content[0].get("top_logprobs"):
        return None
    for token in content[0]["top_logprobs"]:
        text, logprob = valid_text(token["token"]), float(token["logprob"])
        chance = math.exp(min(0.0, logprob)) if logprob == logprob else 0.0  # not NaN
        sums[text] = sums.get(text, 0.0) + chance
    return {text: math.log(share) for text, share in sums.items() if share > 0}


def valid_text(text: str) -> str:
    """Text that can be encoded: half characters, as of an emoji that was cut off, are replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _count(number: Any) -> int:
    """A number of tokens, within bounds that can be stored."""
    return min(max(0, int(number or 0)), _MOST_TOKENS)
