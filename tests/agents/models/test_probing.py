"""How it is found out what an endpoint takes, and whom its errors concern; over sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from autogen_core.models import LLMMessage, SystemMessage, UserMessage

from agents.models.config import EndpointConfig, ModelConfig
from agents.models.context import CALL, CallContext, StopSignal
from agents.models.endpoint import EndpointClient, forget_endpoints
from agents.models.errors import (
    CallNotStarted,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    QuotaExhausted,
    RequestRejected,
    RequestUnsupported,
)
from agents.models.model import Model
from agents.models.probing import PROBE
from tests.agents.models.habits import Habit, HabitServer

PROMPT: list[LLMMessage] = [
    SystemMessage(content="Be brief."),
    UserMessage(content="How are you?", source="user"),
]
ODD: list[LLMMessage] = [UserMessage(content="ODD How are you?", source="user")]
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "reply",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": 9}},
            "additionalProperties": False,
        },
    },
}
REQUEST: dict[str, Any] = {
    "response_format": SCHEMA,
    "temperature": 0.7,
    "max_tokens": 99,
    "seed": 1,
}


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    forget_endpoints()
    yield
    forget_endpoints()


def client(server: HabitServer, **config: Any) -> EndpointClient:
    return EndpointClient(
        EndpointConfig(base_url=server.base_url, **{"model": "m", "max_retries": 0, **config})
    )


async def ask(asked: EndpointClient, prompt: list[LLMMessage] = PROMPT, **more: Any) -> Any:
    return await asked.create(prompt, extra_create_args={**REQUEST, **more})


def error(status: int, message: str, **more: Any) -> tuple[int, Any]:
    return status, {"error": {"message": message, **more}}


def odd(status: int, message: str) -> Habit:
    """An endpoint that objects to one prompt."""
    return lambda body: error(status, message) if "ODD" in str(body["messages"]) else None


def without(name: str, message: str) -> Habit:
    """An endpoint that does not take a parameter."""
    return lambda body: error(400, message) if name in body else None


def keyword(name: str, message: str) -> Habit:
    """An endpoint that does not take a keyword of schemas."""
    return lambda b: error(400, message) if name in json.dumps(b.get("response_format")) else None


def no_system(body: dict[str, Any]) -> Any:
    if body["messages"][0]["role"] == "system":
        return error(400, "System role not supported")
    roles = [message["role"] for message in body["messages"]]
    return error(400, "roles must alternate") if roles[1:2] == ["user"] else None


def only_streams(body: dict[str, Any]) -> Any:
    return None if body.get("stream") else error(400, "This model only support stream mode")


def reasoning_model(body: dict[str, Any]) -> Any:
    """As OpenAI's: one complaint at a time."""
    if "max_tokens" in body:
        return error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
        )
    if body.get("temperature", 1) != 1:
        return error(400, "Unsupported value: 'temperature' does not support 0.7")
    return None


def form_of(body: dict[str, Any]) -> str:
    return str((body.get("response_format") or {}).get("type", "text"))


ADAPTED: dict[str, tuple[Habit, str, tuple[str, ...]]] = {
    "takes all": (lambda _: None, "json_schema", ()),
    "seed, named": (without("seed", "Unknown parameter: seed"), "json_schema", ("without seed",)),
    "seed, unnamed": (without("seed", "Bad request"), "json_schema", ("without seed",)),
    "FastAPI": (
        lambda b: (
            (
                422,
                {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra"}]},
            )
            if "seed" in b
            else None
        ),
        "json_schema",
        ("without seed",),
    ),
    "reasoning": (
        reasoning_model,
        "json_schema",
        ("without temperature", "max_tokens as max_completion_tokens"),
    ),
    "system": (no_system, "json_schema", ("system prompt in the user's message",)),
    "stream": (only_streams, "json_schema", ("streamed",)),
    "maxLength": (
        keyword("maxLength", "For 'string' type, property 'maxLength' is not supported"),
        "json_schema",
        ("schema without maxLength",),
    ),
    "Gemini": (
        keyword("additionalProperties", 'Unknown name "additionalProperties" at response_schema'),
        "json_schema",
        ("schema without additionalProperties",),
    ),
    "no schema": (
        lambda b: error(400, "response_format is unavailable") if "json_s" in form_of(b) else None,
        "json_object",
        (),
    ),
    "llama.cpp": (
        lambda b: error(400, "failed to parse grammar") if "json_s" in form_of(b) else None,
        "json_object",
        (),
    ),
    "Ollama": (
        lambda b: error(500, "invalid JSON schema in format") if "json_s" in form_of(b) else None,
        "json_object",
        (),
    ),
    "no JSON": (without("response_format", "Extra inputs: response_format"), "text", ()),
    "no JSON, unnamed": (without("response_format", "Bad request"), "text", ()),
}


@pytest.mark.parametrize("name", ADAPTED)
async def test_what_an_endpoint_does_not_take_is_found_out_once_and_stands_in_the_reply(
    name: str,
) -> None:
    habit, json_as, adapted = ADAPTED[name]
    with HabitServer(habit) as server:
        asked, other = client(server), client(server)
        first = await ask(asked)
        requests = len(server.bodies)
        second = await ask(other)
        await asked.close()
    assert (first.content, first.json_as, first.adapted) == (second.content, json_as, adapted)
    assert len(server.bodies) == requests + 1, "it is found out once"
    assert first.attempts == 1, "finding it out is no retry"
    texts = [body["messages"][-1]["content"] for body in server.bodies]
    assert sum("How are you?" in text for text in texts) == (2 if name == "takes all" else 3)
    assert all(b.get("max_tokens", 16) in (16, 99) for b in server.bodies)


async def test_calls_that_fail_together_find_it_out_together() -> None:
    with HabitServer(ADAPTED["no schema"][0]) as server:
        asked = client(server)
        results = await asyncio.gather(*(ask(asked) for _ in range(20)))
        await asked.close()
    assert {result.json_as for result in results} == {"json_object"}
    probes = [b for b in server.bodies if b["messages"][-1]["content"] == PROBE[-1].content]
    assert len(probes) < 8


@pytest.mark.parametrize(
    "message",
    ["response_format is not supported", "Use max_completion_tokens", "System role not supported"],
)
async def test_an_error_that_quotes_one_prompt_changes_nothing_for_the_others(message: str) -> None:
    with HabitServer(odd(400, message)) as server:
        asked = client(server)
        for _ in range(2):
            with pytest.raises(RequestRejected, match="other prompts are accepted"):
                await ask(asked, ODD)
        result = await ask(asked)
        await asked.close()
    assert (result.json_as, result.adapted) == ("json_schema", ())
    assert len(server.bodies) == 4, "a single probe"


GUARDS = [
    (403, "Forbidden"),
    (403, "Request blocked by the web application firewall"),
    (451, "Unavailable for legal reasons"),
    (400, "Your account says: flagged"),
]


@pytest.mark.parametrize(("status", "message"), GUARDS)
async def test_what_forbids_one_prompt_and_no_other_is_a_filter(status: int, message: str) -> None:
    with HabitServer(odd(status, message)) as server:
        asked = client(server)
        assert (await ask(asked, ODD)).finish_reason == "content_filter"
        assert (await ask(asked)).finish_reason == "stop"
        await asked.close()


FOR_ALL: list[tuple[int, dict[str, Any], type[EndpointError]]] = [
    (403, {"message": "Forbidden"}, EndpointForbidden),
    (400, {"message": "This organization has been disabled."}, EndpointForbidden),
    (400, {"message": "Your credit balance is too low"}, QuotaExhausted),
    (402, {"message": "Payment Required"}, QuotaExhausted),
    (429, {"message": "x", "code": "insufficient_quota"}, QuotaExhausted),
    (400, {"message": "API key not valid. Please pass a valid API key."}, EndpointMisconfigured),
    (404, {"message": "No endpoints found matching your data policy."}, EndpointMisconfigured),
    (400, {"message": "The model `m` does not exist"}, EndpointMisconfigured),
]


@pytest.mark.parametrize(("status", "said", "kind"), FOR_ALL)
@pytest.mark.parametrize("from_request", [1, 3])
async def test_what_concerns_every_prompt_is_known_as_such_at_any_time(
    status: int, said: dict[str, Any], kind: type[EndpointError], from_request: int
) -> None:
    with HabitServer(lambda _: None) as server:
        asked = client(server)
        for _ in range(from_request - 1):
            await ask(asked)
        server.habit = lambda _: (status, {"error": said})
        with pytest.raises(EndpointMisconfigured) as caught:
            await ask(asked)
        await asked.close()
    assert type(caught.value) is kind
    assert said["message"].rstrip(".") in caught.value.cause or status == 402


async def test_an_endpoint_that_takes_no_form_of_a_request_says_so_in_its_first_words() -> None:
    with HabitServer(lambda _: error(400, "Go away")) as server:
        asked = client(server)
        with pytest.raises(RequestUnsupported, match=r"\(400\): Go away\. .*params"):
            await ask(asked)
        await asked.close()
    assert len(server.bodies) < 30


async def test_whoever_insists_on_schemas_is_told_that_there_are_none() -> None:
    with HabitServer(ADAPTED["no schema"][0]) as server:
        asked = client(server, json_fallback=False)
        with pytest.raises(RequestUnsupported, match=r"json_as .*json_fallback"):
            await ask(asked)
        await asked.close()


async def test_configured_changes_are_made_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the-key")
    params = {"drop": ["seed"], "rename": {"max_tokens": "max_length"}}
    with HabitServer(lambda _: None) as server:
        asked = client(
            server,
            params=params,
            headers={"X-Team": "safety"},
            query={"api-version": "2024-10-21"},
            api_key_header="api-key",
        )
        result = await ask(asked)
        await asked.close()
    (body,) = server.bodies
    assert "seed" not in body
    assert body["max_length"] == 99
    assert result.adapted == ("without seed", "max_tokens as max_length")
    assert server.queries == ["api-version=2024-10-21"]
    assert server.headers[0]["x-team"] == "safety"
    assert "authorization" not in server.headers[0]
    assert server.headers[0]["api-key"] == "the-key"


async def test_a_probe_is_paid_for_and_on_the_bill_of_its_call() -> None:
    with HabitServer(ADAPTED["no schema"][0]) as server:
        asked = client(server)
        result = await ask(asked)
        await asked.close()
    assert result.billed.tokens > 0


async def test_what_was_changed_is_on_record_with_the_answer() -> None:
    with HabitServer(only_streams) as server:
        config = EndpointConfig(base_url=server.base_url, model="m")
        model = Model("m", ModelConfig(endpoint=config))
        answer = await model.ask(PROMPT, response_format=SCHEMA)
        await model.close()
    assert (answer.json_as, answer.adapted) == ("json_schema", ("streamed",))


async def test_an_observer_hears_of_every_request_and_a_stop_comes_before_the_next() -> None:
    heard: list[str] = []
    stop = StopSignal()

    class Notes:
        def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
            heard.append(error.kind)

        def attempt_answered(self, where: str) -> None:
            heard.append("answered")
            stop.set()

    CALL.set(CallContext(observer=Notes(), stop_signal=stop))
    with HabitServer(ADAPTED["no schema"][0]) as server:
        asked = client(server)
        with pytest.raises(CallNotStarted):
            await ask(asked)
        await asked.close()
    assert heard.count("answered") == 1
    assert len(heard) == len(server.bodies)


async def test_a_context_that_is_too_short_for_the_reply_gets_a_shorter_one() -> None:
    def small(body: dict[str, Any]) -> Any:
        if body["max_tokens"] <= 900:
            return None
        return error(
            400,
            "'max_tokens' is too large: 4096. This model's maximum context length is 4096 tokens "
            "and your request has 3196 input tokens (4096 > 4096 - 3196).",
        )

    with HabitServer(small) as server:
        asked = client(server)
        result = await ask(asked, max_tokens=4096)
        await asked.close()
    assert [body["max_tokens"] for body in server.bodies] == [4096, 900]
    assert result.finish_reason == "stop"
