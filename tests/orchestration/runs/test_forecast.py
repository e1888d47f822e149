"""What the forecast promises: intervals that hold, a pilot that is no waste, no guessed price."""

from __future__ import annotations

import asyncio
import json
import math
import random
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.config import Price
from agents.models.usage import Usage
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.recipe import Cast
from orchestration.journal import Journal
from orchestration.prompts.reader import Prompt
from orchestration.runs.forecast import CONFIDENCE, Estimate, Forecast, Pilot, forecast, total
from orchestration.runs.reader import RunReader
from tests.orchestration.journals import named, take_in
from tests.orchestration.run_helpers import CALLS_PER_CHAT, execute, opened, prompts, records, until
from tests.scripted import agreeable, cast, result

PROMPT, COMPLETION, CACHED = 100, 10, 40  # tokens of every call here


def even(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    said = json.dumps(agreeable(messages, arguments))
    return result(said, prompt=PROMPT, completion=COMPLETION, cached=CACHED)


# The interval ------------------------------------------------------------------------------------


def test_the_interval_is_students_for_a_sum_of_further_prompts() -> None:
    sample = [10.0, 12.0, 9.0, 13.0, 11.0]  # mean 11, variance 2.5
    found = total(sample, 20)
    # By hand: t(0.95, 4) = 2.1318; 20 * 2.1318 * sqrt(2.5) * sqrt(1/5 + 1/20) = 33.71
    assert found.expected == pytest.approx(220)
    assert found.low == pytest.approx(220 - 33.71, abs=0.3)
    assert found.high == pytest.approx(220 + 33.71, abs=0.3)


def test_what_is_always_the_same_is_certain() -> None:
    assert total([7.0] * 10, 100) == Estimate(expected=700, low=700, high=700)


def test_of_nothing_to_come_there_is_nothing() -> None:
    assert total([3.0, 9.0], 0) == Estimate(expected=0, low=0, high=0)


def test_one_prompt_says_nothing_of_the_spread() -> None:
    assert total([5.0], 10) == Estimate(expected=50, low=0, high=math.inf)


def test_nothing_takes_less_than_nothing() -> None:
    assert total([0.0, 100.0], 10).low == 0


@pytest.mark.parametrize(("pilot", "prompts"), [(3, 5), (5, 200), (20, 20), (20, 1000)])
def test_the_interval_holds_as_often_as_it_says(pilot: int, prompts: int) -> None:
    draw = random.Random(7)
    held = 0
    for _ in range(2000):
        sample = [draw.gauss(100, 30) for _ in range(pilot)]
        # The sum of so many further draws, drawn at once.
        further = draw.gauss(100 * prompts, 30 * math.sqrt(prompts))
        found = total(sample, prompts)
        held += found.low <= further <= found.high
    assert held / 2000 == pytest.approx(CONFIDENCE, abs=0.025)


def test_it_holds_for_a_run_of_short_and_long_chats_too() -> None:
    """Chats agree after one round, or argue for several: neither normal nor symmetric."""
    draw = random.Random(7)
    held = 0
    for _ in range(1000):
        chats = [6 + 3 * min(4, int(draw.expovariate(1))) for _ in range(300)]
        found = total(chats[:20], 280)
        held += found.low <= sum(chats[20:]) <= found.high
    assert held / 1000 == pytest.approx(CONFIDENCE, abs=0.05)


# The pilot ---------------------------------------------------------------------------------------


async def test_the_pilot_is_drawn_at_random_and_the_same_for_the_same_seed(
    journal: Journal,
) -> None:
    intake = await take_in(journal, named(*(f"p{n}" for n in range(1000))))
    pilots = [Pilot(journal, 20, seed) for seed in (0, 0, 1)]
    for pilot in pilots:
        await pilot.choose(intake)
    drawn = [pilot.numbers for pilot in pilots]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 20
    assert statistics.fmean(drawn[0]) == pytest.approx(500, abs=200), "not the first twenty"


async def test_a_pilot_larger_than_the_source_is_all_of_it(journal: Journal) -> None:
    intake = await take_in(journal, named("a", "b", "c"))
    pilot = Pilot(journal, 20)
    await pilot.choose(intake)
    assert (pilot.numbers, pilot.prompts) == ([0, 1, 2], 3)


async def plan(
    folder: Path, made: Cast, number: int, size: int, price: Price | None = None
) -> Forecast:
    """A pilot, and what is forecast from it."""
    async with opened(folder, made) as run:
        pilot = Pilot(run.journal, size)
        summary = await run.execute(prompts(number), 2, choose=pilot.choose)
        found = forecast(
            RunReader(run.journal, RECORDS), pilot, summary.pending, 4, lambda _: price
        )
    assert found is not None
    return found


async def test_the_pilots_prompts_count_as_work_done(folder: Path) -> None:
    made, client = cast(even)
    found = await plan(folder, made, 30, 5)
    assert (found.prompts, found.pilot, found.pending) == (30, 5, 25)
    assert found.outcomes == {"completed": 5}
    assert len(client.requests) == 5 * CALLS_PER_CHAT
    assert len(records(folder)) == 5

    made, further = cast(even)
    summary = await execute(folder, made, prompts(30))
    assert summary.done_before == 5
    assert len(further.requests) == 25 * CALLS_PER_CHAT == found.calls.expected


async def test_the_same_pilot_again_costs_nothing(folder: Path) -> None:
    first = await plan(folder, cast(even)[0], 30, 5)
    made, client = cast(even)
    again = await plan(folder, made, 30, 5)
    assert client.requests == []
    assert again == first


async def test_the_forecast_is_about_the_prompts_without_an_outcome(folder: Path) -> None:
    price = Price(prompt=1_000, completion=5_000, cached=100)
    found = await plan(folder, cast(even)[0], 30, 5, price)
    calls = 25 * CALLS_PER_CHAT

    def certain(expected: float) -> Any:
        return pytest.approx([expected] * 3)

    for estimate, expected in (
        (found.calls, calls),
        (found.prompt_tokens, calls * PROMPT),
        (found.cached_tokens, calls * CACHED),
        (found.completion_tokens, calls * COMPLETION),
        (found.cost["USD"], calls * (60 * 1_000 + 40 * 100 + 10 * 5_000) / 1e6),
    ):
        assert [estimate.expected, estimate.low, estimate.high] == certain(expected)
    assert found.unpriced == []
    assert found.concurrency == 4
    assert 0 <= found.seconds.low <= found.seconds.expected <= found.seconds.high


async def test_without_a_price_there_is_no_cost(folder: Path) -> None:
    found = await plan(folder, cast(even)[0], 10, 3)
    assert (found.cost, found.unpriced) == ({}, ["default"])


async def test_when_all_is_done_nothing_is_to_come(folder: Path) -> None:
    found = await plan(folder, cast(even)[0], 3, 20)
    assert (found.pending, found.calls.high, found.seconds.high) == (0, 0, 0)


async def test_a_pilot_without_outcomes_gives_no_forecast(journal: Journal) -> None:
    pilot = Pilot(journal, 2)
    await pilot.choose(await take_in(journal, named("a", "b", "c")))
    assert forecast(RunReader(journal, RECORDS), pilot, 3, 1, lambda _: None) is None


async def test_a_plan_can_be_stopped_while_its_source_is_read(folder: Path, no_hang: None) -> None:
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from prompts(3)
        more.wait(10)

    made, client = cast(even)
    async with opened(folder, made) as run:
        pilot = Pilot(run.journal, 2)
        running = asyncio.create_task(run.execute(slow(), 2, choose=pilot.choose))
        await until(lambda: run.journal.count_prompts() == 3)
        run.stop()
        summary = await asyncio.wait_for(running, 0.3)
    more.set()
    assert summary.interrupted
    assert client.requests == []


async def test_tokens_that_the_endpoint_does_not_count_are_marked(folder: Path) -> None:
    def uncounted(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
        said = even(messages, arguments)
        said.tokens = Usage(prompt_tokens=50, completion_tokens=10, estimated_tokens=60)
        return said

    found = await plan(folder, cast(uncounted)[0], 30, 5)
    assert found.estimated_tokens.expected == 25 * CALLS_PER_CHAT * 60
