"""`Adaptation`: how requests are changed for an endpoint that does not take them as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from agents.models.config import EndpointConfig, JsonMode
from agents.models.dialects import RENAMED, Meaning, Said
from agents.models.preencoded_json import PreencodedJson
from agents.models.request import is_openai

_SIMPLER: dict[JsonMode, JsonMode] = {"json_schema": "json_object", "json_object": "text"}
_NEVER_DROPPED = frozenset({"model", "messages", "logprobs", "top_logprobs", "response_format"})
"""Without these, a reply would not be what was asked for."""
_DROPPED_FIRST = ("seed", "temperature", "top_p")


@dataclass(frozen=True)
class Adaptation:
    """Changes to requests; all of them are named in the records of the replies."""

    json_as: JsonMode = "json_schema"
    """How JSON is requested."""
    drop: frozenset[str] = frozenset()
    """Parameters that are left out."""
    rename: frozenset[tuple[str, str]] = frozenset()
    """Parameters that are sent under another name: old and new ones."""
    keywords: frozenset[str] = frozenset()
    """Keywords that are left out of schemas; replies are checked by parsing anyway."""
    merge_system: bool = False
    """Whether the system prompt is put in front of the user's first message."""
    stream: bool = False
    """Whether replies are streamed."""

    @classmethod
    def configured(cls, config: EndpointConfig) -> Adaptation:
        """What a model's configuration says; and what is known of OpenAI's own service."""
        own = cls(
            json_as=config.json_as,
            drop=frozenset(config.params.drop),
            rename=frozenset(config.params.rename.items()),
        )
        if not is_openai(config.base_url):
            return own
        # Strict schemas of OpenAI have no string lengths, and `max_tokens` was renamed there.
        renamed = {"max_tokens": RENAMED["max_tokens"], **config.params.rename}
        return replace(
            own,
            rename=frozenset(renamed.items()),
            keywords=frozenset({"minLength", "maxLength"}),
        )

    @cached_property
    def _names(self) -> dict[str, str]:
        return dict(self.rename)

    def apply(
        self, body: dict[str, Any], messages: Sequence[LLMMessage]
    ) -> tuple[dict[str, Any], Sequence[LLMMessage]]:
        """A request as the endpoint takes it.

        Args:
            body: The request without its messages.
            messages: Its messages.
        """
        body = {
            self._names.get(name, name): value
            for name, value in body.items()
            if name not in self.drop
        }
        if "response_format" in body:
            self._request_json(body)
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
            for name in self.drop:
                body.pop(name, None)
        return body, _merged(messages) if self.merge_system else messages

    def _request_json(self, body: dict[str, Any]) -> None:
        form = body["response_format"]
        requested = form.get("type")
        if self.json_as == "text":
            del body["response_format"]
        elif self.json_as == "json_object" and requested == "json_schema":
            body["response_format"] = {"type": "json_object"}
        elif self.json_as == "llguidance" and requested == "json_schema":
            del body["response_format"]
            body["grammar"] = _grammar(form["json_schema"]["schema"])
        elif self.keywords:
            form = form if isinstance(form, PreencodedJson) else PreencodedJson(form)
            body["response_format"] = form.without(self.keywords)

    def notes(self, body: Mapping[str, Any]) -> tuple[str, ...]:
        """What was changed of a request, in words, except for how JSON was requested."""
        found = [f"without {name}" for name in sorted(self.drop & body.keys())]
        found += [f"{old} as {new}" for old, new in sorted(self.rename) if old in body]
        if "response_format" in body and self.json_as == "json_schema":
            found += [f"schema without {name}" for name in sorted(self.keywords)]
        if self.merge_system:
            found.append("system prompt in the user's message")
        return (*found, "streamed") if self.stream else tuple(found)

    def candidates(
        self, said: Said, body: Mapping[str, Any], fallback: bool
    ) -> Iterator[Adaptation]:
        """Other adaptations that an endpoint may take, the likeliest first.

        Args:
            said: What it says of a request that was changed in this way.
            body: The request as it would be without any change.
            fallback: Whether simpler modes of JSON may be tried.
        """
        sent = {self._names.get(name, name): name for name in body if name not in self.drop}
        meaning = said.meaning
        if meaning is Meaning.STREAM and not self.stream:
            yield replace(self, stream=True)
        if meaning is Meaning.SYSTEM and not self.merge_system:
            yield replace(self, merge_system=True)
        for name in said.named(sent):
            yield from self._without(sent[name])
        if meaning is Meaning.SCHEMA:
            yield from self._simpler(said, body, fallback)
        # It does not say what it objects to: one change after the other.
        names = sorted(sent, key=lambda n: (*(n != first for first in _DROPPED_FIRST), n))
        for name in names:
            yield from self._without(sent[name])
        yield from self._simpler(said, body, fallback)
        if not self.merge_system:
            yield replace(self, merge_system=True)
        if not self.stream:
            yield replace(self, stream=True)
        bare = replace(self, drop=self.drop | (frozenset(body) - _NEVER_DROPPED))
        yield bare
        yield from bare._simpler(said, body, fallback)

    def _without(self, name: str) -> Iterator[Adaptation]:
        if name in RENAMED and name not in self._names:
            yield replace(self, rename=self.rename | {(name, RENAMED[name])})
        if name not in _NEVER_DROPPED:
            yield replace(self, drop=self.drop | {name})

    def _simpler(self, said: Said, body: Mapping[str, Any], fallback: bool) -> Iterator[Adaptation]:
        form = body.get("response_format")
        if form is None:
            return
        if self.json_as == "json_schema":
            used = PreencodedJson(form).keywords - self.keywords
            named = frozenset(said.named(dict.fromkeys(used)))
            for left_out in filter(None, (named, used)):
                yield replace(self, keywords=self.keywords | left_out)
        simpler = self.json_as
        while fallback and simpler in _SIMPLER:
            simpler = _SIMPLER[simpler]
            yield replace(self, json_as=simpler)


def _grammar(schema: Mapping[str, Any]) -> str:
    """Asks llama.cpp for compact JSON.

    Its own handling of `response_format` lets a model write any white space, and a code fence
    around the object. A small model then spends half of its tokens on them, and tokenizes them
    differently than the next prompt does, so that the prefix cache misses every reply.
    """
    compact = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return f"%llguidance {{}}\nstart: %json {json.dumps({**schema, 'x-guidance': compact})}"


def _merged(messages: Sequence[LLMMessage]) -> list[LLMMessage]:
    """Messages of users and assistants in turn, the system prompt in front of the first one."""
    merged: list[LLMMessage] = []
    for message in messages:
        if isinstance(message, SystemMessage):
            message = UserMessage(content=message.content, source="user")
        last = merged[-1] if merged else None
        if isinstance(last, UserMessage) and isinstance(message, UserMessage):
            merged[-1] = UserMessage(content=f"{last.content}\n\n{message.content}", source="user")
        else:
            merged.append(message)
    return merged
