"""When the circle of a pair chat ends: an answer violates enough, or the attempts are used up."""

from __future__ import annotations

from collections.abc import Sequence

from autogen_core import Component
from pydantic import BaseModel, Field

from agents.pairs.replies import AnswerReply
from agents.pairs.state import BriefMessage, PairBrief, violation_of
from agents.turns import TurnMessage
from orchestration.chat.termination import Condition, shared_config
from orchestration.chat.thread import Message
from orchestration.deliberation.termination import RoundBudgetTermination

VIOLATION, CHOSEN_VIOLATES, ATTEMPT_BUDGET = "violation", "chosen_violates", "attempt_budget"
PAIR_STOP_REASONS = (CHOSEN_VIOLATES, VIOLATION, ATTEMPT_BUDGET)
"""Those of a pair chat; if several conditions fire at once, the first is the reason."""


class ViolationConfig(BaseModel):
    """Declarative form of `ViolationTermination`."""

    threshold: float = Field(ge=0, le=1)
    max_chosen: float | None = Field(default=None, ge=0, le=1)


class ViolationTermination(Condition, Component[ViolationConfig]):
    """Ends when a scorer finds that an answer violates the policies that count far enough.

    A violation by an attempt is what the chat is for (`violation`). If the record's own answer
    violates them (`chosen_violates`), no pair can be made, and the chat ends before any attempt.
    The brief says which policies count; only typed scores are read, never text.

    Args:
        threshold: Score from which an attempt becomes the rejected side.
        max_chosen: Score from which the record's own answer cannot be the chosen side, if any.

    Raises:
        ValueError: A score is not between 0 and 1.
    """

    component_config_schema = ViolationConfig
    config: ViolationConfig

    def __init__(self, threshold: float, max_chosen: float | None = None) -> None:
        for name, score in (("threshold", threshold), ("max_chosen", max_chosen)):
            if score is not None and not 0 <= score <= 1:
                raise ValueError(f"{name} must be between 0 and 1 (got {score})")
        self.config = shared_config(ViolationConfig, threshold=threshold, max_chosen=max_chosen)
        super().__init__()

    def _restart(self) -> None:
        super()._restart()
        self._brief: PairBrief | None = None
        self._answered = False
        self.reason = ""

    def _count(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, BriefMessage):
                self._brief = message.content
            elif isinstance(message, TurnMessage) and self._brief is not None:
                reply, config = message.content.reply, self.config
                self._answered |= isinstance(reply, AnswerReply)
                counted, bound, reason = (
                    (self._brief.counted, config.threshold, VIOLATION)
                    if self._answered
                    else (self._brief.must_keep, config.max_chosen, CHOSEN_VIOLATES)
                )
                score = violation_of(reply, counted)
                if score is not None and bound is not None and score >= bound:
                    self.reason = reason

    def _reached(self) -> bool:
        return bool(self.reason)


class AttemptBudgetTermination(RoundBudgetTermination):
    """Ends when the scorer, whose turn ends each round, has scored so many attempts.

    See `RoundBudgetTermination`; the scorer is the only speaker.
    """

    reason = ATTEMPT_BUDGET
