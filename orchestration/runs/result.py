"""What a run makes of a prompt, whatever its kind: outcome, provenance, transcript."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeAlias, get_args

from pydantic import BaseModel

from agents.models.usage import Usage
from agents.turns import Turn
from orchestration.chat import DeliberationChat
from orchestration.chat.cast import BaseCast
from orchestration.chat.html import Section
from orchestration.chat.thread import Message
from orchestration.prompts.reader import Prompt

Outcome: TypeAlias = Literal[
    "completed", "refused", "malformed", "truncated", "failed", "over_budget"
]
"""How a prompt of a run ended. Only `completed` yields data for training."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Interruption: TypeAlias = tuple[Outcome, str]
"""Outcome and reason, if a chat was interrupted."""


class Provenance(BaseModel, extra="forbid"):
    """What a result was made of and with."""

    aidsafe: str
    """Version of aidsafe."""
    autogen: str
    """Version of autogen-agentchat."""
    python: str
    policy_set: str
    """Id and version of the policy set, as `id@version`."""
    policy_set_hash: str
    policies: dict[str, str]
    """Hash of each policy, by its id."""
    recipe: str
    recipe_hash: str
    prompts: str
    """Name of the prompt texts."""
    prompts_hash: str
    personas: dict[str, str]
    """Hash of each persona, by its name."""
    termination: dict[str, Any] | None = None
    """The termination condition, if a script set another one than the recipe's."""
    models: dict[str, dict[str, Any]]
    """Configuration of each model that could be asked, sampling and seed included, by its name."""
    json_as: dict[str, list[str]] = {}
    """How each model was asked for JSON: `json_schema`, or what its endpoint supports instead
    (`json_object`, `text`). Models whose client does not say are left out."""
    adapted: dict[str, list[str]] = {}
    """What else was changed of the requests to a model, since its endpoint does not take them as
    they are, such as `without temperature` or `schema without maxItems`."""
    started_at: str
    """UTC, ISO 8601: when the last session's part of the chat began; replies may be older."""
    finished_at: str
    """UTC, ISO 8601."""


class RunResult(Protocol):
    """What a run makes of a prompt, and stores in its journal."""

    id: str
    prompt: str
    outcome: Outcome
    problem: str | None

    @property
    def turns(self) -> Sequence[Turn]:
        """The transcript."""

    @property
    def reason(self) -> str | None:
        """What completed results are counted by, such as why the chat stopped."""

    @property
    def rounds_or_attempts(self) -> int:
        """How often the circle was completed."""

    def sections(self, show_unsafe: bool = False) -> Iterator[Section]:
        """What is shown of it, the prompt first and the transcript last; see `Shown`."""

    def model_dump_json(self, *, indent: int | None = None) -> str:
        """As the journal stores it."""


def ending_of(result: RunResult) -> str:
    """How a result's chat ended; the journal counts results of the same ending together."""
    return f"{result.reason}/{result.rounds_or_attempts}"


def split_ending(ending: str) -> tuple[str, int]:
    """Reason and number of rounds or attempts of an ending."""
    reason, _, number = ending.rpartition("/")
    return reason, int(number)


def count_endings(endings: Mapping[str, int], good: str) -> tuple[Counter[str], dict[str, int]]:
    """Counts of results by reason; and of those with a good one by their rounds or attempts."""
    reasons: Counter[str] = Counter()
    numbers: Counter[int] = Counter()
    for ending, count in endings.items():
        reason, number = split_ending(ending)
        reasons[reason] += count
        if reason == good:
            numbers[number] += count
    return reasons, {str(number): numbers[number] for number in sorted(numbers)}


@dataclass(frozen=True)
class ChatEnd:
    """A chat that has ended, or was interrupted."""

    messages: Sequence[Message]
    """All messages, the task first."""
    stop_reason: str | None
    """That of the chat's `TaskResult`; None if the chat did not end."""
    started: datetime
    """When the chat began, in UTC."""
    interruption: Interruption | None = None

    @classmethod
    def of(cls, chat: DeliberationChat, interruption: Interruption | None = None) -> ChatEnd:
        """The end of a chat that was run by hand."""
        started = chat.started_at or datetime.now(UTC)  # its state was loaded
        return cls(chat.messages, chat.stop_reason, started, interruption)

    def outcome(self, turns: Sequence[Turn]) -> tuple[Outcome, str | None]:
        """How the chat ended, and the problem if that is not `completed`."""
        if self.interruption is not None:
            return self.interruption
        if turns and turns[-1].outcome != "completed":
            return turns[-1].outcome, f"{turns[-1].agent}: {turns[-1].problem}"
        if self.stop_reason is None:
            return "failed", "The chat did not end."
        return "completed", None


def common_fields(
    cast: BaseCast, prompt: Prompt, turns: list[Turn], end: ChatEnd, reasons: Sequence[str]
) -> dict[str, Any]:
    """The fields that all results have, from what was said and how the chat ended.

    Args:
        cast: Who took part.
        prompt: What the chat was about.
        turns: The transcript.
        end: The chat.
        reasons: Stop reasons, the most informative first: the one that counts where several
            conditions fired in the same turn.
    """
    outcome, problem = end.outcome(turns)
    fired = (end.stop_reason or "").split(", ")
    reason = next((one for one in reasons if one in fired), end.stop_reason)
    calls = [call for turn in turns for call in (*turn.discarded, turn)]
    json_as: dict[str, dict[str, None]] = {}
    adapted: dict[str, dict[str, None]] = {}
    for call in calls:
        if call.json_as is not None:
            json_as.setdefault(call.model, {})[call.json_as] = None
        if call.adapted:
            adapted.setdefault(call.model, {}).update(dict.fromkeys(call.adapted))
    return {
        "id": prompt.id,
        "prompt": prompt.text,
        "metadata": prompt.metadata,
        "outcome": outcome,
        "problem": problem,
        "stop_reason": reason if outcome == "completed" else outcome,
        "turns": turns,
        "usage": sum((call.usage for call in calls), Usage()),
        "latency": round(sum(call.latency for call in calls), 4),
        "provenance": {
            **cast.provenance,
            "json_as": {model: list(modes) for model, modes in json_as.items()},
            "adapted": {model: list(changes) for model, changes in adapted.items()},
            "started_at": end.started.isoformat(timespec="milliseconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        },
    }
