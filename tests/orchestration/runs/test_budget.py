"""What limits promise: no call is begun that would pass them, and spending survives sessions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.config import Price
from agents.models.usage import Usage
from orchestration.deliberation.recipe import Cast
from orchestration.journal import ModelSpend
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.run import LimitReached
from policies import InputError
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    Held,
    everything_in,
    execute,
    opened,
    prompts,
    records,
    until,
)
from tests.scripted import ScriptedClient, agreeable, cast, kind_of_turn, result, scripted

PROMPT, COMPLETION = 10_000, 10  # about as many as prompts of that size have
TOKENS = PROMPT + COMPLETION  # of every call here
PRICE = Price(prompt=1_000, completion=5_000)
COST = 10.05  # of every call here, at that price


def even(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    """A script of a chat in which everybody agrees, and every call takes as many tokens."""
    return result(json.dumps(agreeable(messages, arguments)), prompt=PROMPT, completion=COMPLETION)


def priced(price: Price | None = PRICE) -> tuple[Cast, ScriptedClient]:
    """The tests' cast with a price."""
    made, client = cast(even)
    model = made.models["default"]
    model.config = model.config.model_copy(update={"price": price})
    return made, client


# Counting ----------------------------------------------------------------------------------------


def usage(prompt: int, completion: int, cached: int = 0) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def test_a_price_is_per_million_tokens_and_cached_ones_may_cost_less() -> None:
    tokens = usage(3_000_000, 500_000, cached=1_000_000)
    assert Price(prompt=2, completion=8).cost(tokens) == 3 * 2 + 0.5 * 8
    assert Price(prompt=2, completion=8, cached=0.5).cost(tokens) == 2 * 2 + 1 * 0.5 + 0.5 * 8


def test_every_call_is_counted_at_the_price_of_its_time() -> None:
    model, _ = scripted([])
    model.config = model.config.model_copy(update={"price": Price(prompt=1_000, completion=0)})
    dear = Price(prompt=5_000, completion=0)
    foreign = Price(prompt=7, completion=0, currency="EUR")
    earlier = [
        ModelSpend("default", dear.model_dump_json(), 2, 2_000, 1, 0),
        ModelSpend("default", foreign.model_dump_json(), 1, 1_000_000, 0, 0),
        ModelSpend("default", "", 4, 900, 9, 0),
    ]
    budget = Budget(Limits(), [model], earlier)
    budget.add(model, usage(1_000, 10), 0)
    assert budget.costs == {"USD": pytest.approx(10 + 1), "EUR": pytest.approx(7)}
    assert (budget.calls, budget.unpriced) == (8, 4)
    assert budget.usage == usage(2_000 + 1_000_000 + 900 + 1_000, 1 + 0 + 9 + 10)


def test_a_call_is_begun_if_all_in_flight_fit_even_if_each_takes_as_much_as_it_can() -> None:
    model, _ = scripted([])
    model.config = model.config.model_copy(update={"max_tokens": 100})
    budget = Budget(Limits(tokens=1_100), [model])
    # Nothing is known: the first call is alone, and expected to take a token for four bytes.
    first = budget.begin(model, 800, 100)
    assert first is not None
    assert budget.begin(model, 8, 100) is None
    budget.add(model, usage(200, 10), 800)
    budget.end(first)
    # From now on, it is known how the endpoint counts: 1.1 times that, and 100 for the reply.
    begun = [budget.begin(model, 800, 100) for _ in range(4)]
    assert [reserved and round(reserved.tokens) for reserved in begun] == [320, 320, None, None]
    for reserved in begun[:2]:
        assert reserved is not None
        budget.add(model, usage(200, 10), 800)
        budget.end(reserved)
    # 630 are spent. One alone fits with a reply like those so far; two do not.
    assert budget.begin(model, 800, 100) is not None
    assert budget.begin(model, 800, 100) is None
    assert budget.used_up() is None


def test_a_call_that_fails_takes_nothing() -> None:
    model, _ = scripted([])
    budget = Budget(Limits(tokens=1_000), [model])
    for _ in range(9):
        reserved = budget.begin(model, 800, 100)
        assert reserved is not None
        budget.end(reserved)
    assert budget.usage.tokens == 0


def test_answers_that_could_not_be_used_are_paid_for() -> None:
    model, _ = scripted([])
    budget = Budget(Limits(tokens=100), [model])
    budget.add_unusable(model, usage(90, 9), 1)
    budget.add_unusable(model, usage(0, 0), 0, abandoned=2)
    assert (budget.calls, budget.unusable, budget.abandoned) == (1, 1, 2)
    budget.add_unusable(model, usage(1, 0), 1)
    assert budget.used_up() == "--max-tokens 100 is reached (100 spent)"


def test_time_is_up_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("orchestration.runs.budget.time.monotonic", lambda: now[0])
    budget = Budget(Limits(seconds=60), [])
    assert (budget.used_up(), budget.seconds) == (None, 0)
    now[0] = 160.0
    assert budget.used_up() == "--max-time is reached"


# Runs that reach a limit -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            Limits(tokens=95_000),
            f"--max-tokens 95000 leaves no room for another call ({9 * TOKENS} spent).",
        ),
        (Limits(cost=95), f"--max-cost 95 leaves no room for another call ({9 * COST:g} spent)."),
    ],
)
async def test_no_call_is_begun_that_would_pass_the_limit(
    limits: Limits, reason: str, folder: Path
) -> None:
    made, client = priced()
    summary = await execute(folder, made, prompts(5), 1, limits=limits)
    assert len(client.requests) == 9  # a whole chat, and half of the next
    assert summary.outcomes == {"completed": 1, "over_budget": 1}
    assert (summary.phase, summary.why_stopped) == ("stopped", reason)
    assert summary.cost == {"USD": pytest.approx(9 * COST)}
    assert summary.usage == usage(9 * PROMPT, 9 * COMPLETION)
    cut_off = records(folder)[1]
    assert (cut_off.outcome, cut_off.problem) == ("over_budget", reason)
    assert [turn.role for turn in cut_off.turns] == ["intent_analyst", "drafter", "deliberator"]


@pytest.mark.parametrize("concurrency", [1, 7, 20])
async def test_with_many_chats_at_once_the_limit_is_not_passed_either(
    concurrency: int, folder: Path
) -> None:
    made, client = priced()
    limits = Limits(tokens=100 * TOKENS)
    summary = await execute(folder, made, prompts(50), concurrency, limits=limits)
    assert 100 - concurrency <= len(client.requests) <= 100
    assert summary.interrupted
    assert summary.outcomes.get("failed") is None


async def test_before_it_is_known_what_a_call_comes_to_only_one_is_begun(
    folder: Path, no_hang: None
) -> None:
    made, client = priced()
    held = Held(client)
    async with opened(folder, made) as run:
        limits = Limits(tokens=10 * TOKENS)
        running = asyncio.create_task(run.execute(prompts(50), 20, limits=limits))
        await until(lambda: run.summary.active == 20 and held.calls)
        assert held.calls == 1
        held.let_go()
        await running
    assert len(client.requests) <= 10


async def test_a_chat_that_had_not_said_anything_yet_just_waits(folder: Path) -> None:
    made, _ = priced()
    limits = Limits(tokens=int((CALLS_PER_CHAT + 0.4) * TOKENS))
    summary = await execute(folder, made, prompts(5), 1, limits=limits)
    assert summary.outcomes == {"completed": 1}
    assert summary.why_stopped


@pytest.mark.parametrize("name", ["tokens", "cost"])
async def test_with_the_limit_still_reached_it_says_so_at_once(name: str, folder: Path) -> None:
    by_tokens = name == "tokens"
    limits = Limits(tokens=85_000) if by_tokens else Limits(cost=85)
    summary = await execute(folder, priced()[0], prompts(5), 1, limits=limits)
    limits = Limits(tokens=summary.usage.tokens) if by_tokens else Limits(cost=summary.cost["USD"])
    before = everything_in(folder)
    made, client = priced()
    with pytest.raises(LimitReached, match=rf"--max-{name} \S+ is reached") as caught:
        await execute(folder, made, prompts(5), 1, limits=limits)
    assert "Raise the limit" in caught.value.remedy
    assert client.requests == []
    assert before.count(b"over_budget") == everything_in(folder).count(b"over_budget")


@pytest.mark.parametrize("raised", [Limits(tokens=999_999), Limits()])
async def test_with_a_higher_limit_it_goes_on_and_repeats_no_call(
    raised: Limits, folder: Path
) -> None:
    first, client = priced()
    await execute(folder, first, prompts(3), 1, limits=Limits(tokens=9 * TOKENS))
    again, further = priced()
    summary = await execute(folder, again, prompts(3), 1, limits=raised)
    assert summary.outcomes == {"completed": 3}
    assert len(client.requests) + len(further.requests) == 3 * CALLS_PER_CHAT
    assert summary.calls == 3 * CALLS_PER_CHAT


async def test_spending_survives_sessions_each_call_at_the_price_of_its_time(folder: Path) -> None:
    await execute(folder, priced()[0], prompts(1))
    await execute(folder, priced(Price(prompt=3_000, completion=15_000))[0], prompts(2))
    limits = Limits(cost=CALLS_PER_CHAT * 4 * COST - 0.01)
    with pytest.raises(LimitReached, match="--max-cost"):
        await execute(folder, priced()[0], prompts(3), limits=limits)
    await execute(folder, priced(None)[0], prompts(3))
    summary = await execute(folder, priced()[0], prompts(3))
    assert summary.cost == {"USD": pytest.approx(CALLS_PER_CHAT * (COST + 3 * COST))}
    assert summary.unpriced_calls == CALLS_PER_CHAT
    assert summary.calls == 3 * CALLS_PER_CHAT


async def test_time_counts_the_session_alone(folder: Path, no_hang: None) -> None:
    made, client = priced()
    held = Held(client, lambda messages: kind_of_turn(messages) == "deliberation")
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(9), 2, limits=Limits(seconds=2)))
        await until(lambda: held.calls == 2)
        await until(lambda: run.summary.phase == "stopping")
        held.let_go()
        summary = await running
    assert summary.why_stopped == "--max-time is reached."
    assert summary.outcomes == {"over_budget": 2}
    assert len(client.requests) == 2 * 3, "calls under way are finished"
    again, further = priced()
    summary = await execute(folder, again, prompts(2), limits=Limits(seconds=60))
    assert summary.outcomes == {"completed": 2}
    assert len(further.requests) == 2 * CALLS_PER_CHAT - len(client.requests)


# Limits that cannot be held ----------------------------------------------------------------------


async def test_a_limit_on_the_cost_needs_prices(tmp_path: Path) -> None:
    made, client = priced(None)
    with pytest.raises(InputError, match="the model 'default' has none") as caught:
        await execute(tmp_path / "run", made, prompts(1), limits=Limits(cost=1))
    assert "--price" in caught.value.remedy
    assert client.requests == []
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240


async def test_a_limit_on_the_cost_needs_the_price_of_every_call(folder: Path) -> None:
    await execute(folder, priced(None)[0], prompts(1))
    made, client = priced()
    with pytest.raises(InputError, match="6 calls of earlier sessions have no price") as caught:
        await execute(folder, made, prompts(2), limits=Limits(cost=9))
    assert "--max-tokens" in caught.value.remedy
    assert client.requests == []


async def test_a_limit_on_the_cost_needs_one_currency(folder: Path) -> None:
    await execute(folder, priced()[0], prompts(1))
    euros, client = priced(Price(prompt=1, completion=1, currency="EUR"))
    with pytest.raises(InputError, match="in several: EUR, USD"):
        await execute(folder, euros, prompts(2), limits=Limits(cost=9))
    assert client.requests == []
    euros, _ = priced(Price(prompt=1, completion=1, currency="EUR"))
    summary = await execute(folder, euros, prompts(2))
    assert set(summary.cost) == {"USD", "EUR"}
