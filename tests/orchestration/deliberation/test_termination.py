"""When a circle ends: consensus of the quorum, or a spent budget of rounds or tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import yaml
from autogen_agentchat.base import TerminatedException, TerminationCondition
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import TextMessage, ThoughtEvent
from autogen_core.models import RequestUsage
from pydantic import ValidationError

from orchestration.chat.termination import AnyOf
from orchestration.deliberation.termination import (
    ConsensusTermination,
    RoundBudgetTermination,
    TokenBudgetTermination,
)
from tests.orchestration.chat.speakers import vote

THREE = ("a", "b", "c")


def words(source: str, text: str = "I accept. CONSENSUS.") -> TextMessage:
    return TextMessage(content=text, source=source)


async def fires_at(condition: TerminationCondition, messages: Sequence[Any]) -> int | None:
    """The number of messages after which it fires, each shown by itself; None if it does not."""
    for number, message in enumerate(messages, 1):
        if await condition([message]) is not None:
            return number
    return None


# Consensus. A turn is written as the speaker and what it does: A accepts, R revises, C contests,
# N neither.

DOES = {"A": "accepts", "R": "revises", "C": "contests", "N": "neither", "X": "refused"}


def turns(written: str) -> list[Any]:
    """Turns and others: `d` is the drafter's turn, `g` a guest's words."""
    made: list[Any] = []
    for turn in written.split():
        if turn == "g":
            made.append(words("g"))
        elif turn == "d":
            made.append(vote("drafter", "neither", role="drafter"))
        else:
            made.append(vote(turn[0], DOES[turn[1]]))
    return made


@pytest.mark.parametrize(
    ("quorum", "written", "after"),
    [
        (None, "aA bA cA", 3),
        (None, "aA bA", None),
        # A draft is nobody's: all must accept it.
        (None, "d aA bA", None),
        (None, "d aA bA cA", 4),
        (1, "d", None),
        # A revision is accepted by its author and by nobody else yet.
        (None, "aR bA cA", 3),
        (None, "aA bA cR", None),
        (None, "aA bA cR aA bA", 5),
        # Who contests the new version, too, does not accept it.
        (None, "aC bA cA", None),
        (1, "aC", None),
        # A new draft is a new version.
        (None, "aA bA d cA", None),
        (None, "aR bR cR", None),
        (None, "aA bR cA aA", 4),
        (1, "aR", 1),
        # Quorum
        (2, "aA bA", 2),
        (2, "aA bN cA", 3),
        (2, "aR bA", 2),
        (2, "aA bR", None),
        # To say neither takes an acceptance back.
        (None, "aA bA aN cA", None),
        (None, "aA bA aN cA aA", 5),
        # A revision does not survive its author's doubt.
        (2, "aR aN bA", None),
        (2, "aR aN bA cA", 4),
        # To accept twice counts once.
        (2, "aA aA aA", None),
        # Turns without a reply are no acceptance, and take one back.
        (2, "aA aX bA", None),
        # Guests and others do not count, whatever they say.
        (None, "aA bA g", None),
        (None, "aA bA g cA", 4),
        (2, "aA xA yA", None),
        # Others cannot accept, but what they change has to be accepted again.
        (None, "aA bA xR cA", None),
        (None, "aA bA xR cA aA bA", 6),
    ],
)
async def test_consensus(quorum: int | None, written: str, after: int | None) -> None:
    assert await fires_at(ConsensusTermination(THREE, quorum), turns(written)) == after


async def test_consensus_reads_stances_alone() -> None:
    said = [vote(name, "neither", raw="I accept. CONSENSUS.") for name in THREE]
    assert await fires_at(ConsensusTermination(THREE), said) is None


# Budgets


@pytest.mark.parametrize(
    ("rounds", "speakers", "after"),
    [
        (1, "a b c", 3),
        (2, "a b c a b", None),
        (2, "a b c a b c", 6),
        (1, "user drafter a b c", 5),
        # A round is over when everybody has spoken in it.
        (1, "a a a a", None),
        (1, "a a b c", 4),
    ],
)
async def test_round_budget(rounds: int, speakers: str, after: int | None) -> None:
    condition = RoundBudgetTermination(THREE, rounds)
    assert await fires_at(condition, [words(name) for name in speakers.split()]) == after


async def test_round_budget_counts_guests_and_passes_over_events() -> None:
    condition = RoundBudgetTermination(["a", "g"], 1)
    said = [vote("a", "accepts"), ThoughtEvent(content="Hm.", source="g"), words("g")]
    assert await fires_at(condition, said) == 3


async def test_token_budget_counts_prompts_and_replies_of_the_opening_too() -> None:
    condition = TokenBudgetTermination(100)
    spent = [
        words("user"),
        vote("intent_analyst", "neither", tokens=(20, 5), role="intent_analyst"),
        vote("drafter", "neither", tokens=(30, 10), role="drafter"),
        vote("a", "accepts", tokens=(30, 4)),
        vote("b", "accepts", tokens=(1, 0)),
    ]
    assert await fires_at(condition, spent) == 5


async def test_token_budget_counts_guests_and_their_inner_calls() -> None:
    inner = ThoughtEvent(content="Hm.", source="g", models_usage=RequestUsage(40, 2))
    last = TextMessage(content="Yes.", source="g", models_usage=RequestUsage(50, 8))
    assert await TokenBudgetTermination(101)([inner, last]) is None
    assert await TokenBudgetTermination(100)([inner, last]) is not None


# What all have in common

Make = Callable[[], TerminationCondition]

ALL: dict[str, tuple[Make, list[Any], int]] = {
    "consensus": (lambda: ConsensusTermination(THREE, 2), turns("aA bA"), 2),
    "round_budget": (lambda: RoundBudgetTermination(THREE, 1), turns("aN bN cN"), 3),
    "token_budget": (lambda: TokenBudgetTermination(15), turns("aN bN cN"), 3),
}
each = pytest.mark.parametrize(("make", "said", "after"), ALL.values(), ids=ALL)


@pytest.mark.parametrize("reason", ALL)
async def test_the_stop_reason_is_the_whole_message(reason: str) -> None:
    make, said, _ = ALL[reason]
    condition = make()
    stop = await condition(said)
    assert stop is not None
    assert stop.content == reason
    assert stop.source == type(condition).__name__


@each
async def test_counts_over_deltas(make: Make, said: list[Any], after: int) -> None:
    assert await fires_at(make(), said) == after
    assert await make()(said) is not None, "all of it in one delta"
    assert await make()([]) is None


@each
async def test_raises_once_it_has_fired(make: Make, said: list[Any], after: int) -> None:
    condition = make()
    assert not condition.terminated
    await condition(said)
    assert condition.terminated
    with pytest.raises(TerminatedException, match=type(condition).__name__):
        await condition([])


@each
async def test_starts_anew_after_a_reset(make: Make, said: list[Any], after: int) -> None:
    condition = make()
    await fires_at(condition, said)
    await condition.reset()
    assert not condition.terminated
    assert await fires_at(condition, said) == after


@each
async def test_a_reset_forgets_half_a_count(make: Make, said: list[Any], after: int) -> None:
    condition = make()
    await fires_at(condition, said[:-1])
    await condition.reset()
    assert await fires_at(condition, said[-1:]) is None


@each
async def test_goes_through_yaml(make: Make, said: list[Any], after: int) -> None:
    condition = make()
    await fires_at(condition, said[:-1])
    written = yaml.safe_dump(condition.dump_component().model_dump(mode="json"))
    read = TerminationCondition.load_component(yaml.safe_load(written))
    assert type(read) is type(condition)
    assert read.dump_component() == condition.dump_component()
    assert await fires_at(read, said) == after, "it begins at zero"


async def test_they_combine_with_each_other_and_with_autogens() -> None:
    either = ConsensusTermination(THREE, 2) | RoundBudgetTermination(THREE, 2)
    assert await fires_at(either, turns("aA bA cA")) == 2
    await either.reset()
    assert await fires_at(either, turns("aN bN cN aN bN cN")) == 6
    both = ConsensusTermination(THREE, 2) & MaxMessageTermination(4)
    assert await fires_at(both, turns("aA bA cN aN")) == 4


async def test_a_combination_of_many_goes_through_yaml() -> None:
    of_two = ConsensusTermination(THREE) | RoundBudgetTermination(THREE, 2)
    condition = of_two | TokenBudgetTermination(1_000) | MaxMessageTermination(5)
    written = yaml.safe_dump(condition.dump_component().model_dump(mode="json"))
    read = TerminationCondition.load_component(yaml.safe_load(written))
    assert isinstance(read, AnyOf)
    assert await fires_at(read, turns("aN bN cN aN bN cN")) == 5
    assert read.terminated
    with pytest.raises(RuntimeError, match="fired already"):
        await read([])
    await read.reset()
    assert await fires_at(read, turns("aA bA cA")) == 3


async def test_a_combination_says_all_that_fired_at_once() -> None:
    condition = ConsensusTermination(THREE) | RoundBudgetTermination(THREE, 1)
    stop = await condition(turns("aA bA cA"))
    assert stop is not None
    assert stop.content == "consensus, round_budget"


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: ConsensusTermination([]), "at least one deliberator"),
        (lambda: ConsensusTermination(THREE, 4), r"quorum must be 1 to 3.*\(got 4\)"),
        (lambda: ConsensusTermination(THREE, 0), r"quorum must be 1 to 3.*\(got 0\)"),
        # A name given twice is one deliberator, so that two of it can never accept.
        (lambda: ConsensusTermination(["a", "a"], 2), r"quorum must be 1 to 1.*\(got 2\)"),
        (lambda: RoundBudgetTermination(THREE, 0), r"rounds must be >= 1 \(got 0\)"),
        (lambda: RoundBudgetTermination([], 1), "at least one speaker"),
        (lambda: TokenBudgetTermination(0), r"tokens must be >= 1 \(got 0\)"),
        (lambda: TokenBudgetTermination(-5), r"tokens must be >= 1 \(got -5\)"),
    ],
)
def test_an_impossible_condition_names_value_and_rule(make: Make, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        make()


@pytest.mark.parametrize(
    "config",
    [
        {
            "provider": "orchestration.deliberation.termination.RoundBudgetTermination",
            "config": {"rounds": 0},
        },
        {
            "provider": "orchestration.deliberation.termination.TokenBudgetTermination",
            "config": {"tokens": 0},
        },
        {
            "provider": "orchestration.deliberation.termination.ConsensusTermination",
            "config": {"deliberators": []},
        },
    ],
)
def test_an_impossible_component_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TerminationCondition.load_component(config)
