"""How a rate limiter finds an endpoint's limits: minutes of many chats, in virtual time."""

from __future__ import annotations

import pytest

from agents.models.rate_limiter import Outcome
from tests.agents.models.crowd import Crowd, Limits


@pytest.mark.parametrize("chats", [100, 200])
@pytest.mark.parametrize("latency", [0.005, 0.2, 1.0, (0.1, 3.0)])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_fifty_calls_per_second_are_fully_used_and_hardly_ever_exceeded(
    chats: int, latency: float | tuple[float, float], retry_after: float | None
) -> None:
    crowd = Crowd(Limits(rate=50), latency, chats, retry_after=retry_after)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.95 * 50
    assert crowd.share_refused(30, 90) < 0.02
    assert len(crowd.refused) < 100, "finding the limit costs little too"


@pytest.mark.parametrize("rate", [5, 500])
def test_other_limits_are_fully_used_too(rate: float) -> None:
    crowd = Crowd(Limits(rate=rate), 1.5, chats=1000)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.95 * rate
    assert crowd.share_refused(30, 90) < 0.05


def test_answers_that_take_half_a_minute_make_no_difference() -> None:
    crowd = Crowd(Limits(rate=20), (10.0, 30.0), chats=1000)
    crowd.run_for(150)
    assert crowd.rate(60, 150) > 0.95 * 20
    assert crowd.share_refused(60, 150) < 0.02


def test_a_limit_of_ten_calls_per_minute_is_respected() -> None:
    crowd = Crowd(Limits(rate=1 / 6, burst=10), chats=50)
    crowd.run_for(1200)
    assert crowd.rate(300, 1200) > 0.85 / 6
    assert crowd.share_refused(300, 1200) < 0.15


def test_a_slow_network_does_not_hide_a_limit() -> None:
    crowd = Crowd(Limits(rate=50), round_trip=0.1)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.9 * 50
    assert crowd.share_refused(30, 90) < 0.02


def test_a_long_retry_after_is_rarely_provoked() -> None:
    crowd = Crowd(Limits(rate=50), retry_after=5.0)
    crowd.run_for(300)
    assert crowd.rate(30, 300) > 0.9 * 50


def test_without_limits_there_are_no_bounds() -> None:
    crowd = Crowd(Limits(), latency=1.0)
    crowd.run_for(30)
    assert crowd.rate(5, 30) == pytest.approx(200, rel=0.02)
    assert (crowd.limiter.rate_limit, crowd.limiter.concurrency_limit) == (None, None)


# Noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calls_refused_at_random_do_not_slow_down_the_others(noise: float, seed: int) -> None:
    crowd = Crowd(Limits(noise=noise, seed=seed), latency=1.0)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.8 * 200 * (1 - noise)


@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_noise_does_not_lower_a_configured_bound_on_concurrent_calls(noise: float) -> None:
    crowd = Crowd(Limits(noise=noise), latency=1.0, max_concurrency=200)
    crowd.run_for(90)
    assert crowd.rate(30, 90) > 0.8 * 200 * (1 - noise)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_noise_does_not_hide_a_limit(noise: float, seed: int) -> None:
    crowd = Crowd(Limits(rate=50, noise=noise, seed=seed))
    crowd.run_for(90)
    assert crowd.rate(30, 90) > (0.95 if noise < 0.05 else 0.8) * 50
    assert crowd.share_refused(30, 90) < noise + (0.06 if noise < 0.05 else 0.15)


# Changes -----------------------------------------------------------------------------------------


def test_a_limit_that_falls_is_respected_and_one_that_rises_is_found() -> None:
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


@pytest.mark.parametrize("round_trip", [0.004, 0.1])
def test_after_a_time_when_everything_was_refused_the_rate_recovers_soon(
    round_trip: float,
) -> None:
    limits = Limits(rate=50)
    crowd = Crowd(limits, round_trip=round_trip)

    def change(second: float) -> None:
        limits.down = 60 <= second < 70

    crowd.run_for(130, change)
    assert crowd.rate(100, 130) > 0.9 * 50


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_two_429s_at_the_very_start_are_not_taken_for_a_limit_of_nothing(
    retry_after: float | None,
) -> None:
    class FirstTwo(Limits):
        calls = 0

        def refuse(self, now: float, in_flight: int) -> bool:
            self.calls += 1
            return self.calls <= 2

    crowd = Crowd(FirstTwo(), latency=0.01, chats=6, retry_after=retry_after)
    crowd.run_for(10)
    assert len([t for t in crowd.answered if t < 4]) >= 6, "six calls take seconds at most"
    assert crowd.rate(5, 10) > 100


# Concurrency -------------------------------------------------------------------------------------


def test_a_limit_on_concurrent_calls_is_found_too() -> None:
    crowd = Crowd(Limits(at_once=20), latency=1.0)
    crowd.run_for(120)
    assert crowd.rate(30, 120) > 0.85 * 20
    assert crowd.share_refused(30, 120) < 0.08
    assert crowd.limiter.concurrency_limit == pytest.approx(20, abs=3)


def test_a_few_503s_make_no_difference() -> None:
    crowd = Crowd(Limits(noise=0.05), latency=1.0, refusal=Outcome.BUSY)
    crowd.run_for(60)
    assert crowd.rate(10, 60) > 0.9 * 200


def test_many_503s_lower_the_number_in_flight() -> None:
    crowd = Crowd(Limits(at_once=20), latency=1.0, refusal=Outcome.BUSY)
    crowd.run_for(120)
    assert crowd.limiter.concurrency_limit is not None
    assert crowd.limiter.concurrency_limit < 30
    assert crowd.rate(30, 120) > 0.85 * 20
    assert crowd.share_refused(30, 120) < 0.1


def test_a_ceiling_is_respected_and_reached() -> None:
    crowd = Crowd(Limits(), latency=1.0, max_concurrency=50)
    crowd.run_for(30)
    assert crowd.most_at_once == 50
    assert crowd.rate(5, 30) == pytest.approx(50, rel=0.02)
