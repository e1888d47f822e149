"""What `EndpointClient` promises, over sockets, of good answers and of every fault."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from autogen_core import CancellationToken, Image
from autogen_core.models import (
    AssistantMessage,
    ChatCompletionClient,
    LLMMessage,
    SystemMessage,
    UserMessage,
)
from PIL.Image import new as new_image
from pydantic import BaseModel, ValidationError

from agents.models.config import EndpointConfig
from agents.models.endpoint import EndpointClient, forget_endpoints, is_loopback
from agents.models.errors import (
    ContextExceeded,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointThrottled,
    EndpointTimeout,
    EndpointUnreachable,
    QuotaExhausted,
    RequestUnsupported,
    UnusableAnswer,
)
from agents.models.exchange import Exchange
from agents.models.timeouts import Timeouts
from tests.endpoint import Endpoint, Fault

KEY = "sk-only-the-endpoint-may-see-this"
PROMPT: list[LLMMessage] = [
    SystemMessage(content="Be brief."),
    UserMessage(content="How are you?", source="user"),
]


def client(endpoint: Endpoint | str, **config: Any) -> EndpointClient:
    """A client that tries once, unless told otherwise."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    return EndpointClient(EndpointConfig(base_url=url, model="m", **{"max_retries": 0, **config}))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("agents.models.redaction._HELD", {})
    forget_endpoints()


# Good answers ------------------------------------------------------------------------------------


async def test_a_reply_comes_with_what_the_endpoint_counted() -> None:
    with Endpoint(reply=lambda _: "Fine, thanks.") as endpoint:
        asked = client(endpoint)
        first = await asked.create(PROMPT)
        more = [*PROMPT, AssistantMessage(content="Fine.", source="me")]
        second = await asked.create(more)
        await asked.close()
    assert first.content == "Fine, thanks."
    assert first.finish_reason == "stop"
    assert first.usage.prompt_tokens > 0
    assert first.usage.completion_tokens == 2
    assert first.tokens.cached_tokens == 0
    assert second.tokens.cached_tokens == first.usage.prompt_tokens
    assert first.served_model == "m"
    assert first.refusal is None
    assert asked.total_usage().completion_tokens == 4
    assert [m["role"] for m in endpoint.calls[1].body["messages"]] == [
        "system",
        "user",
        "assistant",
    ]


async def test_arguments_become_fields_of_the_request() -> None:
    class Answer(BaseModel):
        text: str

    with Endpoint() as endpoint:
        asked = client(endpoint)
        typed = await asked.create(PROMPT, json_output=Answer, extra_create_args={"seed": 7})
        await asked.create(PROMPT, json_output=True)
        streamed = [item async for item in asked.create_stream(PROMPT)]
        await asked.close()
    assert Answer.model_validate_json(str(typed.content))
    assert endpoint.calls[0].body["seed"] == 7
    assert endpoint.calls[0].body["response_format"]["json_schema"]["name"] == "Answer"
    assert endpoint.calls[1].body["response_format"] == {"type": "json_object"}
    assert streamed[0] == streamed[1].content  # type: ignore[union-attr]


async def test_only_text_and_no_tools_are_taken() -> None:
    picture: Any = Image(new_image("RGB", (1, 1)))
    with pytest.raises(ValueError, match="only text messages"):
        await client("http://127.0.0.1:9/v1").create([UserMessage(content=[picture], source="u")])
    with pytest.raises(ValueError, match="no tools"):
        await client("http://127.0.0.1:9/v1").create(PROMPT, tools=[{"name": "t"}])


async def test_three_hundred_calls_at_once_all_come_back() -> None:
    with Endpoint(latency=0.1, keep_bodies=False) as endpoint:
        asked = client(endpoint, timeout=30)
        results = await asyncio.gather(*(asked.create(PROMPT) for _ in range(300)))
        await asked.close()
    assert len(results) == 300
    assert endpoint.counts == {"ok": 300}


# Faults ------------------------------------------------------------------------------------------

FAULTS: dict[Fault, tuple[type[EndpointError], str]] = {
    Fault.UNAUTHORIZED: (EndpointMisconfigured, r"refused the key \(401\).*OPENAI_API_KEY"),
    Fault.FORBIDDEN: (EndpointForbidden, r"refused access \(403\)"),
    Fault.MODEL_NOT_FOUND: (EndpointMisconfigured, r"has no model 'm', .* \(404\)"),
    Fault.QUOTA_EXHAUSTED: (QuotaExhausted, "quota is used up"),
    Fault.SCHEMA_UNSUPPORTED: (RequestUnsupported, r"\(400\): .*response_format"),
    Fault.CONTEXT_LENGTH: (ContextExceeded, "longer than the context of 'm'"),
    Fault.RATE_LIMITED: (EndpointThrottled, "answered 429"),
    Fault.SERVER_ERROR: (EndpointOverloaded, "answered 500"),
    Fault.UNAVAILABLE: (EndpointOverloaded, "answered 503"),
    Fault.RESET: (EndpointUnreachable, "closed the connection before"),
    Fault.CUT_BODY: (EndpointUnreachable, "closed the connection before"),
    Fault.HANG: (EndpointTimeout, r"did not answer within 0\.1 s"),
    Fault.INVALID_JSON: (UnusableAnswer, "not JSON"),
    Fault.WRONG_SHAPE: (UnusableAnswer, "not a chat completion"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_a_typed_error_with_cause_and_remedy(fault: Fault) -> None:
    kind, message = FAULTS[fault]
    with Endpoint(faults=[fault] * 100) as endpoint:
        asked = client(endpoint, timeout=0.1 if fault is Fault.HANG else 30)
        with pytest.raises(EndpointError, match=message) as caught:
            await asked.create(PROMPT)
        await asked.close()
    assert type(caught.value) is kind
    assert caught.value.remedy
    assert endpoint.counts[fault]


def test_every_fault_of_the_endpoint_is_looked_at() -> None:
    as_results = {
        Fault.EMPTY_CONTENT,
        Fault.LENGTH,
        Fault.CONTENT_FILTER,
        Fault.REFUSAL,
        Fault.REFUSAL_FIELD,
        Fault.RATE_LIMITED_RETRY_AFTER,
    }
    assert set(FAULTS) | as_results == set(Fault)


async def test_an_endpoint_that_is_not_there_is_unreachable_and_not_slow() -> None:
    with Endpoint() as endpoint:
        gone = client(endpoint)
    with pytest.raises(EndpointUnreachable, match="cannot be reached"):
        await gone.create(PROMPT)
    await gone.close()


@pytest.mark.parametrize(
    ("fault", "content", "finish_reason", "refusal"),
    [
        (Fault.EMPTY_CONTENT, "", "stop", None),
        (Fault.CONTENT_FILTER, "", "content_filter", None),
        (Fault.REFUSAL_FIELD, "", "stop", "I'm sorry, but I can't help with that."),
        (Fault.REFUSAL, "I'm sorry, but I can't help with that.", "stop", None),
        (Fault.LENGTH, "Half", "length", None),
    ],
)
async def test_what_the_agents_must_judge_is_a_result(
    fault: Fault, content: str, finish_reason: str, refusal: str | None
) -> None:
    with Endpoint(faults=[fault], reply=lambda _: "Half and half") as endpoint:
        asked = client(endpoint)
        result = await asked.create(PROMPT)
        await asked.close()
    assert str(result.content).startswith(content)
    assert (result.finish_reason, result.refusal) == (finish_reason, refusal)


@pytest.mark.parametrize("fault", sorted(FAULTS))
async def test_no_retries_means_one_request(fault: Fault) -> None:
    with Endpoint(faults=[fault] * 100) as endpoint:
        asked = client(endpoint, max_retries=0, timeout=0.1 if fault is Fault.HANG else 30)
        with pytest.raises(EndpointError) as caught:
            await asked.create(PROMPT)
        await asked.close()
    asked_for = [c for c in endpoint.calls if c.body["messages"][-1]["content"] == "How are you?"]
    assert len(asked_for) == 1, "all others are probes"
    assert "attempts" not in caught.value.cause


# Cancellation ------------------------------------------------------------------------------------


async def arrival(endpoint: Endpoint) -> None:
    while not endpoint.in_flight:  # noqa: ASYNC110 - it lives in another thread
        await asyncio.sleep(0.001)


async def test_a_token_cancels_the_call_under_way() -> None:
    with Endpoint(faults=[Fault.HANG]) as endpoint:
        asked, token = client(endpoint), CancellationToken()
        call = asyncio.create_task(asked.create(PROMPT, cancellation_token=token))
        await arrival(endpoint)
        token.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asked.close()


async def test_cancelling_the_caller_cancels_the_call() -> None:
    with Endpoint(faults=[Fault.HANG]) as endpoint:
        asked = client(endpoint)
        call = asyncio.create_task(asked.create(PROMPT))
        await arrival(endpoint)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        # The endpoint sees the client leave: nobody pays for a reply that nobody waits for.
        while endpoint.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asked.close()


# The key -----------------------------------------------------------------------------------------


def everything_said(error: BaseException | None) -> Iterator[str]:
    """What a traceback, a debugger or a crash report may show of an error and its causes."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        found = todo.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield f"{found!r} {found} {found.args} {vars(found)}"
        for held in vars(found).values():
            # What an SDK's error holds on to: the request, and so its headers.
            yield str(dict(getattr(held, "headers", {}))) if hasattr(held, "headers") else ""
        todo += [found.__cause__, found.__context__]


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_key_is_in_no_error_and_in_no_log(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Endpoint(faults=[fault] * 100, api_key=KEY) as endpoint:
        asked = client(endpoint, timeout=0.1 if fault is Fault.HANG else 30)
        with pytest.raises(EndpointError) as caught:
            await asked.create(PROMPT)
        await asked.close()
    assert endpoint.counts[fault], "the endpoint did see the key"
    assert KEY not in " ".join(everything_said(caught.value))
    assert KEY not in caplog.text
    assert KEY not in " ".join(str(vars(record)) for record in caplog.records)


async def test_a_key_that_the_endpoint_repeats_is_struck_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Endpoint(supports_schema=False) as endpoint:
        # A word of the endpoint's own message stands in for a key that it quotes.
        monkeypatch.setenv("OPENAI_API_KEY", "supported")
        asked = client(endpoint, json_fallback=False)
        with pytest.raises(RequestUnsupported, match=r"is not \*\*\* with") as caught:
            await asked.create(PROMPT, extra_create_args={"response_format": SCHEMA})
        await asked.close()
    assert "supported" not in caught.value.cause


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://[::1]:9", "http://localhost:9"])
def test_loopback_is_known(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://127.evil.com", "http://localhost.evil.com", "http://10.0.0.1", "http://[::2]"]
)
def test_what_only_looks_like_loopback_is_not(url: str) -> None:
    assert not is_loopback(url)


async def test_no_key_is_needed_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with Endpoint() as endpoint:
        asked = client(endpoint)
        assert (await asked.create(PROMPT)).content
        await asked.close()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", r"needs a key, and MY_KEY is not set"),
        ("sk-ä", "contains characters that are not allowed"),
    ],
)
async def test_elsewhere_a_key_is_asked_for_by_the_name_of_its_variable(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", value)
    asked = client("https://models.example/v1", api_key_env="MY_KEY")
    with pytest.raises(EndpointMisconfigured, match=message) as caught:
        await asked.create(PROMPT)
    assert "MY_KEY" in str(caught.value)
    await asked.close()  # closing needs no key


async def test_a_key_that_was_corrected_is_used_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Endpoint(api_key=KEY) as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", "wrong")
        asked = client(endpoint)
        with pytest.raises(EndpointMisconfigured, match="refused the key"):
            await asked.create(PROMPT)
        monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
        assert (await asked.create(PROMPT)).content
        await asked.close()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "localhost:8000/v1",
        "http://",
        "http://host:port/v1",
        "https://me:password@host/v1",
        "https://host/v1?api-key=secret",
        "https://host/v1#x",
    ],
)
def test_an_address_that_cannot_be_one_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EndpointConfig(base_url=url, model="m")
    assert [problem["loc"] for problem in caught.value.errors()] == [("base_url",)]


# Sharing and closing -----------------------------------------------------------------------------


async def test_clients_of_one_endpoint_share_their_connections() -> None:
    with Endpoint() as endpoint:
        one, other = client(endpoint), client(endpoint)
        sdks = [
            Exchange(asked.config, key, Timeouts())._sdk()
            for asked, key in ((one, KEY), (other, KEY), (client(endpoint, timeout=5), KEY))
        ]
        assert sdks[0] is sdks[1] is sdks[2]
        assert sdks[0] is not Exchange(one.config, "another key", Timeouts())._sdk()
        await one.close()
        await client(endpoint, timeout=5).close()


async def test_a_closed_client_opens_again_and_may_be_closed_twice() -> None:
    with Endpoint() as endpoint:
        asked = client(endpoint)
        await asked.create(PROMPT)
        await asked.close()
        await asked.close()
        await asked.create(PROMPT)
        await asked.close()
    assert endpoint.counts == {"ok": 2}


def test_one_client_works_in_several_event_loops_and_leaves_nothing_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Endpoint() as endpoint:
        asked = client(endpoint)

        async def ask_and_close() -> str:
            content = (await asked.create(PROMPT)).content
            await asked.close()
            return str(content)

        replies = {asyncio.run(ask_and_close()) for _ in range(3)}
    gc.collect()
    assert len(replies) == 1
    assert "Unclosed" not in caplog.text


def test_a_client_can_be_dumped_and_loaded_without_its_key() -> None:
    asked = client("https://models.example/v1", api_key_env="MY_KEY")
    dumped = asked.dump_component()
    assert KEY not in dumped.model_dump_json()
    loaded = ChatCompletionClient.load_component(dumped)
    assert isinstance(loaded, EndpointClient)
    assert loaded.config == asked.config


# What other services understand ------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "reply",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "minLength": 1, "maxLength": 5},
                "maxLength": {"type": "string"},
            },
        },
    },
}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Sends a request through a client whose network is cut; gives the body that it would post."""

    async def send(url: str, **config: Any) -> dict[str, Any]:
        bodies: list[dict[str, Any]] = []

        class Sdk:
            async def post(self, path: str, *, content: Any, cast_to: Any, options: Any) -> Any:
                bodies.append(json.loads(b"".join([part async for part in content])))
                choice = {"message": {"content": "x"}, "finish_reason": "stop"}
                return httpx2.Response(200, json={"choices": [choice]})

        asked = client(url, **config)
        monkeypatch.setattr(Exchange, "_sdk", lambda _: Sdk())
        await asked.create(
            PROMPT, extra_create_args={"response_format": SCHEMA, "max_tokens": 50, "seed": 1}
        )
        return bodies[0]

    return send


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "https://me.openai.azure.com/openai/v1"]
)
async def test_openai_gets_no_string_lengths_and_its_own_name_for_max_tokens(
    url: str, sent: Callable[..., Any]
) -> None:
    body = await sent(url)
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    assert properties == {"text": {"type": "string"}, "maxLength": {"type": "string"}}
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 50


async def test_other_services_get_what_was_asked_for(sent: Callable[..., Any]) -> None:
    body = await sent("https://api.openai.com.models.example/v1")
    assert body["response_format"] == SCHEMA
    assert body["max_tokens"] == 50


async def test_llguidance_gets_a_grammar_for_compact_json(sent: Callable[..., Any]) -> None:
    body = await sent("http://127.0.0.1:9/v1", json_as="llguidance")
    assert "response_format" not in body
    assert body["grammar"].startswith("%llguidance {}\nstart: %json {")
    assert '"whitespace_flexible": false' in body["grammar"]
    assert '"maxLength": 5' in body["grammar"]
