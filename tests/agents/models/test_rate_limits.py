"""How a throttle finds an endpoint's limit: minutes of many chats, in virtual time."""

from __future__ import annotations

import pytest

from agents.models.rate_limiter import Outcome
from tests.agents.models.crowd import Crowd, Limits


@pytest.mark.parametrize("chats", [100, 200])
@pytest.mark.parametrize("latency", [0.005, 0.2, 1.0, (0.1, 3.0)])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_fifty_calls_a_second_are_used_to_the_full_and_hardly_ever_exceeded(
    chats: int, latency: float | tuple[float, float], retry_after: float | None
) -> None:
    crowd = Crowd(Limits(rate=50), latency, chats, retry_after=retry_after)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.95 * 50
    assert crowd.share_refused(30, 90) < 0.02
    assert len(crowd.refused) < 100, "finding the limit costs little too"


def test_answers_that_take_half_a_minute_change_nothing() -> None:
    crowd = Crowd(Limits(rate=20), (10.0, 30.0), chats=1000)
    crowd.run_for(150)
    assert crowd.rate(60, 150) > 0.95 * 20
    assert crowd.share_refused(60, 150) < 0.02


def test_an_endpoint_that_takes_ten_calls_a_minute_is_not_asked_more() -> None:
    crowd = Crowd(Limits(rate=1 / 6, burst=10), chats=50)
    crowd.run_for(1200)
    assert crowd.rate(300, 1200) > 0.85 / 6
    assert crowd.share_refused(300, 1200) < 0.15


def test_a_long_retry_after_is_seldom_asked_for() -> None:
    crowd = Crowd(Limits(rate=50), retry_after=5.0)
    crowd.run_for(300)
    assert crowd.rate(30, 300) > 0.9 * 50


def test_no_limit_means_no_pace() -> None:
    crowd = Crowd(Limits(), latency=1.0)
    crowd.run_for(30)
    assert crowd.rate(5, 30) == pytest.approx(200, rel=0.02)
    assert (crowd.throttle.pace, crowd.throttle.limit) == (None, None)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_calls_that_are_refused_at_random_do_not_slow_down_the_others(noise: float) -> None:
    crowd = Crowd(Limits(noise=noise), latency=1.0)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.8 * 200 * (1 - noise)


def test_noise_does_not_hide_a_limit() -> None:
    crowd = Crowd(Limits(rate=50, noise=0.02))
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.95 * 50
    assert crowd.share_refused(30, 90) < 0.08


def test_a_limit_that_falls_is_kept_to_and_one_that_rises_is_found() -> None:
    limits = Limits(rate=50)
    crowd = Crowd(limits)

    def change(second: float) -> None:
        if second == 60:
            limits.rate = 10
        if second == 120:
            limits.rate = 100

    crowd.run_for(200, change)
    assert crowd.rate(75, 120) == pytest.approx(10, rel=0.1)
    assert crowd.share_refused(75, 120) < 0.1
    assert crowd.rate(190, 200) > 0.9 * 100


def test_after_a_time_in_which_nothing_got_through_the_pace_is_back_soon() -> None:
    limits = Limits(rate=50)
    crowd = Crowd(limits)

    def change(second: float) -> None:
        limits.down = 60 <= second < 70

    crowd.run_for(130, change)
    assert crowd.rate(100, 130) > 0.9 * 50


def test_a_bound_on_calls_at_the_same_time_is_found_too() -> None:
    crowd = Crowd(Limits(at_once=20), latency=1.0)
    crowd.run_for(120)
    assert crowd.rate(30, 120) > 0.85 * 20
    assert crowd.share_refused(30, 120) < 0.08
    assert crowd.throttle.limit == pytest.approx(20, abs=3)


def test_few_503s_are_bad_luck_and_change_nothing() -> None:
    crowd = Crowd(Limits(noise=0.05), latency=1.0, refusal=Outcome.BUSY)
    crowd.run_for(60)
    assert crowd.rate(10, 60) > 0.9 * 200


def test_many_503s_lower_the_number_in_flight() -> None:
    crowd = Crowd(Limits(at_once=20), latency=1.0, refusal=Outcome.BUSY)
    crowd.run_for(120)
    assert crowd.throttle.limit is not None
    assert crowd.throttle.limit < 30
    assert crowd.rate(30, 120) > 0.85 * 20
    assert crowd.share_refused(30, 120) < 0.1


def test_a_ceiling_is_kept_to_and_reached() -> None:
    crowd = Crowd(Limits(), latency=1.0, max_concurrency=50)
    crowd.run_for(30)
    assert crowd.most_at_once == 50
    assert crowd.rate(5, 30) == pytest.approx(50, rel=0.02)
