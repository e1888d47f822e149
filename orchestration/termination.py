"""When a circle ends: by consensus, or when a budget of rounds or tokens is spent.

Each condition sees only what was said since it was last asked, keeps its own count, and starts anew
when it is reset, as AutoGen wants it; they combine with AutoGen's ``|`` and ``&``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from autogen_agentchat.base import (
    OrTerminationCondition,
    TerminatedException,
    TerminationCondition,
)
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage, StopMessage
from autogen_core import Component
from pydantic import BaseModel, Field

from agents.turns import TurnMessage

CONSENSUS = "consensus"
ROUND_BUDGET = "round_budget"
TOKEN_BUDGET = "token_budget"  # noqa: S105 - a stop reason

STOP_REASONS = (CONSENSUS, TOKEN_BUDGET, ROUND_BUDGET)
"""Ours, the one that says most first: it is what a record keeps where several fired at once."""


class Condition(TerminationCondition):
    """A condition that fires once, with its stop reason as the whole message."""

    reason: str

    def __init__(self) -> None:
        self._fired = False

    @property
    def terminated(self) -> bool:
        """Whether it has fired since it was last reset."""
        return self._fired

    async def __call__(
        self, messages: Sequence[BaseAgentEvent | BaseChatMessage]
    ) -> StopMessage | None:
        """Takes what is new, and fires if it is time to."""
        if self._fired:
            raise TerminatedException(f"{type(self).__name__} has fired already")
        self._take(messages)
        if not self._reached():
            return None
        self._fired = True
        return StopMessage(content=self.reason, source=type(self).__name__)

    @abstractmethod
    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        """Counts what is new."""

    @abstractmethod
    def _reached(self) -> bool:
        """Whether it is time to stop."""

    async def reset(self) -> None:
        """Makes it as new."""
        self._fired = False

    def __or__(self, other: TerminationCondition) -> AnyOf:
        """Fires when either does."""
        return AnyOf(self, other)


class AnyOf(OrTerminationCondition):
    """AutoGen's ``|``, asking its conditions one after the other.

    AutoGen's makes a task for each of them with every message, which costs more than what they do.
    """

    component_provider_override = "orchestration.termination.AnyOf"

    async def __call__(
        self, messages: Sequence[BaseAgentEvent | BaseChatMessage]
    ) -> StopMessage | None:
        """Shows all of them what is new, and fires if any does."""
        if self.terminated:
            raise RuntimeError("a condition has fired already")  # as AutoGen's does
        asked = [await condition(messages) for condition in self._conditions]
        stops = [stop for stop in asked if stop is not None]
        if not stops:
            return None
        return StopMessage(
            content=", ".join(stop.content for stop in stops),
            source=", ".join(stop.source for stop in stops),
        )

    def __or__(self, other: TerminationCondition) -> AnyOf:
        """Fires when any of them or the other does."""
        return AnyOf(*self._conditions, other)


class ConsensusConfig(BaseModel):
    """Declarative form of `ConsensusTermination`."""

    deliberators: list[str] = Field(min_length=1)
    quorum: int | None = Field(default=None, ge=1)


class ConsensusTermination(Condition, Component[ConsensusConfig]):
    """Ends when the quorum accepts the current version of thoughts and response.

    A deliberator that revises makes a new version, which it counts as accepting, unless it contests
    it, too; one that neither accepts nor revises takes its acceptance back. The drafter is no
    deliberator, so a draft needs the whole quorum. Whoever else revises makes a new version that
    nobody has accepted yet. Only the typed stance of a turn is read, never its text.

    Args:
        deliberators: Names of the agents whose acceptance counts.
        quorum: How many must accept; all of them if left out.

    Raises:
        ValueError: There is no deliberator, or the quorum cannot be reached.
    """

    component_config_schema = ConsensusConfig
    component_provider_override = "orchestration.termination.ConsensusTermination"
    reason = CONSENSUS

    def __init__(self, deliberators: Sequence[str], quorum: int | None = None) -> None:
        super().__init__()
        self._deliberators = list(dict.fromkeys(deliberators))
        self._quorum = quorum
        self._needed = len(self._deliberators) if quorum is None else quorum
        if not self._deliberators:
            raise ValueError("there must be at least one deliberator (got none)")
        if not 1 <= self._needed <= len(self._deliberators):
            raise ValueError(
                f"the quorum must be 1 to {len(self._deliberators)}, the number of deliberators "
                f"(got {self._needed})"
            )
        self._accepting: set[str] = set()

    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        for message in messages:
            if not isinstance(message, TurnMessage):
                continue
            stance = message.content.stance
            if stance in ("revises", "contests") or message.content.role == "drafter":
                self._accepting.clear()  # there is a new version
            if message.source not in self._deliberators:
                continue
            if stance in ("accepts", "revises"):
                self._accepting.add(message.source)
            else:
                self._accepting.discard(message.source)

    def _reached(self) -> bool:
        return len(self._accepting) >= self._needed

    async def reset(self) -> None:
        """Forgets who accepted."""
        await super().reset()
        self._accepting = set()

    def _to_config(self) -> ConsensusConfig:
        return ConsensusConfig(deliberators=self._deliberators, quorum=self._quorum)

    @classmethod
    def _from_config(cls, config: ConsensusConfig) -> Self:
        return cls(config.deliberators, config.quorum)


class RoundBudgetConfig(BaseModel):
    """Declarative form of `RoundBudgetTermination`."""

    speakers: list[str] = Field(min_length=1)
    rounds: int = Field(ge=1)


class RoundBudgetTermination(Condition, Component[RoundBudgetConfig]):
    """Ends when every speaker has spoken in so many rounds.

    Args:
        speakers: Names of the agents of the circle, guests included.
        rounds: Rounds; in each, every speaker has spoken once.

    Raises:
        ValueError: Less than one round, or no speaker.
    """

    component_config_schema = RoundBudgetConfig
    component_provider_override = "orchestration.termination.RoundBudgetTermination"
    reason = ROUND_BUDGET

    def __init__(self, speakers: Sequence[str], rounds: int) -> None:
        super().__init__()
        if rounds < 1:
            raise ValueError(f"rounds must be >= 1 (got {rounds})")
        if not speakers:
            raise ValueError("there must be at least one speaker (got none)")
        self._rounds = rounds
        self._spoken = dict.fromkeys(speakers, 0)

    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        for message in messages:
            if isinstance(message, BaseChatMessage) and message.source in self._spoken:
                self._spoken[message.source] += 1

    def _reached(self) -> bool:
        return min(self._spoken.values()) >= self._rounds

    async def reset(self) -> None:
        """Starts counting at zero."""
        await super().reset()
        self._spoken = dict.fromkeys(self._spoken, 0)

    def _to_config(self) -> RoundBudgetConfig:
        return RoundBudgetConfig(speakers=list(self._spoken), rounds=self._rounds)

    @classmethod
    def _from_config(cls, config: RoundBudgetConfig) -> Self:
        return cls(config.speakers, config.rounds)


class TokenBudgetConfig(BaseModel):
    """Declarative form of `TokenBudgetTermination`."""

    tokens: int = Field(ge=1)


class TokenBudgetTermination(Condition, Component[TokenBudgetConfig]):
    """Ends when the chat has used so many tokens, prompts and replies together.

    The turn that crosses the limit is finished, and so is the closing: the budget bounds the
    circle, not the chat to the token.

    Args:
        tokens: Tokens, of the opening too.

    Raises:
        ValueError: Less than one token.
    """

    component_config_schema = TokenBudgetConfig
    component_provider_override = "orchestration.termination.TokenBudgetTermination"
    reason = TOKEN_BUDGET

    def __init__(self, tokens: int) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"tokens must be >= 1 (got {tokens})")
        self._tokens = tokens
        self._used = 0

    def _take(self, messages: Sequence[BaseAgentEvent | BaseChatMessage]) -> None:
        for message in messages:
            usage = message.models_usage
            if usage is not None:
                self._used += usage.prompt_tokens + usage.completion_tokens

    def _reached(self) -> bool:
        return self._used >= self._tokens

    async def reset(self) -> None:
        """Starts counting at zero."""
        await super().reset()
        self._used = 0

    def _to_config(self) -> TokenBudgetConfig:
        return TokenBudgetConfig(tokens=self._tokens)

    @classmethod
    def _from_config(cls, config: TokenBudgetConfig) -> Self:
        return cls(config.tokens)
