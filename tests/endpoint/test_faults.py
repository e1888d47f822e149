"""Each fault, as a client sees it over a real socket."""

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest

from tests.endpoint import Endpoint, Fault
from tests.endpoint.completion import REFUSAL
from tests.endpoint.plain_client import make_body, post, wait_for


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.RATE_LIMITED, 429, "rate_limit_exceeded"),
        (Fault.RATE_LIMITED_RETRY_AFTER, 429, "rate_limit_exceeded"),
        (Fault.SERVER_ERROR, 500, None),
        (Fault.UNAVAILABLE, 503, "overloaded"),
        (Fault.UNAUTHORIZED, 401, "invalid_api_key"),
        (Fault.FORBIDDEN, 403, "forbidden"),
        (Fault.MODEL_NOT_FOUND, 404, "model_not_found"),
        (Fault.SCHEMA_UNSUPPORTED, 400, None),
        (Fault.QUOTA_EXHAUSTED, 429, "insufficient_quota"),
        (Fault.CONTEXT_LENGTH, 400, "context_length_exceeded"),
    ],
)
def test_http_errors_have_the_shape_of_openai(fault: Fault, status: int, code: str | None) -> None:
    with Endpoint(faults=[fault]) as endpoint:
        got, body, headers = post(endpoint)
        assert post(endpoint)[0] == 200, "after the script it answers well"
    assert got == status
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["code"] == code
    assert ("Retry-After" in headers) == (fault is Fault.RATE_LIMITED_RETRY_AFTER)
    assert endpoint.counts == {fault: 1, "ok": 1}
    assert endpoint.calls[0].status == status


@pytest.mark.parametrize(
    ("fault", "content", "refusal", "finish_reason"),
    [
        (Fault.EMPTY_CONTENT, "", None, "stop"),
        (Fault.LENGTH, "0123", None, "length"),
        (Fault.CONTENT_FILTER, "", None, "content_filter"),
        (Fault.REFUSAL, REFUSAL, None, "stop"),
        (Fault.REFUSAL_FIELD, None, REFUSAL, "stop"),
    ],
)
def test_content_faults(
    fault: Fault, content: str | None, refusal: str | None, finish_reason: str
) -> None:
    with Endpoint(faults=[fault], reply=lambda body: "01234567") as endpoint:
        status, body, _ = post(endpoint)
    choice = body["choices"][0]
    assert status == 200
    assert (choice["message"]["content"], choice["message"]["refusal"]) == (content, refusal)
    assert choice["finish_reason"] == finish_reason
    assert endpoint.counts == {fault: 1}


@pytest.mark.parametrize(
    ("seconds", "header", "exact"), [(2, "2", None), (0.05, "1", "50"), (1.5, "2", "1500")]
)
def test_retry_after_may_be_a_fraction(seconds: float, header: str, exact: str | None) -> None:
    with Endpoint(faults=[Fault.RATE_LIMITED_RETRY_AFTER], retry_after=seconds) as endpoint:
        headers = post(endpoint)[2]
    assert (headers.get("Retry-After"), headers.get("retry-after-ms")) == (header, exact)


async def test_the_openai_client_retries_and_obeys_retry_after() -> None:
    faults = [Fault.RATE_LIMITED_RETRY_AFTER, None]
    with Endpoint(faults=faults, retry_after=0.2) as endpoint:
        async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key="key") as client:
            await client.chat.completions.create(**make_body())
    waited = endpoint.calls[1].arrived - endpoint.calls[0].arrived
    assert 0.19 < waited < 0.9


def test_reset_breaks_the_connection_before_any_byte() -> None:
    with Endpoint(faults=[Fault.RESET]) as endpoint:
        with pytest.raises((ConnectionResetError, urllib.error.URLError)) as caught:
            post(endpoint)
        assert post(endpoint)[0] == 200
    assert "reset" in str(caught.value).lower()
    assert (endpoint.calls[0].status, endpoint.calls[0].answered) == (None, False)


def test_cut_body_ends_half_way() -> None:
    with Endpoint(faults=[Fault.CUT_BODY]) as endpoint:
        with pytest.raises(http.client.IncompleteRead) as caught:
            post(endpoint)
        assert post(endpoint)[0] == 200
    assert caught.value.partial
    assert abs(len(caught.value.partial) - (caught.value.expected or 0)) <= 1
    assert (endpoint.calls[0].status, endpoint.calls[0].answered) == (200, False)


async def test_broken_connections_reach_the_openai_client_as_such() -> None:
    with Endpoint(faults=[Fault.RESET, Fault.CUT_BODY]) as endpoint:
        async with openai.AsyncOpenAI(
            base_url=endpoint.base_url,
            api_key="key",
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),
        ) as client:
            for _ in range(2):
                with pytest.raises(openai.APIConnectionError):
                    await client.chat.completions.create(**make_body())
            await client.chat.completions.create(**make_body())
    assert endpoint.counts == {"reset": 1, "cut_body": 1, "ok": 1}


def test_invalid_json_and_wrong_shape() -> None:
    with Endpoint(faults=[Fault.INVALID_JSON, Fault.WRONG_SHAPE]) as endpoint:
        with pytest.raises(json.JSONDecodeError):
            post(endpoint)
        status, body, _ = post(endpoint)
    assert status == 200
    assert "choices" not in body
    assert endpoint.calls[0].status == 200


def test_hang_lasts_until_the_client_goes_away() -> None:
    with Endpoint(faults=[Fault.HANG]) as endpoint:
        with pytest.raises(TimeoutError):
            post(endpoint, timeout=0.2)
        assert endpoint.counts == {"hang": 1}
        wait_for(lambda: endpoint.in_flight == 0)
        assert endpoint.calls[0].answered is False
        assert endpoint.calls[0].finished is not None


def test_faults_by_rate_are_drawn_by_call_number_and_seed() -> None:
    rates = {Fault.SERVER_ERROR: 0.3, Fault.RATE_LIMITED: 0.2}

    def run(seed: int) -> list[Fault | None]:
        with Endpoint(seed=seed, faults=[Fault.FORBIDDEN], fault_rates=rates) as endpoint:
            for _ in range(200):
                post(endpoint)
        return [call.fault for call in endpoint.calls]

    first = run(1)
    assert first == run(1)
    assert first[:150] != run(2)[:150]
    assert first[0] is Fault.FORBIDDEN, "the script comes first"
    assert 40 <= first.count(Fault.SERVER_ERROR) <= 80
    assert 20 <= first.count(Fault.RATE_LIMITED) <= 60
    with pytest.raises(ValueError, match="sum to <= 1"):
        Endpoint(fault_rates={Fault.RESET: 0.6, Fault.HANG: 0.6})


def test_the_script_can_be_extended_while_serving() -> None:
    with Endpoint() as endpoint:
        assert post(endpoint)[0] == 200
        endpoint.faults.append(Fault.UNAVAILABLE)
        assert [post(endpoint)[0], post(endpoint)[0]] == [503, 200]
        endpoint.fault_rates[Fault.FORBIDDEN] = 1.0
        assert post(endpoint)[0] == 403


# --- limits of the endpoint's own -----------------------------------------------------------------


def test_key_model_and_schema_support() -> None:
    with Endpoint(api_key="right", models=["a", "b"], supports_schema=False) as endpoint:
        assert post(endpoint, key="wrong")[0] == 401
        status, body, _ = post(endpoint, make_body(model="c"), key="right")
        assert (status, body["error"]["code"]) == (404, "model_not_found")
        assert "`c`" in body["error"]["message"]
        assert post(endpoint, make_body(model="a"), key="right")[0] == 400
        plain = make_body(model="b", response_format=None)
        assert post(endpoint, plain, key="right")[0] == 200
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{endpoint.base_url}/models")
        caught.value.close()
        assert caught.value.code == 401
    outcomes = ["unauthorized", "model_not_found", "schema_unsupported", "ok"]
    assert endpoint.counts == dict.fromkeys(outcomes, 1)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        make_body(messages=[]),
        make_body(stream=True),
        make_body(response_format="json"),
        make_body(response_format={"type": "json_schema"}),
        make_body(
            response_format={"type": "json_schema", "json_schema": {"schema": {"allOf": [{}]}}}
        ),
    ],
)
def test_a_bad_request_is_told_so(body: Any) -> None:
    with Endpoint() as endpoint:
        status, answer, _ = post(endpoint, body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert endpoint.counts == {"bad_request": 1}


def test_rate_limit() -> None:
    with Endpoint(rate_limit=5) as endpoint:
        statuses = [post(endpoint)[0] for _ in range(10)]
        time.sleep(0.3)
        statuses.append(post(endpoint)[0])
    assert statuses[:5] == [200] * 5
    assert statuses[9] == 429
    assert statuses[10] == 200
