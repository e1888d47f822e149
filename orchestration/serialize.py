"""From a transcript to a CoT record."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any, Protocol

from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

from agents.deliberation import take_state
from agents.turns import Call, Turn, TurnMessage, Usage
from orchestration.casting import Casting
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord, Outcome, Provenance
from orchestration.termination import STOP_REASONS
from policies import PolicySet


class _Recipe(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def hash(self) -> str: ...


def origin(casting: Casting, policy_set: PolicySet, recipe: _Recipe) -> dict[str, Any]:
    """Of the provenance, what is the same in all records of a run."""
    return {
        "aidsafe": version("aidsafe"),
        "autogen": version("autogen-agentchat"),
        "python": platform.python_version(),
        "policy_set": f"{policy_set.id}@{policy_set.version}",
        "policy_set_hash": policy_set.hash,
        "policies": {policy.id: policy.hash for policy in policy_set.policies},
        "recipe": recipe.name,
        "recipe_hash": recipe.hash,
        "personas": {name: persona.hash for name, persona in casting.personas.items()},
        "models": {model.name: model.config.public() for model in casting.models_in_use},
    }


def of_chat(calls: Sequence[Call], started: datetime) -> dict[str, Any]:
    """Of the provenance, what a chat adds."""
    return {
        "json_as": _forms(calls),
        "started_at": started.isoformat(timespec="milliseconds"),
        "finished_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def ended(
    turns: Sequence[Turn], stop_reason: str | None, broke_off: tuple[Outcome, str] | None
) -> tuple[Outcome, str | None]:
    """How a chat ended: its outcome, and the reason if that is not `completed`."""
    if broke_off is not None:
        return broke_off
    if turns and turns[-1].outcome != "completed":
        return turns[-1].outcome, f"{turns[-1].agent}: {turns[-1].problem}"
    if stop_reason is None:
        return "failed", "The chat did not come to its end."
    return "completed", None


def main_reason(reason: str | None, ours: Sequence[str]) -> str | None:
    """One of our reasons where several conditions fired in the same turn, else as it is."""
    parts = (reason or "").split(", ")
    return next((one for one in ours if one in parts), reason)


class Serializer:
    """Makes the records of one cast; holds what is the same in all of them."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        return origin(self._cast, self._cast.policy_set, self._cast.recipe)

    def record(
        self,
        prompt: Prompt,
        messages: Sequence[BaseAgentEvent | BaseChatMessage],
        stop_reason: str | None,
        started: datetime,
        broke_off: tuple[Outcome, str] | None = None,
    ) -> CoTRecord:
        """The record of one chat.

        Args:
            prompt: What the chat was about.
            messages: All that was said, the task first.
            stop_reason: As the chat's `TaskResult` has it; None if it did not come to its end.
            started: When the chat began, in UTC.
            broke_off: The outcome and its reason, if something broke the chat off.

        Returns:
            The record. Its outcome is that of the turn that gave no reply, if there is one.
        """
        turns = [_as_turn(m) for m in messages[1:] if isinstance(m, BaseChatMessage)]
        state = take_state(turns, self._cast.briefing.contract)
        outcome, problem = ended(turns, stop_reason, broke_off)
        if outcome == "completed" and (not state.thoughts or state.response is None):
            outcome, problem = "malformed", "The chat ended without thoughts or a response."
        calls = [call for turn in turns for call in (*turn.discarded, turn)]
        return CoTRecord(
            id=prompt.id,
            prompt=prompt.text,
            metadata=prompt.metadata,
            outcome=outcome,
            problem=problem,
            stop_reason=main_reason(stop_reason, STOP_REASONS)
            if outcome == "completed"
            else outcome,
            rounds=max((turn.round for turn in turns), default=0),
            intents=state.intents,
            thoughts=state.thoughts,
            removed_thoughts=state.removed,
            response=state.response,
            response_by=state.response_by,
            ignored_references=state.ignored_references,
            turns=turns,
            usage=sum((call.usage for call in calls), Usage()),
            latency=round(sum(call.latency for call in calls), 4),
            provenance=Provenance(**self._fixed, **of_chat(calls, started)),
        )


def _forms(calls: Sequence[Call]) -> dict[str, list[str]]:
    forms: dict[str, list[str]] = {}
    for call in calls:
        if call.json_as is not None and call.json_as not in forms.setdefault(call.model, []):
            forms[call.model].append(call.json_as)
    return forms


def _as_turn(message: BaseChatMessage) -> Turn:
    if isinstance(message, TurnMessage):
        return message.content
    usage = message.models_usage
    return Turn(
        agent=message.source,
        persona=message.source,
        role="guest",
        model="unknown",
        raw=message.to_model_text(),
        finish_reason="unknown",
        usage=Usage(
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
        ),
    )
