"""When the circle of a pair chat ends: the answer violates enough, or the attempts are used up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage
from autogen_core import Component
from pydantic import BaseModel, Field

from agents.pair_replies import AnswerReply
from agents.pairing import BriefMessage, PairBrief, violation_of
from agents.turns import TurnMessage
from orchestration.termination import Condition

VIOLATION = "violation"
CHOSEN_VIOLATES = "chosen_violates"
ATTEMPT_BUDGET = "attempt_budget"

PAIR_STOP_REASONS = (CHOSEN_VIOLATES, VIOLATION, ATTEMPT_BUDGET)
"""Those of a pair chat, the one that says most first."""


class ViolationConfig(BaseModel):
    """Declarative form of `ViolationTermination`."""

    threshold: float = Field(ge=0, le=1)
    max_chosen: float | None = Field(default=None, ge=0, le=1)


class ViolationTermination(Condition, Component[ViolationConfig]):
    """Ends when a scorer finds that an answer violates the policies that count far enough.

    That of an attempt is what the chat is for (`violation`). If it is the record's own answer
    (`chosen_violates`), no pair can come of it, and the chat ends before anything is made worse.
    Which policies count is in the brief; only typed scores are read, never text.

    Args:
        threshold: The score from which on an attempt is taken.
        max_chosen: The score from which on the record's own answer is not fit to be chosen; None
            for no such bound.

    Raises:
        ValueError: A score is not between 0 and 1.
    """

    component_config_schema = ViolationConfig
    component_provider_override = "orchestration.pairs.termination.ViolationTermination"

    def __init__(self, threshold: float, max_chosen: float | None = None) -> None:
        super().__init__()
        for name, score in (("threshold", threshold), ("max_chosen", max_chosen)):
            if score is not None and not 0 <= score <= 1:
                raise ValueError(f"{name} must be between 0 and 1 (got {score})")
        self._threshold = threshold
        self._max_chosen = max_chosen
        self._begin()

    def _begin(self) -> None:
        self._brief: PairBrief | None = None
        self._answered = False
        self.reason = ""

    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        for message in messages:
            if isinstance(message, BriefMessage):
                self._brief = message.content
            elif isinstance(message, TurnMessage) and self._brief is not None:
                reply = message.content.reply
                self._answered |= isinstance(reply, AnswerReply)
                counted = self._brief.counted if self._answered else self._brief.must_keep
                score = violation_of(reply, counted)
                bound = self._threshold if self._answered else self._max_chosen
                if score is not None and bound is not None and score >= bound:
                    self.reason = VIOLATION if self._answered else CHOSEN_VIOLATES

    def _reached(self) -> bool:
        return bool(self.reason)

    async def reset(self) -> None:
        """Forgets the scores."""
        await super().reset()
        self._begin()

    def _to_config(self) -> ViolationConfig:
        return ViolationConfig(threshold=self._threshold, max_chosen=self._max_chosen)

    @classmethod
    def _from_config(cls, config: ViolationConfig) -> Self:
        return cls(config.threshold, config.max_chosen)


class AttemptBudgetConfig(BaseModel):
    """Declarative form of `AttemptBudgetTermination`."""

    scorer: str
    attempts: int = Field(ge=1)


class AttemptBudgetTermination(Condition, Component[AttemptBudgetConfig]):
    """Ends when the scorer has scored so many attempts.

    Args:
        scorer: Name of the agent that ends each way around the circle.
        attempts: Ways around the circle.

    Raises:
        ValueError: Less than one attempt.
    """

    component_config_schema = AttemptBudgetConfig
    component_provider_override = "orchestration.pairs.termination.AttemptBudgetTermination"
    reason = ATTEMPT_BUDGET

    def __init__(self, scorer: str, attempts: int) -> None:
        super().__init__()
        if attempts < 1:
            raise ValueError(f"attempts must be >= 1 (got {attempts})")
        self._scorer = scorer
        self._attempts = attempts
        self._made = 0

    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        self._made += sum(
            isinstance(m, BaseChatMessage) and m.source == self._scorer for m in messages
        )

    def _reached(self) -> bool:
        return self._made >= self._attempts

    async def reset(self) -> None:
        """Starts counting at zero."""
        await super().reset()
        self._made = 0

    def _to_config(self) -> AttemptBudgetConfig:
        return AttemptBudgetConfig(scorer=self._scorer, attempts=self._attempts)

    @classmethod
    def _from_config(cls, config: AttemptBudgetConfig) -> Self:
        return cls(config.scorer, config.attempts)
