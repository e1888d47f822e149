"""What a run of deliberations does with each prompt: a chat, a CoT record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from agents.models.model import Model
from orchestration.chat.cast import WrapModel
from orchestration.deliberation.recipe import Cast, Recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.serialize import record_of
from orchestration.deliberation.termination import CONSENSUS
from orchestration.journal import PendingPrompt
from orchestration.prompts.reader import Prompt
from orchestration.runs.export import Wrapping, message
from orchestration.runs.job import ChatTask, Job, Kind, Tallies, stored_parts
from orchestration.runs.result import count_endings


class DeliberationJob(Job):
    """Deliberates over prompts; makes CoT records.

    Args:
        cast: Who takes part.
    """

    def __init__(self, cast: Cast) -> None:
        self.kind = RECORDS
        self.cast: Cast = cast

    async def chat(self, prompt: PendingPrompt, wrap: WrapModel) -> ChatTask[CoTRecord]:
        """See `Job`."""
        about = Prompt(prompt.id, prompt.text, prompt.metadata)
        return ChatTask(self.cast.make_chat(wrap), about.text, partial(record_of, self.cast, about))


class _RecordKind(Kind[CoTRecord]):
    """Runs that deliberate over prompts and make CoT records."""

    name = "records"
    columns: ClassVar[Mapping[str, str]] = {
        "outcome": "outcome",
        "stopped by": "stop_reason",
        "rounds": "rounds",
        "thoughts": "thoughts",
        "removed": "removed",
    }
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
        reasons, rounds = count_endings(endings, CONSENSUS)
        return {"stopped_by": dict(reasons.most_common()), "consensus_in_round": rounds}

    def exported(self, result: CoTRecord, form: str, wrapping: Wrapping) -> dict[str, Any]:
        """Whole; as the published data set has it; or as messages for TRL's SFTTrainer."""
        if form == "records":
            return result.model_dump(mode="json")
        if form == "aidsafe":
            thoughts = "\n".join(map(wrapping.thought, result.thoughts))
            return {"prompt": result.prompt, "thoughts": thoughts, "response": result.response}
        said = wrapping.message_of(result.thoughts, result.response or "")
        return {"messages": [message("user", result.prompt), message("assistant", said)]}

    def load_job(self, folder: Path, settings: dict[str, Any], models: Mapping[str, Model]) -> Job:
        recipe = Recipe.model_validate(settings["recipe"])
        return DeliberationJob(Cast(recipe, models=models, **stored_parts(settings)))

    def next_steps(self, folder: str, tallies: Tallies) -> list[tuple[str, str]]:
        if not tallies["stopped_by"]:
            return []
        return [("Export", f"aidsafe export {folder} --format sft --out sft.jsonl")]

    def row(self, result: CoTRecord, unsafe: bool) -> dict[str, Any]:
        columns = "id prompt outcome problem stop_reason rounds response latency"
        cited = (name for t in result.thoughts for name in (*t.policies, *t.rules))
        return {
            **{name: getattr(result, name) for name in columns.split()},
            "intents": [f"{i.kind}, {i.nature}: {i.text}" for i in result.intents],
            "thoughts": [thought.text for thought in result.thoughts],
            "cited": list(dict.fromkeys(cited)),
            "removed": len(result.removed_thoughts),
            **result.usage.model_dump(),
            "policy_set": result.provenance.policy_set,
            "recipe": result.provenance.recipe,
            "metadata": json.dumps(result.metadata, ensure_ascii=False),
        }

    def origin(self, result: CoTRecord) -> str:
        made = result.provenance
        return f"{made.policy_set}, recipe {made.recipe}, {made.started_at}, aidsafe {made.aidsafe}"


RECORDS = _RecordKind()
