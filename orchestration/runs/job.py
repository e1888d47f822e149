"""What differs between the kinds of runs: how a prompt becomes a chat, and a chat a result."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from autogen_agentchat.messages import BaseChatMessage
from rich.console import Console
from rich.text import Text

from agents.models.model import Model
from agents.persona import Persona
from agents.prompt_texts import read_prompts
from agents.turns import Turn
from orchestration.chat import DeliberationChat
from orchestration.chat.cast import BaseCast, WrapModel
from orchestration.chat.html import as_text
from orchestration.chat.view import TurnTexts, clean, plain
from orchestration.journal import Journal, PendingPrompt, Transaction
from orchestration.runs.export import Wrapping
from orchestration.runs.replay import shaping
from orchestration.runs.result import ChatEnd, RunResult
from policies import PolicySet

ResultT = TypeVar("ResultT", bound=RunResult)
Fingerprints: TypeAlias = dict[str, dict[str, str]]
"""Hashes of the parts of the settings, by group and name, so that changes can be named."""
UNSAFE_HINT = "--show-unsafe shows it"
Tallies: TypeAlias = dict[str, dict[str, int]]
"""Counts of results by title and value, such as `stopped_by`: `consensus`: 12."""


@dataclass(frozen=True)
class ChatTask(Generic[ResultT]):
    """One prompt's chat, and how its end becomes a result."""

    team: DeliberationChat | None
    """None if nothing is to be said: the result says why."""
    task: str | Sequence[BaseChatMessage]
    """The task of the team."""
    result: Callable[[ChatEnd], ResultT]
    """Makes the result; called again with an interruption if that raises an error."""
    store_with: Callable[[Transaction], None] = lambda _: None
    """Stores what else must be committed together with the result."""


class Job(ABC):
    """Makes the chats of a run."""

    kind: Kind[Any]
    """What the run makes."""
    cast: BaseCast
    """Who takes part."""

    def settings(self) -> dict[str, Any]:
        """Everything that determines the results, in full; without keys."""
        cast = self.cast
        own = cast.own_termination
        return {
            "policies": cast.own_policies.model_dump(mode="json"),
            "prompt_texts": cast.prompts.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
            **({} if own is None else {"termination": own}),
        }

    def fingerprints(self) -> Fingerprints:
        """Hashes of the parts of the settings."""
        cast, settings = self.cast, self.settings()
        section = cast.agent_type.section
        policies, texts = cast.policy_set.model_dump(mode="json"), settings["prompt_texts"]
        recipe = {k: v for k, v in settings["recipe"].items() if k != "prompts"}  # prompt_texts
        parts = {
            "policies": {p["id"]: p for p in policies.pop("policies")} | {"the set": policies},
            "recipe": {cast.recipe.name: recipe},
            "prompt_texts": {name: texts[name] for name in ("correction", section)},
            "personas": settings["personas"],
            "models": {model.name: shaping(model) for model in cast.models_in_use},
        }
        if cast.own_termination is not None:
            # Part of a group that every run has: so is noticed, too, that it is no longer set.
            parts["recipe"]["termination"] = cast.own_termination
        return {name: fingerprint_each(group) for name, group in parts.items()}

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


def stored_parts(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a cast that are stored alike in the settings of all kinds of runs."""
    return {
        "policy_set": PolicySet.model_validate(settings["policies"]),
        "personas": {n: Persona.model_validate(p) for n, p in settings["personas"].items()},
        "prompts": read_prompts(settings["prompt_texts"]),
    }


class Kind(ABC, Generic[ResultT]):
    """A kind of run: what it makes, and how that is counted, read, shown and exported.

    `show_unsafe` and `unsafe` are whether to include text that was made bad on purpose.
    """

    name: str
    """What its results are called, in the plural; also in the journal."""
    columns: ClassVar[Mapping[str, str]]
    """Heads of `cells`, and the fields of `row` that they hold."""
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

    def lines(self, results: Iterable[ResultT], form: str, wrapping: Wrapping) -> Iterator[str]:
        """Results that may be trained on, as JSON lines without line breaks.

        Args:
            results: Any results; others are left out.
            form: One of `formats`.
            wrapping: How thoughts are written, and put before the response.
        """
        for result in results:
            if self.is_usable(result):
                yield json.dumps(self.exported(result, form, wrapping), ensure_ascii=False)

    def is_usable(self, result: ResultT) -> bool:
        """Whether a result may be trained on."""
        return result.outcome == "completed"

    @abstractmethod
    def exported(self, result: ResultT, form: str, wrapping: Wrapping) -> dict[str, Any]:
        """A result in one of `formats`."""

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
    def row(self, result: ResultT, unsafe: bool) -> dict[str, Any]:
        """A result as a flat row, for tables and data sets; `open_run` describes the columns."""

    def cells(self, result: ResultT) -> list[str]:
        """A result's row in a list, without its id and prompt."""
        row = self.row(result, unsafe=False)
        return [_cell(row[name]) for name in self.columns.values()]

    @abstractmethod
    def origin(self, result: ResultT) -> str:
        """What a result was made with, for people."""

    def hidden(self, turn: Turn) -> str | None:
        """What is shown instead of a turn that holds or quotes unsafe text; None if it does not."""
        return None

    def show(
        self, console: Console, result: ResultT, *, instructions: bool, show_unsafe: bool
    ) -> None:
        """Prints a result, turn by turn; with each agent's instruction, if `instructions`."""
        head = plain(f"{result.id}  ", style="bold").append(clean(result.prompt))
        console.print(head, plain(self.origin(result), style="dim"), "", sep="\n")
        hide = (lambda _: None) if show_unsafe else self.hidden
        TurnTexts(instructions, hide).print(console, result.turns)
        self.show_end(console, result, show_unsafe)

    def show_end(self, console: Console, result: ResultT, show_unsafe: bool = False) -> None:
        """Prints what a chat has led to, without its turns."""
        console.print(Text(self.name.removesuffix("s"), style="bold underline"))
        _, *sections = result.sections(show_unsafe)  # without the prompt
        console.print(as_text(sections, show_unsafe, UNSAFE_HINT))


def _cell(value: Any) -> str:
    """A value in a list: a number of things, a number, or text."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(len(value) if isinstance(value, list) else value)


def fingerprint(part: Any) -> str:
    """A hash of JSON data."""
    return blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=8).hexdigest()


def fingerprint_each(parts: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of several, by their names."""
    return {name: fingerprint(part) for name, part in parts.items()}
