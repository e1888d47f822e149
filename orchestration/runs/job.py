"""What differs between the kinds of runs: how a prompt becomes a chat, and a chat a result."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from autogen_agentchat.messages import BaseChatMessage
from rich.console import Console

from agents.models.model import ChatModel, Model
from orchestration.chat import DeliberationChat
from orchestration.chat.cast import BaseCast
from orchestration.chat.thread import Message
from orchestration.journal import Journal, PendingPrompt, Transaction
from orchestration.runs.export import ExportOptions
from orchestration.runs.replay import shaping
from orchestration.runs.result import Interruption, RunResult

ResultT = TypeVar("ResultT", bound=RunResult)
WrapModel: TypeAlias = Callable[[ChatModel], ChatModel]
"""Applied to every model that an agent is given."""
Fingerprints: TypeAlias = dict[str, dict[str, str]]
"""Hashes of the parts of the settings, by group and name, so that changes can be named."""
Tallies: TypeAlias = dict[str, dict[str, int]]
"""Counts of results by title and value, such as `stopped_by`: `consensus`: 12."""


class ChatTask(ABC, Generic[ResultT]):
    """One prompt's chat, and how its messages become a result."""

    team: DeliberationChat | None
    """None if nothing is to be said: the result says why."""
    task: str | Sequence[BaseChatMessage]
    """The task of the team."""

    @abstractmethod
    def result(
        self,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        interruption: Interruption | None = None,
    ) -> ResultT:
        """The result of the chat.

        Args:
            messages: All messages, the task first.
            stop_reason: That of the chat's `TaskResult`; None if the chat did not end.
            started: When the chat began, in UTC.
            interruption: Outcome and reason, if the chat was interrupted.
        """

    def store_with(self, result: ResultT, transaction: Transaction) -> None:
        """Stores what else must be committed together with the result."""
        return


class Job(ABC):
    """Makes the chats of a run."""

    kind: Kind[Any]
    """What the run makes."""
    cast: BaseCast
    """Who takes part."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that determines the results, in full; without keys."""

    @abstractmethod
    def fingerprints(self) -> Fingerprints:
        """Hashes of the parts of the settings."""

    def prepare(self, changed: Mapping[str, list[str]], transaction: Transaction) -> None:
        """Changes the journal before chats begin, where parts of the settings have changed."""
        return

    async def open(self, journal: Journal) -> None:
        """Called before the first chat, once the settings are those of the run."""
        return

    @abstractmethod
    async def chat(self, prompt: PendingPrompt, wrap: WrapModel) -> ChatTask[Any] | None:
        """The chat of a prompt; None if there can be none at present."""

    def close(self) -> None:
        """Closes what it opened. May be called twice."""
        return


class Kind(ABC, Generic[ResultT]):
    """A kind of run: what it makes, and how that is counted, read, shown and exported.

    `show_unsafe` and `unsafe` are whether to include text that was made bad on purpose.
    """

    name: str
    """What its results are called, in the plural; also in the journal."""
    columns: tuple[str, ...]
    """Heads of `cells`."""
    formats: ClassVar[Mapping[str, str]]
    """Export formats: names, the default first, and descriptions; no two kinds share a name."""
    subfolder: str | None = None
    """Where its runs are inside another run that they are made of; None if they are not."""
    command: str
    """The command that makes its runs."""
    changes_note: str
    """What changed settings mean for a run that is resumed; ends the sentence on replies."""
    unsafe_text: str = ""
    """What its results hold that was made bad on purpose, in a few words; empty if nothing is."""
    export_warning: str = ""
    """What not to do with exported results."""

    @abstractmethod
    def read(self, text: str) -> ResultT:
        """A result from its JSON; a ValueError (such as pydantic's) if it is not one."""

    @abstractmethod
    def tallies(self, endings: Mapping[str, int]) -> Tallies:
        """Counts of the completed results, from the journal's counts by ending."""

    @abstractmethod
    def lines(
        self, read: Callable[[], Iterable[ResultT]], form: str, options: ExportOptions
    ) -> Iterator[str]:
        """Completed results as JSON lines, without line breaks.

        Args:
            read: Reads the results from the beginning; may be called more than once.
            form: One of `formats`.
            options: How to write them.

        Raises:
            InputError: An option does not apply to this kind.
        """

    @abstractmethod
    def load_job(self, folder: Path, settings: dict[str, Any], models: Mapping[str, Model]) -> Job:
        """The job of a run folder, from its `run.yaml`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: The settings are not as they were
                written.
        """

    @abstractmethod
    def next_steps(self, folder: str, tallies: Tallies) -> list[tuple[str, str]]:
        """What to do with the results of a run, by its folder in a shell: labels and commands."""

    @abstractmethod
    def cells(self, result: ResultT) -> list[str]:
        """A result's row in a list, without its id and prompt."""

    @abstractmethod
    def row(self, result: ResultT, unsafe: bool) -> dict[str, Any]:
        """A result as a flat row, for tables and data sets."""

    @abstractmethod
    def show(
        self, console: Console, result: ResultT, *, instructions: bool, show_unsafe: bool
    ) -> None:
        """Prints a result, turn by turn; with each agent's instruction, if `instructions`."""


def fingerprints(settings: dict[str, Any], models: Sequence[Model], section: str) -> Fingerprints:
    """Hashes of the parts of the settings that all kinds of runs have.

    Args:
        settings: With `policies`, `recipe`, `prompt_texts` and `personas`.
        models: Those that may be called.
        section: The section of the prompt texts that the run uses.
    """
    policies, texts = dict(settings["policies"]), settings["prompt_texts"]
    recipe = {k: v for k, v in settings["recipe"].items() if k != "prompts"}  # see prompt_texts
    parts = {
        "policies": {p["id"]: p for p in policies.pop("policies")} | {"the set": policies},
        "recipe": {recipe["name"]: recipe},
        "prompt_texts": {name: texts[name] for name in ("correction", section)},
        "personas": settings["personas"],
        "models": {model.name: shaping(model) for model in models},
    }
    return {group: {n: fingerprint(part) for n, part in of.items()} for group, of in parts.items()}


def fingerprint(part: Any) -> str:
    """A hash of JSON data."""
    return blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=8).hexdigest()
