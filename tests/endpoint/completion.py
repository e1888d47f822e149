"""Builds the JSON of a chat completion: content, usage and what a fault does to them."""

import json
import math
import re
from collections.abc import Mapping
from itertools import islice
from random import Random
from typing import Any

from tests.endpoint.faults import Fault
from tests.endpoint.schema_reply import SchemaError, draw_instance, draw_words

REFUSAL = "I'm sorry, but I can't help with that."
CREATED = 1_700_000_000
"""`created` of every reply: a clock would make equal requests get different replies."""

_CACHE_LIMIT = 500_000


class PrefixCache:
    """Models an endpoint's prefix cache by whole messages, for each model name."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def count_tokens(self, model: str, messages: list[Any]) -> tuple[int, int]:
        """Return (prompt tokens, cached tokens), and remember the messages for later calls."""
        if len(self._seen) > _CACHE_LIMIT:
            self._seen.clear()  # A full cache starts over, so that long benchmarks stay small.
        prompt = cached = 0
        prefix = hash(model)
        for message in messages:
            text = json.dumps(message, sort_keys=True)
            tokens = count_tokens(text)
            # Hashes are chained: equal to an earlier one only if all messages before are equal.
            prefix = hash((prefix, text))
            prompt += tokens
            if prefix in self._seen:
                cached += tokens
            self._seen.add(prefix)
        return prompt, cached


def count_tokens(text: str) -> int:
    """Return the number of words in `text`, which stand for tokens."""
    return len(text.split())


def draw_content(body: Mapping[str, Any], rng: Random) -> str:
    """Return the content that `body` asks for: an instance of its schema, JSON or words.

    Raises:
        SchemaError: The request's schema is missing or unsupported.
    """
    wanted = body.get("response_format") or {}
    match wanted.get("type", "text"):
        case "json_schema":
            named = wanted.get("json_schema")
            schema = named.get("schema") if isinstance(named, dict) else None
            if not isinstance(schema, dict):
                raise SchemaError("response_format.json_schema.schema is missing")
            return json.dumps(draw_instance(schema, rng))
        case "json_object":
            return json.dumps({"answer": draw_words(rng, 3, 12)})
        case "text":
            return draw_words(rng, 8, 40)
        case other:
            raise SchemaError(f"unknown response_format type: {other!r}")


def cut_to_limit(content: str, body: Mapping[str, Any]) -> tuple[str, str]:
    """Return (content, finish_reason), cut to the request's `max_tokens` words if it has any."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if not limit or count_tokens(content) <= limit:
        return content, "stop"
    *_, last = islice(re.finditer(r"\S+", content), limit)
    return content[: last.end()], "length"


def answer_with_logprobs(content: str, most: int) -> tuple[str, dict[str, Any]]:
    """Return (content, logprobs) of a reply whose first token is all that is asked for.

    Content that is a JSON object of numbers is a script: the probability of each token. Of any
    other the first word is certain.
    """
    try:
        chances = json.loads(content)
    except ValueError:
        chances = None
    if not isinstance(chances, dict):
        first = content.split()[0] if content.split() else ""
        chances = {first: 1.0}
    ranked = sorted(chances.items(), key=lambda item: -item[1])
    listed = [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in ranked]
    return ranked[0][0], {"content": [{**listed[0], "top_logprobs": listed[:most]}]}


def build_completion(
    body: Mapping[str, Any], content: str, fault: Fault | None, reply_id: str, cache: PrefixCache
) -> dict[str, Any]:
    """Return the completion that carries `content`, or what `fault` makes of it."""
    logprobs = None
    if body.get("logprobs"):
        content, logprobs = answer_with_logprobs(content, body.get("top_logprobs") or 0)
    content, finish_reason = cut_to_limit(content, body)
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    match fault:
        case Fault.LENGTH:
            message["content"], finish_reason = content[: len(content) // 2], "length"
        case Fault.EMPTY_CONTENT:
            message["content"] = ""
        case Fault.CONTENT_FILTER:
            message["content"], finish_reason = "", "content_filter"
        case Fault.REFUSAL:
            message["content"] = REFUSAL
        case Fault.REFUSAL_FIELD:
            message["content"], message["refusal"] = None, REFUSAL
    prompt, cached = cache.count_tokens(body["model"], body["messages"])
    completed = count_tokens(message["content"] or message["refusal"] or "")
    completion = {
        "id": f"chatcmpl-{reply_id}",
        "object": "chat.completion",
        "created": CREATED,
        "model": body["model"],
        "choices": [
            {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completed,
            "total_tokens": prompt + completed,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    if fault is Fault.WRONG_SHAPE:
        del completion["choices"]
    return completion
