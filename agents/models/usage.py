"""Tokens that calls have used."""

from __future__ import annotations

from pydantic import BaseModel


class Usage(BaseModel, extra="forbid"):
    """Tokens, as the endpoint counts them."""

    prompt_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    completion_tokens: int = 0
    """Tokens of the reply."""
    cached_tokens: int = 0
    """Tokens of the prompt that the endpoint's prefix cache served; 0 where it does not say."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
        )
