"""Responses of the OpenAI protocol: reading a chat completion in the shapes that it comes in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autogen_core.models import CreateResult, LLMMessage, RequestUsage

from agents.models.dialects import ending
from agents.models.errors import UnusableAnswer
from agents.models.preencoded_json import PreencodedJson
from agents.models.usage import NO_USAGE, Usage, read_usage

_REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""Fields of a message that hold a model's thinking."""


class EndpointResult(CreateResult):
    """A `CreateResult` with what AutoGen's leaves out."""

    tokens: Usage = NO_USAGE
    """Tokens of prompt and reply."""
    refusal: str | None = None
    """The `refusal` field of the message, where the endpoint has one."""
    served_model: str | None = None
    """The model that the endpoint says it used."""
    attempts: int = 1
    """Requests that were needed."""
    json_as: str | None = None
    """The mode in which JSON was requested."""
    adapted: tuple[str, ...] = ()
    """What else was changed of the request, since the endpoint does not take it as it is."""
    first_token: dict[str, float] | None = None
    """Log probabilities of the most likely first tokens, where the endpoint returns them."""
    billed: Usage = NO_USAGE
    """Tokens of further answers to the call, which could not be used."""
    unusable: int = 0
    """How many these were."""
    abandoned: int = 0
    """Attempts of the call that timed out, which the endpoint may have billed."""
    is_completion: bool = True
    """Whether the endpoint accepted the request; not if its filter rejected the prompt."""


def request_size(body: Mapping[str, Any], messages: Sequence[LLMMessage]) -> int:
    """Bytes of a request, about, for an estimate of its tokens."""
    form = body.get("response_format")
    schema = len(form.text) if isinstance(form, PreencodedJson) else 0
    return schema + sum(len(str(message.content).encode()) + 16 for message in messages)


def read_completion(
    answer: Any, where: str, prompt_bytes: Callable[[], int]
) -> EndpointResult | UnusableAnswer:
    """The first choice of a chat completion.

    Args:
        answer: The parsed body.
        where: The endpoint, as messages name it.
        prompt_bytes: Gives the size of the request, if it is needed.

    Returns:
        The result; or the error, if it is not a chat completion. Its `billed` tells what it cost.
    """
    usage = answer.get("usage") if isinstance(answer, dict) else None
    try:
        choices = answer["choices"]
        if choices == []:
            # How Gemini and others answer a prompt that their filters block.
            choices = [{"message": {}, "finish_reason": "content_filter"}]
        choice = choices[0]
        message = choice["message"]
        thinking = _thinking(message)
        content = _text(message.get("content")) or _arguments(message)
        finish = ending(choice.get("finish_reason"))
        refusal = valid_text(_text(message.get("refusal"))) or None
        if not content and not refusal and finish == "stop":
            content = thinking  # some servers put all that a reasoning model says there
        tokens = read_usage(usage, prompt_bytes, len((content + thinking).encode(errors="replace")))
        return EndpointResult(
            content=valid_text(content),
            finish_reason=finish,
            usage=RequestUsage(tokens.prompt_tokens, tokens.completion_tokens),
            cached=False,
            thought=valid_text(thinking) or None,
            tokens=tokens,
            refusal=refusal,
            served_model=valid_text(str(answer.get("model") or "")) or None,
            first_token=_first_token(choice.get("logprobs")),
        )
    except (TypeError, KeyError, IndexError, AttributeError, ValueError, OverflowError):
        error = UnusableAnswer(
            f"{where} sent an answer that is not a chat completion.",
            "Check that the address is that of an OpenAI-compatible API.",
        )
        if isinstance(usage, dict):
            error.billed = read_usage(usage, prompt_bytes, 0)
        return error


def _thinking(message: Mapping[str, Any]) -> str:
    for name in _REASONING:
        try:
            text = _text(message.get(name))
        except TypeError:
            continue  # it is of no further use, whatever its shape
        if text:
            return text
    return ""


def _text(content: Any) -> str:
    """Text that comes as such, or as a list of parts; parts that hold thinking are left out."""
    if isinstance(content, str):
        return content
    if isinstance(content, dict):
        return _text(content.get("text") or content.get("content"))
    if isinstance(content, list):
        said = [part for part in content if not _is_thinking(part)]
        return "".join(map(_text, said))
    if content is None:
        return ""
    raise TypeError(type(content).__name__)


def _is_thinking(part: Any) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    return str(kind) in ("thinking", "reasoning", "reasoning_text", "redacted_thinking")


def _arguments(message: Mapping[str, Any]) -> str:
    """The arguments of the first tool call, as which some servers return JSON."""
    calls = message.get("tool_calls")
    function = calls[0].get("function") if calls else message.get("function_call")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    return json.dumps(arguments) if isinstance(arguments, dict) else _text(arguments)


def join_stream(text: str) -> dict[str, Any] | None:
    """The chat completion that a stream of server-sent events adds up to; None if it is no stream.

    An error among the events is returned as such.
    """
    whole: dict[str, Any] = {}
    message: dict[str, Any] = {"role": "assistant", "content": ""}
    choice: dict[str, Any] = {"index": 0, "message": message}
    for line in text.splitlines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if not data or data == "[DONE]":
            continue
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            return None
        if not isinstance(event, dict):
            return None
        if event.get("error"):
            return event
        _join_event(event, whole, choice, message)
    return whole | {"choices": [choice]} if whole else None


def _join_event(
    event: dict[str, Any], whole: dict[str, Any], choice: dict[str, Any], message: dict[str, Any]
) -> None:
    whole |= {name: event[name] for name in ("id", "model", "usage") if event.get(name)}
    whole.setdefault("id", "")
    choices = event.get("choices")
    part = choices[0] if isinstance(choices, list) and choices else {}
    delta = part.get("delta") or part.get("message") or {}
    for name in ("content", "refusal", *_REASONING):
        if delta.get(name):
            said = _text(delta[name])
            message[name] = f"{message.get(name) or ''}{said}"
    if part.get("finish_reason"):
        choice["finish_reason"] = part["finish_reason"]
    if part.get("logprobs") and "logprobs" not in choice:
        choice["logprobs"] = part["logprobs"]


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
