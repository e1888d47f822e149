"""What a run does with each of its prompts: the part that differs between records and pairs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, Protocol, TypeAlias

from autogen_agentchat.messages import BaseChatMessage

from agents.models.model import Model
from orchestration.chat import DeliberationChat
from orchestration.journal import Journal
from orchestration.journal.calls import shaping
from orchestration.journal.schema import Waiting
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord, Kept, Outcome
from orchestration.serialize import Serializer
from orchestration.thread import Message

Wrap: TypeAlias = Callable[[Model], Model]
"""Applied to every model that an agent is given."""
Change: TypeAlias = Callable[[sqlite3.Connection], None]
"""What is committed together with a prompt's record."""
BrokeOff: TypeAlias = tuple[Outcome, str]
"""Outcome and reason, if something broke a chat off."""
Fingerprints: TypeAlias = dict[str, dict[str, str]]
"""Hashes of the settings' parts by kind and name, so that it can be said which has changed."""


@dataclass(frozen=True)
class Chat:
    """One prompt's chat, and what its messages are made into."""

    team: DeliberationChat | None
    """None where nothing is to be said: the record says why."""
    task: str | Sequence[BaseChatMessage]
    record: Callable[[Sequence[Message], str | None, datetime, BrokeOff | None], Kept]
    """From what was said, the stop reason, when the chat began and what broke it off."""
    keep: Callable[[Any], Change | None] = lambda _: None
    """What else is to be committed with the record."""


Kind: TypeAlias = Literal["records", "pairs"]
"""What a run makes."""


class Job(Protocol):
    """Makes the chats of a run."""

    @property
    def kind(self) -> Kind:
        """What the run makes."""

    @property
    def name(self) -> str:
        """Name of the recipe."""

    @property
    def models_in_use(self) -> list[Model]:
        """The models that may be called, each once."""

    def settings(self) -> dict[str, Any]:
        """Everything that determines what the run gives, in full; without keys."""

    def fingerprints(self) -> Fingerprints:
        """Hashes of the settings' parts."""

    def settled(self, changed: dict[str, list[str]]) -> Change:
        """What is to be done in the journal before chats begin.

        Args:
            changed: What of the settings is other than when the run was last started.
        """

    async def open(self, journal: Journal) -> None:
        """Called once the settings are those of the run, before the first chat."""

    async def chat(self, waiting: Waiting, wrap: Wrap) -> Chat | None:
        """The chat of one prompt; None if there can be none now."""

    def close(self) -> None:
        """Lets go of what it has open. May be called twice."""


class Deliberations:
    """Deliberates over prompts; makes CoT records.

    Args:
        cast: Who takes part.
    """

    kind: Kind = "records"

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self._serializer = Serializer(cast)

    @property
    def name(self) -> str:
        """See `Job`."""
        return self.cast.recipe.name

    @property
    def models_in_use(self) -> list[Model]:
        """See `Job`."""
        return self.cast.models_in_use

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        cast = self.cast
        return {
            "policies": cast.policy_set.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
        }

    def fingerprints(self) -> Fingerprints:
        """See `Job`."""
        return fingerprints(self.settings(), self.models_in_use)

    def settled(self, changed: dict[str, list[str]]) -> Change:
        """Nothing."""
        return lambda _: None

    async def open(self, journal: Journal) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""

    async def chat(self, waiting: Waiting, wrap: Wrap) -> Chat:
        """See `Job`."""
        return self.about(Prompt(waiting.id, waiting.text, waiting.metadata), wrap)

    def about(self, prompt: Prompt, wrap: Wrap = lambda model: model) -> Chat:
        """The chat about a prompt that may be in no journal."""

        def record(
            messages: Sequence[Message],
            stop_reason: str | None,
            started: datetime,
            broke_off: BrokeOff | None,
        ) -> CoTRecord:
            return self._serializer.record(prompt, messages, stop_reason, started, broke_off)

        return Chat(self.cast.make_chat(wrap), prompt.text, record)


def fingerprints(settings: dict[str, Any], models: Sequence[Model]) -> Fingerprints:
    """Hashes of the parts that all kinds of runs have.

    Args:
        settings: With `policies`, `recipe` and `personas`.
        models: Those that may be called.
    """
    policies = dict(settings["policies"])
    parts = {
        "policies": {p["id"]: p for p in policies.pop("policies")} | {"the set": policies},
        "recipe": {settings["recipe"]["name"]: settings["recipe"]},
        "personas": settings["personas"],
        "models": {model.name: shaping(model) for model in models},
    }
    return {kind: {n: fingerprint(part) for n, part in of.items()} for kind, of in parts.items()}


def fingerprint(part: Any) -> str:
    """A hash of anything that JSON holds."""
    return blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=8).hexdigest()
