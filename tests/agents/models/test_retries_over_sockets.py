"""A call that takes several attempts, and the run around it, over sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from autogen_core.models import LLMMessage, UserMessage

from agents.models.config import EndpointConfig
from agents.models.context import CALL, CallContext, StopSignal
from agents.models.endpoint import EndpointClient, forget_endpoints
from agents.models.errors import (
    CallNotStarted,
    EndpointError,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointUnreachable,
)
from agents.models.rate_limiter import limiters
from tests.endpoint import Endpoint, Fault

PROMPT: list[LLMMessage] = [UserMessage(content="How are you?", source="user")]


def client(endpoint: Endpoint, **config: Any) -> EndpointClient:
    """A client that tries once, unless told otherwise."""
    return EndpointClient(
        EndpointConfig(base_url=endpoint.base_url, model="m", **{"max_retries": 0, **config})
    )


@pytest.fixture(autouse=True)
def nothing_is_known() -> None:
    forget_endpoints()


async def arrival(endpoint: Endpoint) -> None:
    while not endpoint.in_flight:  # noqa: ASYNC110 - it lives in another thread
        await asyncio.sleep(0.001)


PASSING = [
    Fault.RATE_LIMITED,
    Fault.RATE_LIMITED_RETRY_AFTER,
    Fault.SERVER_ERROR,
    Fault.UNAVAILABLE,
    Fault.RESET,
    Fault.CUT_BODY,
    Fault.HANG,
    Fault.INVALID_JSON,
    Fault.WRONG_SHAPE,
]
FOR_GOOD = [
    Fault.UNAUTHORIZED,
    Fault.FORBIDDEN,
    Fault.MODEL_NOT_FOUND,
    Fault.QUOTA_EXHAUSTED,
    Fault.SCHEMA_UNSUPPORTED,
    Fault.CONTEXT_LENGTH,
]


@pytest.mark.parametrize("fault", PASSING)
async def test_what_may_pass_is_tried_again(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.models.retries.FIRST_WAIT", 0.01)
    with Endpoint(faults=[fault], retry_after=0.01) as endpoint:
        asked = client(endpoint, max_retries=1, timeout=0.2 if fault is Fault.HANG else 30)
        result = await asked.create(PROMPT)
        await asked.close()
    assert endpoint.counts == {fault: 1, "ok": 1}
    assert result.attempts == 2


@pytest.mark.parametrize("fault", FOR_GOOD)
async def test_what_cannot_pass_is_not_tried_again(fault: Fault) -> None:
    with Endpoint(faults=[fault] * 100) as endpoint:
        asked = client(endpoint, max_retries=4)
        with pytest.raises(EndpointError) as caught:
            await asked.create(PROMPT)
        await asked.close()
    assert "attempts" not in caught.value.cause
    asked_for = [c for c in endpoint.calls if c.body["messages"][-1]["content"] == "How are you?"]
    assert len(asked_for) == 1, "all others are probes"


async def test_the_error_that_remains_says_how_often_it_was_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agents.models.retries.FIRST_WAIT", 0.01)
    with Endpoint(faults=[Fault.RESET, Fault.SERVER_ERROR, Fault.UNAVAILABLE]) as endpoint:
        asked = client(endpoint, max_retries=2)
        with pytest.raises(EndpointOverloaded, match=r"answered 503, after 3 attempts\. Try"):
            await asked.create(PROMPT)
        await asked.close()


async def test_a_wrong_address_is_told_within_a_second_or_so() -> None:
    with Endpoint() as endpoint:
        gone = client(endpoint, max_retries=8)
    started = time.monotonic()
    with pytest.raises(EndpointUnreachable, match="refused, after 2 attempts"):
        await gone.create(PROMPT)
    assert time.monotonic() - started < 1.5
    await gone.close()


async def test_a_server_that_is_restarted_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.models.retries.FIRST_WAIT", 0.1)
    monkeypatch.setattr("agents.models.retries.LONGEST_WAIT", 0.1)
    with Endpoint() as endpoint:
        asked = client(endpoint, max_retries=50)
        await asked.create(PROMPT)
    call = asyncio.create_task(asked.create(PROMPT))
    await asyncio.sleep(0.3)
    with Endpoint(port=endpoint.port):
        result = await call
        await asked.close()
    assert result.attempts > 2


# The run around a call ---------------------------------------------------------------------------


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        self.heard.append((error.kind, retry_in is not None))
        assert str(PROMPT[0].content) not in str(error)
        assert where in limiters()

    def attempt_answered(self, where: str) -> None:
        self.heard.append("answered")


async def test_an_observer_hears_of_every_attempt_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.models.retries.FIRST_WAIT", 0.01)
    notes = Notes()
    CALL.set(CallContext(observer=notes))
    faults = [Fault.RATE_LIMITED, Fault.RESET, None, Fault.CONTENT_FILTER, Fault.UNAUTHORIZED]
    with Endpoint(faults=faults) as endpoint:
        asked = client(endpoint, max_retries=5)
        await asked.create(PROMPT)
        await asked.create(PROMPT)
        with pytest.raises(EndpointMisconfigured):
            await asked.create(PROMPT)
        await asked.close()
    assert notes.heard == [
        ("throttled", True),
        ("connection", True),
        "answered",
        "answered",
        ("misconfigured", False),
    ]


async def test_once_halted_no_call_is_begun_and_those_in_flight_are_finished() -> None:
    halt = StopSignal()
    CALL.set(CallContext(stop_signal=halt))
    with Endpoint(latency=0.2) as endpoint:
        asked = client(endpoint, max_concurrency=1)
        under_way = asyncio.create_task(asked.create(PROMPT))
        waiting = asyncio.create_task(asked.create(PROMPT))
        await arrival(endpoint)
        halt.set()
        with pytest.raises(CallNotStarted):
            await asyncio.wait_for(waiting, 0.1)
        assert (await under_way).content
        with pytest.raises(CallNotStarted):
            await asked.create(PROMPT)
        await asked.close()
    assert endpoint.counts == {"ok": 1}


async def test_a_call_that_fails_after_the_halt_is_not_tried_again() -> None:
    halt = StopSignal()
    CALL.set(CallContext(stop_signal=halt))
    with Endpoint(latency=0.1, faults=[Fault.SERVER_ERROR]) as endpoint:
        asked = client(endpoint, max_retries=5)
        call = asyncio.create_task(asked.create(PROMPT))
        await arrival(endpoint)
        halt.set()
        with pytest.raises(CallNotStarted):
            await call
        await asked.close()
    assert endpoint.counts == {"server_error": 1}


async def test_no_more_calls_are_at_the_endpoint_than_the_ceiling_allows() -> None:
    with Endpoint(latency=0.02) as endpoint:
        asked = client(endpoint, max_concurrency=4)
        await asyncio.gather(*(asked.create(PROMPT) for _ in range(30)))
        await asked.close()
    assert endpoint.max_in_flight == 4


async def test_a_call_that_is_cancelled_gives_its_slot_back() -> None:
    with Endpoint(faults=[Fault.HANG]) as endpoint:
        asked = client(endpoint, max_concurrency=1)
        call = asyncio.create_task(asked.create(PROMPT))
        await arrival(endpoint)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await asyncio.wait_for(asked.create(PROMPT), 2)).content
        await asked.close()
