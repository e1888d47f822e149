"""How often and for how long one call is retried; in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import pytest

from agents.models import retries as module
from agents.models.config import EndpointConfig
from agents.models.context import CALL, CallContext, StopSignal
from agents.models.errors import (
    CallNotStarted,
    EndpointAbsent,
    EndpointError,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointThrottled,
    EndpointTimeout,
    RequestRejected,
    UnusableAnswer,
)
from agents.models.rate_limiter import RateLimiter
from agents.models.retries import LONGEST_WAIT, Retries
from agents.models.usage import Usage
from tests.agents.models.clock import run

FAILING = EndpointOverloaded("It answered 500.", "Wait.", 500)
HERE = "http://here/v1"


@pytest.fixture(autouse=True)
def longest_jitter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every wait is as long as it may be."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    module.forget_answers()
    module._SERVED_BEFORE.add(HERE)
    yield
    module.forget_answers()


def fail_always(
    error: Callable[[int], EndpointError],
    *,
    max_retries: int = 8,
    seconds: float = 600.0,
    lasting: float = 0.0,
    stop_after: float | None = None,
) -> tuple[BaseException, list[float], RateLimiter]:
    """A call whose every attempt fails after `lasting` seconds.

    Returns:
        What it ended with, when each attempt began, and the limiter.
    """
    began: list[float] = []

    async def main() -> tuple[BaseException, RateLimiter]:
        loop = asyncio.get_running_loop()
        zero = loop.time()
        signal = StopSignal()
        if stop_after is not None:
            loop.call_later(stop_after, signal.set)
        CALL.set(CallContext(stop_signal=signal))
        limiter = RateLimiter(loop)
        config = EndpointConfig(
            base_url=HERE, model="m", max_retries=max_retries, retry_seconds=seconds
        )
        call = Retries(config, limiter)
        try:
            while True:
                await call.start()
                began.append(loop.time() - zero)
                await asyncio.sleep(lasting)
                failure = error(call.made)
                call.end(failure)
                await call.after_failure(failure)
        except (EndpointError, CallNotStarted) as end:
            return end, limiter

    end, limiter = run(main())
    assert limiter.in_flight == 0
    return end, began, limiter


def gaps(began: list[float]) -> list[float]:
    return [round(b - a, 3) for a, b in zip([0.0, *began], began, strict=False)][1:]


def test_waits_double_up_to_half_a_minute_and_nine_attempts_are_enough() -> None:
    end, began, _ = fail_always(lambda _: FAILING)
    assert gaps(began) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_WAIT, LONGEST_WAIT]
    assert type(end) is EndpointOverloaded
    assert str(end) == "It answered 500, after 9 attempts. Wait."


def test_an_endpoint_that_has_not_given_a_reply_yet_is_tried_four_times() -> None:
    module.forget_answers()
    _, began, _ = fail_always(lambda _: FAILING)
    assert len(began) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_is_starting_or_busy_is_waited_for(status: int) -> None:
    module.forget_answers()
    _, began, _ = fail_always(lambda _: EndpointOverloaded("It answered.", "Wait.", status))
    assert len(began) == 9


def test_answers_that_are_billed_and_of_no_use_are_asked_for_twice_at_most() -> None:
    def billed(_: int) -> EndpointError:
        error = UnusableAnswer("It is no chat completion.", "Check it.")
        error.billed = Usage(prompt_tokens=100, completion_tokens=10)
        return error

    end, began, _ = fail_always(billed)
    assert len(began) == 2
    assert isinstance(end, UnusableAnswer)
    assert end.billed.tokens == 220, "all of them are on the bill"


def test_attempts_that_timed_out_may_have_been_billed() -> None:
    end, began, _ = fail_always(lambda _: EndpointTimeout("It is slow.", "Wait."), max_retries=2)
    assert isinstance(end, EndpointTimeout)
    assert end.abandoned == len(began) == 3


def test_waits_are_drawn_uniformly_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return low

    monkeypatch.setattr(random, "uniform", draw)
    _, began, _ = fail_always(lambda _: FAILING, max_retries=2)
    assert drawn[:2] == [(0.0, 0.5), (0.0, 1.0)]
    assert max(began) < 0.01, "only the spread of an endpoint's first calls remains"


def test_no_retries_means_one_attempt_and_its_error_as_it_is() -> None:
    end, began, _ = fail_always(lambda _: FAILING, max_retries=0)
    assert len(began) == 1
    assert end is FAILING


def test_the_total_time_is_bounded_attempts_included() -> None:
    end, began, _ = fail_always(lambda _: EndpointTimeout("Late."), seconds=100.0, lasting=40.0)
    assert len(began) == 3
    assert "after 3 attempts" in str(end)


@pytest.mark.parametrize("error", [RequestRejected("No."), EndpointMisconfigured("No.")])
def test_permanent_errors_are_not_retried(error: EndpointError) -> None:
    end, began, _ = fail_always(lambda _: error)
    assert end is error
    assert len(began) == 1


def test_retry_after_is_respected() -> None:
    def busy(made: int) -> EndpointError:
        return EndpointThrottled("Slow.", "", 429, 20.0)

    _, began, _ = fail_always(busy, max_retries=2)
    assert min(gaps(began)) >= 20.0


def test_an_address_that_never_answered_is_given_up_soon() -> None:
    end, began, _ = fail_always(lambda _: EndpointAbsent("No server."))
    assert isinstance(end, EndpointAbsent)
    assert len(began) == 2
    assert began[-1] < 2


def test_a_server_that_answered_before_is_retried_as_long_as_the_time_allows() -> None:
    def goes_away(made: int) -> EndpointError:
        return FAILING if made == 1 else EndpointAbsent("No server.")

    _, began, _ = fail_always(goes_away)
    assert began[-1] > 60
    assert began[-1] <= 600


def test_a_stop_signal_ends_the_wait_at_once() -> None:
    end, began, _ = fail_always(lambda _: FAILING, stop_after=3.0)
    assert isinstance(end, CallNotStarted)
    assert began == [0.0, 0.5, 1.5]


def test_after_a_stop_signal_an_attempt_in_flight_is_the_last() -> None:
    end, began, _ = fail_always(lambda _: FAILING, lasting=5.0, stop_after=3.0)
    assert isinstance(end, CallNotStarted)
    assert began == [0.0]


def test_after_a_stop_signal_a_permanent_error_is_still_raised() -> None:
    error = RequestRejected("No.")
    assert fail_always(lambda _: error, lasting=5.0, stop_after=3.0)[0] is error


def test_only_429s_slow_the_other_calls_down() -> None:
    assert fail_always(lambda _: FAILING)[2].rate_limit is None
    slow = EndpointThrottled("Slow.", "", 429)
    assert fail_always(lambda _: slow)[2].rate_limit is not None
