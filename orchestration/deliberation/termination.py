"""When a circle ends: by consensus, or when a budget of rounds or tokens is spent.

Each condition gets only the messages since its last call, keeps its own count, and is reset with
the chat, as AutoGen requires; they combine with AutoGen's ``|`` and ``&``.
"""

from __future__ import annotations

from collections.abc import Sequence

from autogen_agentchat.messages import BaseChatMessage
from autogen_core import Component
from pydantic import BaseModel, Field

from agents.turns import TurnMessage
from orchestration.chat.termination import Condition, shared_config
from orchestration.chat.thread import Message

CONSENSUS = "consensus"
ROUND_BUDGET = "round_budget"
TOKEN_BUDGET = "token_budget"  # noqa: S105 - a stop reason

STOP_REASONS = (CONSENSUS, TOKEN_BUDGET, ROUND_BUDGET)
"""The most informative first: the one that a record has if several fired at once."""


class ConsensusConfig(BaseModel):
    """Declarative form of `ConsensusTermination`."""

    deliberators: list[str] = Field(min_length=1)
    quorum: int | None = Field(default=None, ge=1)


class ConsensusTermination(Condition, Component[ConsensusConfig]):
    """Ends when the quorum accepts the current version of thoughts and response.

    A deliberator that revises makes a new version, and counts as accepting it unless it contests it
    too; one that neither accepts nor revises withdraws its acceptance. The drafter is no
    deliberator, so a draft needs the whole quorum, as does a version by any other agent. Only the
    typed stance of a turn is read, never its text.

    Args:
        deliberators: Names of the agents whose acceptance counts.
        quorum: How many must accept; all if left out.

    Raises:
        ValueError: There is no deliberator, or the quorum cannot be reached.
    """

    component_config_schema = ConsensusConfig
    reason = CONSENSUS

    def __init__(self, deliberators: Sequence[str], quorum: int | None = None) -> None:
        self._deliberators = list(dict.fromkeys(deliberators))
        self._needed = len(self._deliberators) if quorum is None else quorum
        if not self._deliberators:
            raise ValueError("there must be at least one deliberator (got none)")
        if not 1 <= self._needed <= len(self._deliberators):
            raise ValueError(
                f"the quorum must be 1 to {len(self._deliberators)}, the number of deliberators "
                f"(got {self._needed})"
            )
        names = tuple(self._deliberators)
        self.config = shared_config(ConsensusConfig, deliberators=names, quorum=quorum)
        super().__init__()

    def _count(self, messages: Sequence[Message]) -> None:
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

    def _restart(self) -> None:
        super()._restart()
        self._accepting: set[str] = set()


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
    reason = ROUND_BUDGET
    config: RoundBudgetConfig

    def __init__(self, speakers: Sequence[str], rounds: int) -> None:
        if rounds < 1:
            raise ValueError(f"rounds must be >= 1 (got {rounds})")
        if not speakers:
            raise ValueError("there must be at least one speaker (got none)")
        self.config = shared_config(RoundBudgetConfig, speakers=tuple(speakers), rounds=rounds)
        super().__init__()

    def _count(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if isinstance(message, BaseChatMessage) and message.source in self._spoken:
                self._spoken[message.source] += 1

    def _reached(self) -> bool:
        return min(self._spoken.values()) >= self.config.rounds

    def _restart(self) -> None:
        super()._restart()
        self._spoken = dict.fromkeys(self.config.speakers, 0)


class TokenBudgetConfig(BaseModel):
    """Declarative form of `TokenBudgetTermination`."""

    tokens: int = Field(ge=1)


class TokenBudgetTermination(Condition, Component[TokenBudgetConfig]):
    """Ends when the chat has used so many tokens, prompts and replies together.

    The turn that crosses the limit is finished, and so is the closing: the budget limits the
    circle, not the exact number of tokens of the chat.

    Args:
        tokens: Tokens, of the opening too.

    Raises:
        ValueError: Less than one token.
    """

    component_config_schema = TokenBudgetConfig
    reason = TOKEN_BUDGET
    config: TokenBudgetConfig

    def __init__(self, tokens: int) -> None:
        if tokens < 1:
            raise ValueError(f"tokens must be >= 1 (got {tokens})")
        self.config = shared_config(TokenBudgetConfig, tokens=tokens)
        super().__init__()

    def _count(self, messages: Sequence[Message]) -> None:
        for message in messages:
            usage = message.models_usage
            if usage is not None:
                self._used += usage.prompt_tokens + usage.completion_tokens

    def _reached(self) -> bool:
        return self._used >= self.config.tokens

    def _restart(self) -> None:
        super()._restart()
        self._used = 0
