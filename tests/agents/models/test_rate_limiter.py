"""What `RateLimiter` promises about slots, order, pauses and cancellation; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TypeVar

import pytest

from agents.models.context import CallContext, StopSignal
from agents.models.errors import CallNotStarted
from agents.models.rate_limiter import Outcome, RateLimiter
from tests.agents.models.clock import run

T = TypeVar("T")
ANYONE = CallContext()


def in_virtual_time(test: Callable[[RateLimiter], Awaitable[T]], ceiling: int | None = None) -> T:
    """Runs a test with a limiter of its own, and checks that no slot is lost."""

    async def main() -> T:
        limiter = RateLimiter(asyncio.get_running_loop())
        limiter.bound(1, ceiling)
        result = await test(limiter)
        assert limiter.waiting == 0
        assert limiter._timer is None, "no timer runs while nothing waits"
        return result

    return run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


async def begin(limiter: RateLimiter, context: CallContext = ANYONE) -> int:
    return limiter.begin() or await limiter.wait(context)


# Slots -------------------------------------------------------------------------------------------


def test_an_attempt_that_need_not_wait_begins_at_once() -> None:
    async def test(limiter: RateLimiter) -> None:
        first = limiter.begin()
        assert first
        assert (limiter.in_flight, limiter.waiting, limiter.concurrency_limit) == (1, 0, None)
        limiter.end(first, Outcome.ANSWERED)
        assert limiter.in_flight == 0

    in_virtual_time(test)


def test_a_free_slot_goes_to_the_oldest_chat() -> None:
    async def test(limiter: RateLimiter) -> list[str]:
        taken = limiter.begin()
        order: list[str] = []

        async def chat(name: str, priority: int) -> None:
            number = await begin(limiter, CallContext(priority=priority))
            order.append(name)
            limiter.end(number, Outcome.ANSWERED)

        chats = [
            asyncio.create_task(chat(name, priority))
            for name, priority in [("young", 9), ("old", 1), ("middle", 5), ("middle too", 5)]
        ]
        await asyncio.sleep(1)
        assert (limiter.waiting, order) == (4, [])
        assert limiter.begin() == 0, "no attempt overtakes those that wait"
        limiter.end(taken, Outcome.ANSWERED)
        await asyncio.gather(*chats)
        return order

    assert in_virtual_time(test, ceiling=1) == ["old", "middle", "middle too", "young"]


def test_an_attempt_cancelled_while_waiting_takes_no_slot() -> None:
    async def test(limiter: RateLimiter) -> None:
        taken = limiter.begin()
        waiting = [asyncio.create_task(limiter.wait(CallContext(n))) for n in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert limiter.waiting == 1
        limiter.end(taken, Outcome.ANSWERED)
        limiter.end(await waiting[2], Outcome.ANSWERED)
        assert limiter.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_an_attempt_cancelled_just_after_its_turn_returns_its_slot() -> None:
    async def test(limiter: RateLimiter) -> None:
        taken = limiter.begin()
        cancelled = asyncio.create_task(limiter.wait(CallContext(0)))
        other = asyncio.create_task(limiter.wait(CallContext(1)))
        await asyncio.sleep(0)
        limiter.end(taken, Outcome.ANSWERED)
        cancelled.cancel()  # its turn has come, but it has not run since
        number = await other
        assert limiter.in_flight == 1
        limiter.end(number, Outcome.OTHER)
        assert limiter.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_many_attempts_can_be_cancelled_at_once() -> None:
    async def test(limiter: RateLimiter) -> None:
        taken = limiter.begin()
        waiting = [asyncio.create_task(limiter.wait(CallContext(n))) for n in range(20)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        limiter.end(taken, Outcome.ANSWERED)  # before any of them has run
        for task in waiting[1::2]:
            limiter.end(await task, Outcome.ANSWERED)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert limiter.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_the_lowest_ceiling_of_the_clients_of_an_endpoint_holds() -> None:
    async def test(limiter: RateLimiter) -> None:
        limiter.bound(1, 5)
        limiter.bound(2, None)
        limiter.bound(9, 8)
        assert limiter.concurrency_limit == 5

    in_virtual_time(test)


# Stopping ----------------------------------------------------------------------------------------


def test_a_stop_signal_ends_the_attempts_that_wait_and_no_others() -> None:
    async def test(limiter: RateLimiter) -> None:
        signal = StopSignal()
        context = CallContext(stop_signal=signal)
        under_way = limiter.begin()
        waiting = [asyncio.create_task(limiter.wait(context)) for _ in range(3)]
        await asyncio.sleep(0)
        signal.set()
        limiter.end(under_way, Outcome.ANSWERED)  # at the same time
        for task in waiting:
            with pytest.raises(CallNotStarted):
                await task
        assert (limiter.in_flight, limiter.waiting) == (0, 0)
        with pytest.raises(CallNotStarted):
            await limiter.wait(context)

    in_virtual_time(test, ceiling=1)


def test_a_stop_signal_ends_sleeps() -> None:
    async def main() -> None:
        signal = StopSignal()
        started = now()
        await signal.sleep(5)
        assert now() - started == pytest.approx(5)
        sleeper = asyncio.create_task(signal.sleep(1000))
        await asyncio.sleep(1)
        assert not signal.is_set()
        signal.set()
        with pytest.raises(CallNotStarted):
            await sleeper
        with pytest.raises(CallNotStarted):
            await signal.sleep(1)
        assert now() - started == pytest.approx(6)

    run(main())


def test_a_cancelled_sleep_leaves_nothing_behind() -> None:
    async def main() -> None:
        signal = StopSignal()
        sleeper = asyncio.create_task(signal.sleep(1000))
        await asyncio.sleep(0)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        assert not signal._waiting

    run(main())


# Ramping up -------------------------------------------------------------------------------------


async def starts(limiter: RateLimiter, calls: int, context: CallContext = ANYONE) -> list[float]:
    """When each of many simultaneous calls began, in seconds from now."""
    zero = now()
    begun: list[float] = []

    async def call() -> None:
        number = await begin(limiter, context)
        begun.append(now() - zero)
        await asyncio.sleep(1)
        limiter.end(number, Outcome.ANSWERED)

    await asyncio.gather(*(call() for _ in range(calls)))
    return begun


@pytest.mark.parametrize("ceiling", [None, 200])
def test_the_first_calls_to_an_idle_endpoint_are_spread(ceiling: int | None) -> None:
    begun = in_virtual_time(lambda limiter: starts(limiter, 200), ceiling)
    assert sum(begin < 0.02 for begin in begun) < 50
    assert max(begun) < 0.4
    assert sum(begun) / len(begun) < 0.3


def test_a_single_chat_is_not_held_up() -> None:
    assert in_virtual_time(lambda limiter: starts(limiter, 1)) == [0.0]
    assert max(in_virtual_time(lambda limiter: starts(limiter, 4))) < 0.01


def test_retry_after_holds_up_all_calls_to_the_endpoint_and_then_they_begin_one_by_one() -> None:
    async def test(limiter: RateLimiter) -> list[float]:
        for _ in range(20):
            await begin(limiter)
        for number in range(1, 21):
            limiter.end(number, Outcome.THROTTLED, 7.0)
        return await starts(limiter, 20)

    begun = in_virtual_time(test)
    assert min(begun) >= 7.0
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert min(gaps) > 0


def test_a_retry_after_of_an_hour_holds_up_the_others_for_a_minute() -> None:
    async def test(limiter: RateLimiter) -> float:
        limiter.end(limiter.begin(), Outcome.THROTTLED, 3600.0)
        return (await starts(limiter, 1))[0]

    assert in_virtual_time(test) == pytest.approx(60, abs=0.1)


def test_nothing_is_made_up_for_after_a_pause() -> None:
    async def test(limiter: RateLimiter) -> list[float]:
        limiter.end(limiter.begin(), Outcome.ANSWERED)
        limiter._rates._settle(10.0)
        await asyncio.sleep(20)
        return await starts(limiter, 11)

    begun = in_virtual_time(test)
    assert sum(begin < 0.05 for begin in begun) <= 2
    assert max(begun) == pytest.approx(1.0, abs=0.15)


def test_a_rate_that_holds_nothing_up_is_dropped() -> None:
    async def test(limiter: RateLimiter) -> None:
        for number in [await begin(limiter) for _ in range(10)]:
            limiter.end(number, Outcome.THROTTLED)
        assert limiter.rate_limit is not None
        for _ in range(10):
            await asyncio.sleep(5)
            limiter.end(await begin(limiter), Outcome.ANSWERED)
        assert limiter.rate_limit is None

    in_virtual_time(test)


# Concurrency -------------------------------------------------------------------------------------


def test_a_flood_of_503s_lowers_the_limit_once_and_not_below_what_is_served_nor_the_floor() -> None:
    async def test(limiter: RateLimiter) -> None:
        limiter.bound(8, None)
        numbers = [await begin(limiter) for _ in range(100)]
        for number in numbers[:70]:
            limiter.end(number, Outcome.BUSY)
        first = limiter.concurrency_limit
        assert first is not None
        assert first >= 30, "thirty are being served"
        for number in numbers[70:]:
            limiter.end(number, Outcome.BUSY)
        assert limiter.concurrency_limit == first, "these began before it was lowered"
        for _ in range(200):
            both = [await begin(limiter), await begin(limiter)]
            limiter.end(both[0], Outcome.BUSY)
            limiter.end(both[1], Outcome.BUSY)
        assert limiter.concurrency_limit == 8

    in_virtual_time(test)


def test_a_limit_that_holds_calls_up_is_raised_again() -> None:
    async def test(limiter: RateLimiter) -> None:
        numbers = [await begin(limiter) for _ in range(40)]
        for number in numbers[:30]:
            limiter.end(number, Outcome.BUSY)
        cut = limiter.concurrency_limit
        for number in numbers[30:]:
            limiter.end(number, Outcome.ANSWERED)
        assert limiter.concurrency_limit == cut, "it held nothing up"
        await asyncio.gather(*(starts(limiter, 100) for _ in range(3)))
        assert limiter.concurrency_limit is not None
        assert cut is not None
        assert limiter.concurrency_limit > cut + 20

    in_virtual_time(test)
