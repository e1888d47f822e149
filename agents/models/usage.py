"""Tokens that calls have used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

BYTES_PER_TOKEN = 4
"""What is taken where an endpoint counts no tokens: about right for English, too many for the
scripts that take several bytes a character."""
_MOST_TOKENS = 10**8  # of one call; more is no count


class Usage(BaseModel, extra="forbid", frozen=True):
    """Tokens, as the endpoint counts them."""

    prompt_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    completion_tokens: int = 0
    """Tokens of the reply, those of its reasoning included."""
    cached_tokens: int = 0
    """Tokens of the prompt that the endpoint's prefix cache served; 0 where it does not say."""
    estimated_tokens: int = 0
    """How many of the tokens of prompt and reply are an estimate, since the endpoint does not count
    them."""

    @property
    def tokens(self) -> int:
        """Of prompt and reply together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            estimated_tokens=self.estimated_tokens + other.estimated_tokens,
        )


NO_USAGE = Usage()
"""None at all; shared, since it cannot be changed."""


def estimate_tokens(size: int) -> int:
    """The tokens of a text of so many bytes."""
    return math.ceil(size / BYTES_PER_TOKEN)


def read_usage(usage: Any, prompt_bytes: Callable[[], int], reply_bytes: int) -> Usage:
    """The usage that a chat completion states, made plausible; what it does not state is estimated.

    Args:
        usage: Its `usage` field, of any shape.
        prompt_bytes: Gives the size of the request, if it is needed.
        reply_bytes: Size of the reply and its reasoning.
    """
    stated = usage if isinstance(usage, dict) else {}
    prompt = _count(stated, "prompt_tokens", "input_tokens")
    completion = _count(stated, "completion_tokens", "output_tokens")
    total = _count(stated, "total_tokens")
    details = stated.get("prompt_tokens_details")
    cached = _count(details if isinstance(details, dict) else {}, "cached_tokens")
    if cached is None:
        # DeepSeek's and Anthropic's names
        cached = _count(stated, "prompt_cache_hit_tokens", "cache_read_input_tokens")
    cached = cached or 0
    estimated = 0
    if prompt is None or (prompt == 0 and not cached):
        prompt = max(estimate_tokens(prompt_bytes()), cached)
        estimated += prompt
    if completion is None or (completion == 0 and reply_bytes > 0):
        completion = estimate_tokens(reply_bytes)
        estimated += completion
    if cached > prompt:
        prompt += cached  # gateways in front of Anthropic count the cached ones apart
    if total is not None and not estimated:
        # Where reasoning is billed and not among the reply's tokens, the total shows it.
        completion = max(completion, total - prompt)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        estimated_tokens=estimated,
    )


def _count(stated: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that is a plausible number of tokens."""
    for name in names:
        value = stated.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            number = float(value)
        except ValueError:
            continue
        if 0 <= number <= _MOST_TOKENS and number.is_integer():  # neither NaN nor infinite
            return int(number)
    return None
