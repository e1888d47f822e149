"""The endpoint, seen from its clients over real sockets."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import jsonschema
import openai
import pytest

from tests.endpoint import Call, Endpoint, Fault
from tests.endpoint.plain_client import SCHEMA, content_of, make_body, post, wait_for


async def test_the_openai_client_gets_an_answer_that_fits_the_schema() -> None:
    with Endpoint() as endpoint:
        async with openai.AsyncOpenAI(base_url=endpoint.base_url, api_key="key") as client:
            completion = await client.chat.completions.create(**make_body())
            models = await client.models.list()
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens > 0
    jsonschema.validate(json.loads(completion.choices[0].message.content or ""), SCHEMA)
    assert [model.id for model in models.data] == ["test-model"]


def test_replies_follow_from_seed_and_request_alone() -> None:
    bodies = [make_body(f"prompt {number}") for number in range(5)]
    with Endpoint(seed=1) as endpoint:
        first = [content_of(post(endpoint, body)) for body in bodies]
        again = [content_of(post(endpoint, body)) for body in reversed(bodies)]
    with Endpoint(seed=2) as endpoint:
        other = [content_of(post(endpoint, body)) for body in bodies]
    assert first == again[::-1]
    assert len(set(first)) == 5
    assert first != other


def test_without_a_schema_it_gives_json_or_words() -> None:
    with Endpoint() as endpoint:
        as_json = content_of(post(endpoint, make_body(response_format={"type": "json_object"})))
        text = content_of(post(endpoint, make_body(response_format=None)))
    assert isinstance(json.loads(as_json), dict)
    assert len(text.split()) >= 8


def test_the_hook_scripts_the_model() -> None:
    script: dict[str, Any] = {"text": "raw", "dict": {"a": 1}, "fault": Fault.CONTENT_FILTER}
    with Endpoint(reply=lambda body: script.get(body["messages"][-1]["content"])) as endpoint:
        assert content_of(post(endpoint, make_body("text"))) == "raw"
        assert json.loads(content_of(post(endpoint, make_body("dict")))) == {"a": 1}
        filtered = post(endpoint, make_body("fault"))
        jsonschema.validate(json.loads(content_of(post(endpoint, make_body("none")))), SCHEMA)
    assert filtered[1]["choices"][0]["finish_reason"] == "content_filter"
    assert endpoint.counts == {"ok": 3, "content_filter": 1}


def test_an_error_in_the_hook_comes_out_at_the_end() -> None:
    def reply(body: dict[str, Any]) -> str:
        raise KeyError("wrong turn")

    with pytest.raises(KeyError, match="wrong turn"), Endpoint(reply=reply) as endpoint:
        assert post(endpoint)[0] == 500


def test_usage_counts_words_and_cached_prefixes() -> None:
    with Endpoint(reply=lambda body: "three little words") as endpoint:
        first = post(endpoint, make_body("one"))[1]["usage"]
        same = post(endpoint, make_body("one"))[1]["usage"]
        other = post(endpoint, make_body("two"))[1]["usage"]
        elsewhere = post(endpoint, make_body("one", model="b"))[1]["usage"]
    assert first["completion_tokens"] == 3
    assert first["total_tokens"] == first["prompt_tokens"] + 3
    cached = [
        usage["prompt_tokens_details"]["cached_tokens"] for usage in (first, same, other, elsewhere)
    ]
    assert cached[0] == cached[3] == 0
    assert cached[1] == first["prompt_tokens"]
    assert 0 < cached[2] < first["prompt_tokens"]


def test_max_tokens_cuts_the_reply() -> None:
    with Endpoint(reply=lambda body: "one  two three four") as endpoint:
        cut = post(endpoint, make_body(max_tokens=3))
        whole = post(endpoint, make_body(max_completion_tokens=4))
    assert content_of(cut) == "one  two three"
    assert cut[1]["choices"][0]["finish_reason"] == "length"
    assert whole[1]["choices"][0]["finish_reason"] == "stop"


def test_latency_is_drawn_from_the_request() -> None:
    with Endpoint(latency=(0.05, 0.25)) as endpoint:
        for number in (0, 1, 2, 0, 1, 2):
            post(endpoint, make_body(f"prompt {number}"))
    took = [(call.finished or 0) - call.arrived for call in endpoint.calls]
    assert all(0.04 < seconds < 0.35 for seconds in took)
    assert took[:3] == pytest.approx(took[3:], abs=0.04)
    assert len({round(seconds, 2) for seconds in took[:3]}) > 1


# --- counting -------------------------------------------------------------------------------------


async def test_many_calls_at_once_are_counted() -> None:
    with Endpoint(latency=0.3) as endpoint:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def call(number: int) -> int:
                url = f"{endpoint.base_url}/chat/completions"
                async with session.post(url, json=make_body(f"prompt {number}")) as response:
                    await response.read()
                    return response.status

            assert set(await asyncio.gather(*map(call, range(100)))) == {200}
        assert endpoint.counts == {"ok": 100}
        assert endpoint.in_flight == 0
    assert 50 < endpoint.max_in_flight <= 100
    assert [call.number for call in endpoint.calls] == list(range(100))
    assert all(call.answered and call.status == 200 for call in endpoint.calls)


def test_an_answered_call_is_counted_once_the_client_has_it() -> None:
    with Endpoint() as endpoint:
        for number in range(1, 200):
            post(endpoint)
            call = endpoint.calls[-1]
            assert (endpoint.counts["ok"], endpoint.in_flight) == (number, 0)
            assert call.answered
            assert call.finished is not None


def test_a_client_that_leaves_is_counted_as_abandoned() -> None:
    with Endpoint(latency=5) as endpoint:
        with pytest.raises(TimeoutError):
            post(endpoint, timeout=0.1)
        wait_for(lambda: endpoint.counts["abandoned"] == 1)
    assert isinstance(endpoint.calls[0], Call)
    assert endpoint.calls[0].answered is False
    assert endpoint.counts["ok"] == 0


def test_bodies_are_kept_unless_switched_off() -> None:
    with Endpoint() as endpoint:
        post(endpoint, make_body("remember me"))
    assert endpoint.calls[0].body == make_body("remember me")
    before = time.monotonic()
    with Endpoint(keep_bodies=False) as endpoint:
        post(endpoint)
        with urllib.request.urlopen(endpoint.base_url.removesuffix("/v1") + "/stats") as response:
            stats = json.load(response)
    assert endpoint.calls == []
    first, last = stats.pop("first_call"), stats.pop("last_reply")
    assert before < first <= last < time.monotonic()
    assert stats == {"calls": 1, "counts": {"ok": 1}, "in_flight": 0, "max_in_flight": 1}


# --- start and end --------------------------------------------------------------------------------


def test_it_stops_at_once_also_with_hung_calls() -> None:
    before = threading.active_count()
    with ThreadPoolExecutor(8) as pool:
        with Endpoint(fault_rates={Fault.HANG: 1.0}) as endpoint:
            hung = [pool.submit(post, endpoint, timeout=20) for _ in range(8)]
            wait_for(lambda: endpoint.in_flight == 8)
            began = time.monotonic()
        assert time.monotonic() - began < 0.5
        for future in hung:
            with pytest.raises((OSError, http.client.HTTPException)):
                future.result(timeout=2)
    assert threading.active_count() == before
    assert endpoint.in_flight == 0
    with pytest.raises(urllib.error.URLError):
        post(endpoint)


def test_it_stops_at_once_with_calls_waiting_for_their_latency() -> None:
    with ThreadPoolExecutor(1) as pool:
        with Endpoint(latency=30) as endpoint:
            future = pool.submit(post, endpoint, timeout=40)
            wait_for(lambda: endpoint.in_flight == 1)
            began = time.monotonic()
        assert time.monotonic() - began < 0.5
        assert future.exception(timeout=2) is not None


def test_a_taken_port_fails_at_the_start() -> None:
    before = threading.active_count()
    with Endpoint() as endpoint, pytest.raises(OSError), Endpoint(port=endpoint.port):
        pass
    wait_for(lambda: threading.active_count() == before)


def script(body: dict[str, Any]) -> str:
    """The model of the test below."""
    return f"You said: {body['messages'][-1]['content']}"


@pytest.mark.parametrize(
    ("name", "said"), [("script", "You said: Hello."), ("nothing", "cannot be loaded")]
)
def test_a_program_takes_its_script_by_name(name: str, said: str) -> None:
    command = [sys.executable, "-m", "tests.endpoint"]
    command += ["--reply", f"tests.endpoint.test_endpoint:{name}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        if not line:
            assert said in process.stderr.read().decode()
            assert process.wait(timeout=3) == 2
            return
        data = json.dumps(make_body("Hello.")).encode()
        url = f"{json.loads(line)['base_url']}/chat/completions"
        with urllib.request.urlopen(url, data) as response:
            assert json.load(response)["choices"][0]["message"]["content"] == said
        process.stdin.close()
        assert process.wait(timeout=3) == 0


@pytest.mark.parametrize("end", ["stdin", "signal"])
def test_as_a_program(end: str) -> None:
    command = [sys.executable, "-m", "tests.endpoint", "--seed", "1", "--latency", "0:0.01"]
    command += ["--fault-rate", "forbidden=1"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        base_url = json.loads(process.stdout.readline())["base_url"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{base_url}/chat/completions", json.dumps(make_body()).encode())
        caught.value.close()
        assert caught.value.code == 403
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/stats") as response:
            assert json.load(response)["counts"] == {"forbidden": 1}
        if end == "stdin":
            process.stdin.close()
        else:
            os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=3) == 0
