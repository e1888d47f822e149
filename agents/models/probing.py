"""What a model at an endpoint takes: found out once, by probes, and shared by all of its calls.

An error may quote the prompt, so its words prove nothing about the endpoint: a prompt that speaks
of `response_format` must not take the schema from all others. Before anything is concluded from an
error that would concern every prompt, the same request is sent with a prompt of our own: a probe.
If it succeeds, the error concerns the one prompt. If it fails, its error is about the endpoint:
then other forms of the request are tried, likeliest first, until the endpoint takes one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from agents.models.adaptation import Adaptation
from agents.models.config import EndpointConfig
from agents.models.dialects import Meaning
from agents.models.errors import (
    EndpointError,
    EndpointMisconfigured,
    EndpointOverloaded,
    RequestRejected,
    RequestUnsupported,
)
from agents.models.failure import without_reply
from agents.models.response import EndpointResult

Result: TypeAlias = EndpointResult | EndpointError
Send: TypeAlias = Callable[[Adaptation, dict[str, Any], list[LLMMessage]], Awaitable[Result]]
"""Sends a request, changed by an adaptation."""

PROBE: list[LLMMessage] = [
    SystemMessage(content="You test a connection. Answer in JSON."),
    UserMessage(content='Answer with the JSON object {"text": "ok"}.', source="user"),
]
PROBE_TOKENS = 16
_MOST_PROBES = 24  # in search of a form that the endpoint takes


class Profile:
    """What one model at one endpoint takes.

    Args:
        config: Of the endpoint.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.adaptation = Adaptation.configured(config)
        """How requests are changed for it, as far as is known."""
        self._fallback = config.json_fallback
        self._accepted: set[tuple[Any, ...]] = set()
        self._accepted_at = float("-inf")
        self._rejected: tuple[float, EndpointError] | None = None
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    def accepted(self, adaptation: Adaptation, body: Mapping[str, Any], sent_at: float) -> None:
        """Notes that a request was accepted that was sent then, in the event loop's time."""
        self._accepted.add(_form(adaptation, body))
        self._accepted_at = max(self._accepted_at, sent_at)

    async def examine(
        self,
        error: EndpointError,
        adaptation: Adaptation,
        body: dict[str, Any],
        sent_at: float,
        send: Send,
    ) -> Result | None:
        """Finds out whether an error concerns one prompt or all.

        Args:
            error: What a request was answered.
            adaptation: How the request was changed.
            body: The request without its messages, before that.
            sent_at: When it was sent, in the event loop's time.
            send: Sends a probe.

        Returns:
            The result or error that it amounts to; None if the request is to be repeated, since the
            endpoint takes it in another form.
        """
        if not _may_concern_all(error):
            return error
        about_form = isinstance(error, RequestRejected)
        if about_form and _form(adaptation, body) in self._accepted:
            return _of_one_prompt(error)
        loop = asyncio.get_running_loop()
        async with self._locks.setdefault(loop, asyncio.Lock()):
            if adaptation != self.adaptation:
                return None  # another call has found the form meanwhile
            known = (
                _form(adaptation, body) in self._accepted
                if about_form
                else (self._accepted_at >= sent_at)
            )
            if known:
                return _of_one_prompt(error)
            if self._rejected is not None and self._rejected[0] >= sent_at:
                return self._rejected[1]  # another call has just found it out
            now = loop.time()
            result = await _probe(adaptation, body, send)
            if result is None:
                self.accepted(adaptation, body, now)
                return _of_one_prompt(error)
            if isinstance(result, RequestRejected):
                result = await self._search(result, body, send)
            if isinstance(result, EndpointMisconfigured):
                self._rejected = (now, result)
            return result  # about the endpoint, or for now

    async def _search(
        self, error: RequestRejected, body: dict[str, Any], send: Send
    ) -> EndpointError | None:
        """Looks for a form of the request that the endpoint takes; its error if there is none."""
        first, current, said, probes = error, self.adaptation, error.said, 0
        tried = {current}
        progress = True
        while progress and said is not None:
            progress = False
            for candidate in current.candidates(said, body, self._fallback):
                if candidate in tried or probes >= _MOST_PROBES:
                    continue
                tried.add(candidate)
                probes += 1
                now = asyncio.get_running_loop().time()
                result = await _probe(candidate, body, send)
                if result is None:
                    self.adaptation = candidate
                    self.accepted(candidate, body, now)
                    return None
                if not isinstance(result, RequestRejected) or result.said is None:
                    return result
                if _gist(result) != _gist(error):
                    # It objects to something else now: one step further.
                    current, said, error, progress = candidate, result.said, result, True
                    break
        return _unsupported(first, self._fallback)


def _form(adaptation: Adaptation, body: Mapping[str, Any]) -> tuple[Any, ...]:
    """What endpoints may object to in a request, whatever its prompt."""
    schema = (body.get("response_format") or {}).get("json_schema") or {}
    values = [(name, body[name]) for name in ("temperature", "top_p") if name in body]
    return (adaptation, frozenset(body), schema.get("name"), *values)


def _may_concern_all(error: EndpointError) -> bool:
    """Whether an error would concern every prompt, if only because of words in it."""
    if not isinstance(error, EndpointMisconfigured | RequestRejected) or error.said is None:
        return False
    return error.said.status not in (401, 402) and not 300 <= error.said.status < 400


def _of_one_prompt(error: EndpointError) -> Result:
    """What an error amounts to that other prompts do not get."""
    said = error.said
    if said is None:
        return error
    if said.names_filter or said.status in (403, 451):
        return without_reply("content_filter")
    rejected: EndpointError
    if said.status >= 500:
        rejected = EndpointOverloaded(error.cause, error.remedy, said.status)
    else:
        rejected = RequestRejected(
            f"{error.cause.rstrip('.')} (other prompts are accepted).", error.remedy
        )
    rejected.said = said
    return rejected


async def _probe(adaptation: Adaptation, body: dict[str, Any], send: Send) -> EndpointError | None:
    """The error that the endpoint answers to a prompt of our own; None if it accepts it."""
    short = {
        name: PROBE_TOKENS if name in ("max_tokens", "max_completion_tokens") else value
        for name, value in body.items()
    }
    result = await send(adaptation, short, PROBE)
    if isinstance(result, EndpointResult):
        return None
    return result


def _gist(error: EndpointError) -> tuple[str, ...]:
    """What an error says, without numbers, which may differ each time."""
    said = error.said
    return () if said is None else (*said.codes, re.sub(r"\d+|\b[0-9a-f]{8,}\b", "", said.message))


def _unsupported(error: RequestRejected, fallback: bool) -> RequestUnsupported:
    said = error.said
    remedy = "Leave out what it does not take: params: {drop: [NAME]} in the models file."
    if said is not None and said.meaning is Meaning.SCHEMA and not fallback:
        remedy = "Set json_as to json_object or text in the models file, or json_fallback to true."
    found = RequestUnsupported(error.cause, remedy)
    found.said = said
    return found


_PROFILES: dict[EndpointConfig, Profile] = {}


def profile_of(config: EndpointConfig) -> Profile:
    """The profile that all clients of this configuration in this process share."""
    if config not in _PROFILES:
        _PROFILES[config] = Profile(config)
    return _PROFILES[config]


def forget_profiles() -> None:
    """Forgets what was learned, as when another server now listens at the same address."""
    _PROFILES.clear()
