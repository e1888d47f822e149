"""How an endpoint that does not know JSON schemas is asked all the same, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from autogen_core.models import LLMMessage, UserMessage

from agents.models.config import EndpointConfig, ModelConfig
from agents.models.context import CALL, CallContext, StopSignal
from agents.models.endpoint import EndpointClient
from agents.models.errors import CallNotStarted, EndpointError, RequestRejected, SchemaUnsupported
from agents.models.json_mode import reset_json_modes
from agents.models.model import Model
from tests.endpoint import Endpoint, Fault

PROMPT: list[LLMMessage] = [UserMessage(content="How are you?", source="user")]
SCHEMA: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "reply",
        "schema": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}


@pytest.fixture(autouse=True)
def nothing_is_known() -> Iterator[None]:
    reset_json_modes()
    yield
    reset_json_modes()


def client(endpoint: Endpoint, **config: Any) -> EndpointClient:
    return EndpointClient(
        EndpointConfig(base_url=endpoint.base_url, **{"model": "m", "max_retries": 0, **config})
    )


async def ask(asked: EndpointClient) -> Any:
    return await asked.create(PROMPT, extra_create_args={"response_format": SCHEMA})


def sent(endpoint: Endpoint) -> list[str]:
    """The form of each request."""
    return [call.body.get("response_format", {}).get("type", "text") for call in endpoint.calls]


async def test_an_endpoint_that_knows_schemas_is_asked_for_one() -> None:
    with Endpoint() as endpoint:
        asked = client(endpoint)
        result = await ask(asked)
        plain = await asked.create(PROMPT)
        await asked.close()
    assert sent(endpoint) == ["json_schema", "text"]
    assert result.json_as == "json_schema"
    assert plain.json_as is None, "nothing was asked for"


async def test_one_that_does_not_is_asked_for_plain_json_and_never_again_for_a_schema() -> None:
    with Endpoint(supports_schema=False) as endpoint:
        asked, other = client(endpoint), client(endpoint)
        first, second = await ask(asked), await ask(other)
        await asked.close()
    assert sent(endpoint) == ["json_schema", "json_object", "json_object"]
    assert (first.json_as, second.json_as) == ("json_object", "json_object")
    assert first.attempts == 1, "finding the form is no retry"


async def test_one_that_knows_neither_is_asked_in_words() -> None:
    faults = [Fault.SCHEMA_UNSUPPORTED, Fault.SCHEMA_UNSUPPORTED]
    with Endpoint(faults=faults) as endpoint:
        asked = client(endpoint)
        assert (await ask(asked)).json_as == "text"
        await asked.close()
    assert sent(endpoint) == ["json_schema", "json_object", "text"]


async def test_calls_that_fail_together_step_down_together() -> None:
    with Endpoint(supports_schema=False) as endpoint:
        asked = client(endpoint)
        results = await asyncio.gather(*(ask(asked) for _ in range(20)))
        await asked.close()
    assert {result.json_as for result in results} == {"json_object"}
    assert "text" not in sent(endpoint)


async def test_another_model_at_the_same_address_is_asked_for_itself() -> None:
    with Endpoint(supports_schema=False) as endpoint:
        await ask(client(endpoint))
        endpoint.supports_schema = True
        asked = client(endpoint, model="other")
        assert (await ask(asked)).json_as == "json_schema"
        await asked.close()


async def test_one_that_refuses_even_words_rejects_the_request() -> None:
    with Endpoint(faults=[Fault.SCHEMA_UNSUPPORTED] * 3) as endpoint:
        asked = client(endpoint, max_retries=5)
        with pytest.raises(RequestRejected) as caught:
            await ask(asked)
        await asked.close()
    assert type(caught.value) is RequestRejected
    assert endpoint.counts == {"schema_unsupported": 3}


async def test_whoever_insists_on_schemas_is_told_that_there_are_none() -> None:
    with Endpoint(supports_schema=False) as endpoint:
        asked = client(endpoint, json_fallback=False, max_retries=5)
        with pytest.raises(SchemaUnsupported, match=r"json_as .*json_fallback"):
            await ask(asked)
        await asked.close()
    assert endpoint.counts == {"schema_unsupported": 1}


@pytest.mark.parametrize("form", ["json_object", "text"])
async def test_a_plainer_form_can_be_asked_for_from_the_start(form: str) -> None:
    with Endpoint() as endpoint:
        asked = client(endpoint, json_as=form)
        assert (await ask(asked)).json_as == form
        await asked.close()
    assert sent(endpoint) == [form]


async def test_the_form_is_on_record_with_the_answer() -> None:
    with Endpoint(supports_schema=False) as endpoint:
        config = EndpointConfig(base_url=endpoint.base_url, model="m")
        model = Model("m", ModelConfig(endpoint=config))
        answer = await model.ask(PROMPT, response_format=SCHEMA)
        await model.close()
    assert (answer.json_as, answer.attempts) == ("json_object", 1)


async def test_an_observer_hears_of_the_refused_form_and_a_halt_comes_before_the_next() -> None:
    heard: list[tuple[str, float | None]] = []
    halt = StopSignal()

    class Notes:
        def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
            heard.append((error.kind, retry_in))
            halt.set()

        def attempt_answered(self, where: str) -> None:
            raise AssertionError

    CALL.set(CallContext(observer=Notes(), stop_signal=halt))
    with Endpoint(supports_schema=False) as endpoint:
        asked = client(endpoint)
        with pytest.raises(CallNotStarted):
            await ask(asked)
        await asked.close()
    assert heard == [("schema", 0.0)]
    assert sent(endpoint) == ["json_schema"]
