"""What a run of deliberations does with each prompt: a chat, a CoT record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from agents.deliberation.agents import DeliberationAgent
from agents.models.model import Model
from agents.persona import Persona
from agents.prompt_texts import read_prompts
from orchestration.chat.thread import Message
from orchestration.deliberation.export import export_lines
from orchestration.deliberation.recipe import Cast, Recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.view import print_transcript, record_row
from orchestration.journal import PendingPrompt
from orchestration.prompts.reader import Prompt
from orchestration.runs.export import ExportOptions
from orchestration.runs.job import (
    ChatTask,
    Fingerprints,
    Job,
    Kind,
    Tallies,
    WrapModel,
    fingerprint,
    fingerprints,
)
from orchestration.runs.result import Interruption, split_ending
from policies import InputError, PolicySet


class Deliberation(ChatTask[CoTRecord]):
    """The deliberation over one prompt.

    Args:
        cast: Who takes part.
        prompt: The prompt.
        wrap: Applied to every model that an agent is given.
    """

    def __init__(self, cast: Cast, prompt: Prompt, wrap: WrapModel = lambda model: model) -> None:
        self.team = cast.make_chat(wrap)
        self.task = prompt.text
        self._serializer = cast.serializer
        self._prompt = prompt

    def result(
        self,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        interruption: Interruption | None = None,
    ) -> CoTRecord:
        """See `ChatTask`."""
        return self._serializer.record(self._prompt, messages, stop_reason, started, interruption)


class DeliberationJob(Job):
    """Deliberates over prompts; makes CoT records.

    Args:
        cast: Who takes part.
    """

    def __init__(self, cast: Cast) -> None:
        self.kind = RECORDS
        self.cast: Cast = cast

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        cast = self.cast
        own = cast.own_termination
        return {
            "policies": cast.policy_set.model_dump(mode="json"),
            "prompt_texts": cast.prompts.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
            **({} if own is None else {"termination": own}),
        }

    def fingerprints(self) -> Fingerprints:
        """See `Job`."""
        found = fingerprints(self.settings(), self.cast.models_in_use, DeliberationAgent.section)
        if self.cast.own_termination is not None:
            # Part of a group that every run has: so is noticed, too, that it is no longer set.
            found["recipe"]["termination"] = fingerprint(self.cast.own_termination)
        return found

    async def chat(self, prompt: PendingPrompt, wrap: WrapModel) -> Deliberation:
        """See `Job`."""
        about = Prompt(prompt.id, prompt.text, prompt.metadata)
        return Deliberation(self.cast, about, wrap)


class _RecordKind(Kind[CoTRecord]):
    """Runs that deliberate over prompts and make CoT records."""

    name = "records"
    columns = ("outcome", "stopped by", "rounds", "thoughts", "removed")
    formats: ClassVar[Mapping[str, str]] = {
        "records": "whole records",
        "aidsafe": "prompt, thoughts, response",
        "sft": "chat messages, thoughts inside <think>",
    }
    command = "aidsafe run"
    changes_note = " (--dry-run prints how many)."

    def read(self, text: str) -> CoTRecord:
        return CoTRecord.model_validate_json(text)

    def tallies(self, endings: Mapping[str, int]) -> Tallies:
        """Stop reasons, and rounds to consensus."""
        reasons: Counter[str] = Counter()
        rounds: Counter[int] = Counter()
        for ending, count in endings.items():
            reason, number = split_ending(ending)
            reasons[reason] += count
            if reason == "consensus":
                rounds[number] += count
        return {
            "stopped_by": dict(reasons.most_common()),
            "consensus_in_round": {str(n): rounds[n] for n in sorted(rounds)},
        }

    def lines(
        self, read: Callable[[], Iterable[CoTRecord]], form: str, options: ExportOptions
    ) -> Iterator[str]:
        if options.contrast_share is not None:
            raise InputError(
                "--contrast-share applies to pairs only.",
                "Leave it out, or use --format pairs or dpo.",
            )
        return export_lines(read(), form, options.wrapping)

    def load_job(self, folder: Path, settings: dict[str, Any], models: Mapping[str, Model]) -> Job:
        recipe = Recipe.model_validate(settings["recipe"])
        personas = {n: Persona.model_validate(p) for n, p in settings["personas"].items()}
        policy_set = PolicySet.model_validate(settings["policies"])
        prompts = read_prompts(settings["prompt_texts"])
        return DeliberationJob(Cast(recipe, policy_set, personas, models, prompts))

    def next_steps(self, folder: str, tallies: Tallies) -> list[tuple[str, str]]:
        if not tallies["stopped_by"]:
            return []
        return [("Export", f"aidsafe export {folder} --format sft --out sft.jsonl")]

    def cells(self, result: CoTRecord) -> list[str]:
        return [
            result.outcome,
            result.stop_reason or "",
            str(result.rounds),
            str(len(result.thoughts)),
            str(len(result.removed_thoughts)),
        ]

    def row(self, result: CoTRecord, unsafe: bool) -> dict[str, Any]:
        return record_row(result)

    def show(
        self, console: Console, result: CoTRecord, *, instructions: bool, show_unsafe: bool
    ) -> None:
        print_transcript(console, result, instructions)


RECORDS = _RecordKind()
