"""From a transcript to a CoT record."""

from __future__ import annotations

from dataclasses import replace

from autogen_agentchat.messages import BaseChatMessage

from agents.deliberation.state import DeliberationState
from agents.models.usage import Usage
from agents.turns import Turn, TurnMessage, state_after
from orchestration.chat.cast import BaseCast
from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.termination import STOP_REASONS
from orchestration.prompts.reader import Prompt
from orchestration.runs.result import ChatEnd, common_fields


def record_of(cast: BaseCast, prompt: Prompt, end: ChatEnd) -> CoTRecord:
    """The record of one chat; its outcome is that of the turn without a usable reply, if any."""
    turns = [_as_turn(m) for m in end.messages[1:] if isinstance(m, BaseChatMessage)]
    state = state_after(DeliberationState(cast.briefing), turns)
    is_empty = not state.thoughts or state.response is None
    if is_empty and end.outcome(turns)[0] == "completed":
        nothing = "The chat ended without thoughts or a response."
        end = replace(end, interruption=("malformed", nothing))
    return CoTRecord(
        **common_fields(cast, prompt, turns, end, STOP_REASONS),
        rounds=max((turn.round for turn in turns), default=0),
        intents=state.intents,
        thoughts=state.thoughts,
        removed_thoughts=state.removed,
        response=state.response,
        response_by=state.response_by,
        ignored_references=state.ignored_references,
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
