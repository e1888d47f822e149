"""What `RateLimiter` promises of slots, order, pauses and those who leave; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from agents.models.context import CallContext, StopSignal
from agents.models.errors import CallNotStarted
from agents.models.rate_limiter import Outcome, RateLimiter
from tests.agents.models.clock import run

T = TypeVar("T")
ANYONE = CallContext()


def in_virtual_time(test: Callable[[RateLimiter], Awaitable[T]], ceiling: int | None = None) -> T:
    """Runs a test with a throttle of its own, and sees to it that no slot is lost."""

    async def main() -> T:
        throttle = RateLimiter("endpoint", asyncio.get_running_loop())
        throttle.bound(1, ceiling)
        result = await test(throttle)
        assert throttle.waiting == 0
        assert throttle._timer is None, "nothing waits, so nothing ticks"
        return result

    return run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


async def begin(throttle: RateLimiter, context: CallContext = ANYONE) -> int:
    return throttle.begin() or await throttle.wait(context)


# Slots -------------------------------------------------------------------------------------------


def test_who_need_not_wait_begins_at_once() -> None:
    async def test(throttle: RateLimiter) -> None:
        first = throttle.begin()
        assert first
        assert (throttle.in_flight, throttle.waiting, throttle.limit) == (1, 0, None)
        throttle.end(first, Outcome.ANSWERED)
        assert throttle.in_flight == 0

    in_virtual_time(test)


def test_a_slot_that_is_free_again_goes_to_the_oldest_chat() -> None:
    async def test(throttle: RateLimiter) -> list[str]:
        taken = throttle.begin()
        order: list[str] = []

        async def chat(name: str, priority: int) -> None:
            number = await begin(throttle, CallContext(priority=priority))
            order.append(name)
            throttle.end(number, Outcome.ANSWERED)

        chats = [
            asyncio.create_task(chat(name, priority))
            for name, priority in [("young", 9), ("old", 1), ("middle", 5), ("middle too", 5)]
        ]
        await asyncio.sleep(1)
        assert (throttle.waiting, order) == (4, [])
        assert throttle.begin() == 0, "nobody passes those who wait"
        throttle.end(taken, Outcome.ANSWERED)
        await asyncio.gather(*chats)
        return order

    assert in_virtual_time(test, ceiling=1) == ["old", "middle", "middle too", "young"]


def test_who_leaves_while_waiting_takes_nothing_along() -> None:
    async def test(throttle: RateLimiter) -> None:
        taken = throttle.begin()
        waiting = [asyncio.create_task(throttle.wait(CallContext(n))) for n in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert throttle.waiting == 1
        throttle.end(taken, Outcome.ANSWERED)
        throttle.end(await waiting[2], Outcome.ANSWERED)
        assert throttle.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_who_leaves_with_the_slot_in_hand_gives_it_back() -> None:
    async def test(throttle: RateLimiter) -> None:
        taken = throttle.begin()
        leaver = asyncio.create_task(throttle.wait(CallContext(0)))
        other = asyncio.create_task(throttle.wait(CallContext(1)))
        await asyncio.sleep(0)
        throttle.end(taken, Outcome.ANSWERED)
        leaver.cancel()  # it was let begin, but has not come round to it
        number = await other
        assert throttle.in_flight == 1
        throttle.end(number, Outcome.OTHER)
        assert throttle.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_many_who_leave_at_once_do_not_confuse_it() -> None:
    async def test(throttle: RateLimiter) -> None:
        taken = throttle.begin()
        waiting = [asyncio.create_task(throttle.wait(CallContext(n))) for n in range(20)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        throttle.end(taken, Outcome.ANSWERED)  # before any of them has noticed
        for task in waiting[1::2]:
            throttle.end(await task, Outcome.ANSWERED)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert throttle.in_flight == 0

    in_virtual_time(test, ceiling=1)


def test_where_clients_share_an_endpoint_the_lower_ceiling_holds() -> None:
    async def test(throttle: RateLimiter) -> None:
        throttle.bound(1, 5)
        throttle.bound(2, None)
        throttle.bound(9, 8)
        assert throttle.limit == 5

    in_virtual_time(test)


# Halting -----------------------------------------------------------------------------------------


def test_a_halt_sends_all_away_who_wait_for_a_slot_and_leaves_the_others() -> None:
    async def test(throttle: RateLimiter) -> None:
        halt = StopSignal()
        context = CallContext(stop_signal=halt)
        under_way = throttle.begin()
        waiting = [asyncio.create_task(throttle.wait(context)) for _ in range(3)]
        await asyncio.sleep(0)
        halt.set()
        throttle.end(under_way, Outcome.ANSWERED)  # in the same moment
        for task in waiting:
            with pytest.raises(CallNotStarted):
                await task
        assert (throttle.in_flight, throttle.waiting) == (0, 0)
        with pytest.raises(CallNotStarted):
            await throttle.wait(context)

    in_virtual_time(test, ceiling=1)


def test_a_halt_wakes_who_sleeps() -> None:
    async def main() -> None:
        halt = StopSignal()
        started = now()
        await halt.sleep(5)
        assert now() - started == pytest.approx(5)
        sleeper = asyncio.create_task(halt.sleep(1000))
        await asyncio.sleep(1)
        assert not halt.is_set()
        halt.set()
        with pytest.raises(CallNotStarted):
            await sleeper
        with pytest.raises(CallNotStarted):
            await halt.sleep(1)
        assert now() - started == pytest.approx(6)

    run(main())


def test_who_is_cancelled_while_asleep_is_forgotten() -> None:
    async def main() -> None:
        halt = StopSignal()
        sleeper = asyncio.create_task(halt.sleep(1000))
        await asyncio.sleep(0)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper
        assert not halt._waiting

    run(main())


# Beginning gently --------------------------------------------------------------------------------


async def starts(throttle: RateLimiter, calls: int, context: CallContext = ANYONE) -> list[float]:
    """When each of many calls began that all want to at once, in seconds from now."""
    zero = now()
    begun: list[float] = []

    async def call() -> None:
        number = await begin(throttle, context)
        begun.append(now() - zero)
        await asyncio.sleep(1)
        throttle.end(number, Outcome.ANSWERED)

    await asyncio.gather(*(call() for _ in range(calls)))
    return begun


@pytest.mark.parametrize("ceiling", [None, 200])
def test_an_idle_endpoint_is_not_met_by_all_chats_in_one_moment(ceiling: int | None) -> None:
    begun = in_virtual_time(lambda throttle: starts(throttle, 200), ceiling)
    assert sum(begin < 0.02 for begin in begun) < 50
    assert max(begun) < 0.4
    assert sum(begun) / len(begun) < 0.3


def test_a_chat_alone_is_not_held_up() -> None:
    assert in_virtual_time(lambda throttle: starts(throttle, 1)) == [0.0]
    assert max(in_virtual_time(lambda throttle: starts(throttle, 4))) < 0.01


def test_retry_after_holds_up_all_calls_to_the_endpoint_and_they_come_back_one_by_one() -> None:
    async def test(throttle: RateLimiter) -> list[float]:
        for _ in range(20):
            await begin(throttle)
        for number in range(1, 21):
            throttle.end(number, Outcome.THROTTLED, 7.0)
        return await starts(throttle, 20)

    begun = in_virtual_time(test)
    assert min(begun) >= 7.0
    gaps = [later - earlier for earlier, later in pairwise(begun)]
    assert min(gaps) > 0


def test_retry_after_of_an_hour_is_a_minute_for_the_others() -> None:
    async def test(throttle: RateLimiter) -> float:
        throttle.end(throttle.begin(), Outcome.THROTTLED, 3600.0)
        return (await starts(throttle, 1))[0]

    assert in_virtual_time(test) == pytest.approx(60, abs=0.1)


def test_after_a_pause_nothing_is_made_up_for() -> None:
    async def test(throttle: RateLimiter) -> list[float]:
        pace: Any = throttle._pace
        throttle.end(throttle.begin(), Outcome.THROTTLED)
        pace.rate = pace._cut_rate = 10.0
        await asyncio.sleep(20)
        return await starts(throttle, 11)

    begun = in_virtual_time(test)
    assert sum(begin < 0.05 for begin in begun) <= 2
    assert max(begun) == pytest.approx(1.0, abs=0.15)


def test_a_pace_that_nobody_has_to_keep_is_forgotten() -> None:
    async def test(throttle: RateLimiter) -> None:
        throttle.end(throttle.begin(), Outcome.THROTTLED)
        assert throttle.pace is not None
        for _ in range(10):
            await asyncio.sleep(5)
            throttle.end(await begin(throttle), Outcome.ANSWERED)
        assert throttle.pace is None

    in_virtual_time(test)


# The limit ---------------------------------------------------------------------------------------


def test_a_flood_of_503s_cuts_once_and_not_below_what_is_served_nor_the_floor() -> None:
    async def test(throttle: RateLimiter) -> None:
        throttle.bound(8, None)
        numbers = [await begin(throttle) for _ in range(100)]
        for number in numbers[:70]:
            throttle.end(number, Outcome.BUSY)
        first = throttle.limit
        assert first is not None
        assert first >= 30, "thirty are being served"
        for number in numbers[70:]:
            throttle.end(number, Outcome.BUSY)
        assert throttle.limit == first, "these were begun before the cut"
        for _ in range(200):
            both = [await begin(throttle), await begin(throttle)]
            throttle.end(both[0], Outcome.BUSY)
            throttle.end(both[1], Outcome.BUSY)
        assert throttle.limit == 8

    in_virtual_time(test)


def test_a_limit_grows_back_where_it_holds_calls_up() -> None:
    async def test(throttle: RateLimiter) -> None:
        numbers = [await begin(throttle) for _ in range(40)]
        for number in numbers[:30]:
            throttle.end(number, Outcome.BUSY)
        cut = throttle.limit
        for number in numbers[30:]:
            throttle.end(number, Outcome.ANSWERED)
        assert throttle.limit == cut, "it held nobody up"
        await asyncio.gather(*(starts(throttle, 100) for _ in range(3)))
        assert throttle.limit is not None
        assert cut is not None
        assert throttle.limit > cut + 20

    in_virtual_time(test)
