"""From a transcript to a CoT record."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage

from agents.deliberation import take_state
from agents.turns import Call, Turn, TurnMessage, Usage
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord, Outcome, Provenance
from orchestration.termination import STOP_REASONS


class Serializer:
    """Makes the records of one cast; holds what is the same in all of them."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        cast = self._cast
        return {
            "aidsafe": version("aidsafe"),
            "autogen": version("autogen-agentchat"),
            "python": platform.python_version(),
            "policy_set": f"{cast.policy_set.id}@{cast.policy_set.version}",
            "policy_set_hash": cast.policy_set.hash,
            "policies": {policy.id: policy.hash for policy in cast.policy_set.policies},
            "recipe": cast.recipe.name,
            "recipe_hash": cast.recipe.hash,
            "personas": {name: persona.hash for name, persona in cast.personas.items()},
            "models": {model.name: model.config.public() for model in cast.models_in_use},
        }

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
        outcome: Outcome = "completed"
        problem: str | None = None
        if broke_off is not None:
            outcome, problem = broke_off
        elif turns and turns[-1].outcome != "completed":
            outcome, problem = turns[-1].outcome, f"{turns[-1].agent}: {turns[-1].problem}"
        elif stop_reason is None:
            outcome, problem = "failed", "The chat did not come to its end."
        elif not state.thoughts or state.response is None:
            outcome, problem = "malformed", "The chat ended without thoughts or a response."
        calls = [call for turn in turns for call in (*turn.discarded, turn)]
        return CoTRecord(
            id=prompt.id,
            prompt=prompt.text,
            metadata=prompt.metadata,
            outcome=outcome,
            problem=problem,
            stop_reason=_main_reason(stop_reason) if outcome == "completed" else outcome,
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
            provenance=Provenance(
                **self._fixed,
                json_as=_forms(calls),
                started_at=started.isoformat(timespec="milliseconds"),
                finished_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            ),
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


def _main_reason(reason: str | None) -> str | None:
    """One of our reasons where several conditions fired in the same turn, else as it is."""
    parts = (reason or "").split(", ")
    return next((ours for ours in STOP_REASONS if ours in parts), reason)
