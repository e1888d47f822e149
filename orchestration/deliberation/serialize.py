"""From a transcript to a CoT record."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from autogen_agentchat.messages import BaseChatMessage

from agents.chat_state import state_after
from agents.deliberation.state import DeliberationState
from agents.models.usage import Usage
from agents.replies import ReplyContract
from agents.turns import Turn, TurnMessage
from orchestration.chat.thread import Message
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.termination import STOP_REASONS
from orchestration.prompts.reader import Prompt
from orchestration.runs.result import (
    Interruption,
    Provenance,
    chat_provenance,
    main_reason,
    outcome_of,
)


class Serializer:
    """Makes the records of one cast.

    Args:
        contract: Of the cast's replies.
        provenance: The fields of the provenance that are the same in all records.
    """

    def __init__(self, contract: ReplyContract, provenance: dict[str, Any]) -> None:
        self._contract = contract
        self._provenance = provenance

    def record(
        self,
        prompt: Prompt,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        interruption: Interruption | None = None,
    ) -> CoTRecord:
        """The record of one chat; its outcome is that of the turn without a usable reply, if any.

        Arguments beside the prompt are those of `ChatTask.result`.
        """
        turns = [_as_turn(m) for m in messages[1:] if isinstance(m, BaseChatMessage)]
        state = state_after(DeliberationState(self._contract), turns)
        outcome, problem = outcome_of(turns, stop_reason, interruption)
        if outcome == "completed" and (not state.thoughts or state.response is None):
            outcome, problem = "malformed", "The chat ended without thoughts or a response."
        reason = outcome if outcome != "completed" else main_reason(stop_reason, STOP_REASONS)
        calls = [call for turn in turns for call in (*turn.discarded, turn)]
        return CoTRecord(
            id=prompt.id,
            prompt=prompt.text,
            metadata=prompt.metadata,
            outcome=outcome,
            problem=problem,
            stop_reason=reason,
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
            provenance=Provenance(**self._provenance, **chat_provenance(calls, started)),
        )


def _as_turn(message: BaseChatMessage) -> Turn:
    if isinstance(message, TurnMessage):
        return message.content
    used = message.models_usage
    tokens = (used.prompt_tokens, used.completion_tokens) if used else (0, 0)
    return Turn(
        agent=message.source,
        persona=message.source,
        role="guest",
        model="unknown",
        raw=message.to_model_text(),
        finish_reason="unknown",
        usage=Usage(prompt_tokens=tokens[0], completion_tokens=tokens[1]),
    )
