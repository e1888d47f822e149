"""What `Model` and its configuration promise: one source, sampling, no foreign code, no secrets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from autogen_core import InMemoryStore
from autogen_core.models import LLMMessage, UserMessage
from autogen_ext.models.cache import ChatCompletionCache
from autogen_ext.models.openai import OpenAIChatCompletionClient
from autogen_ext.models.replay import ReplayChatCompletionClient
from pydantic import ValidationError

from agents.models.components import ALLOWED_PROVIDERS
from agents.models.config import (
    EMBEDDED,
    EmbeddedConfig,
    EndpointConfig,
    ModelConfig,
    Price,
    load_models,
)
from agents.models.errors import (
    CallNotStarted,
    ComponentFailed,
    EndpointError,
    EndpointMisconfigured,
)
from agents.models.model import Model
from agents.models.usage import Usage
from orchestration import deliberate
from orchestration.deliberation.recipe import Cast, load_recipe
from policies import InputError, YamlError, load_policy_set
from tests.endpoint import Endpoint, Fault
from tests.scripted import ScriptedClient, accepts, draft, intents, refines, scripted

PROMPT: list[LLMMessage] = [UserMessage(content="How are you?", source="user")]
FORM = {"type": "json_object"}
SOMEWHERE = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m")


# Configuration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "has"),
    [
        ({}, "none"),
        ({"endpoint": SOMEWHERE, "embedded": EmbeddedConfig()}, "endpoint, embedded"),
        ({"embedded": EmbeddedConfig(), "component": {"provider": "x"}}, "embedded, component"),
    ],
)
def test_a_model_has_exactly_one_source(given: dict[str, Any], has: str) -> None:
    with pytest.raises(ValidationError, match=f"exactly one of .*; it has {has}"):
        ModelConfig(**given)


def test_a_models_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "models:\n"
        "  default:\n"
        "    endpoint: {base_url: http://127.0.0.1:8000/v1/, model: a}\n"
        "    temperature: null\n"
        "  small:\n"
        "    embedded: {}\n"
    )
    models = load_models(file)
    assert list(models) == ["default", "small"]
    assert models["default"].temperature is None
    assert models["default"].label == "a at http://127.0.0.1:8000/v1"
    assert models["small"].label == EMBEDDED.label == "SmolLM2-135M-Instruct (embedded)"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("models:\n  default:\n    endpoint: {model: a}\n", 3, "base_url"),
        ("models:\n  default:\n    temprature: 1\n    embedded: {}\n", 3, "temprature"),
        ("models:\n  default:\n    embedded: {}\n    temperature: 5\n", 4, "temperature"),
        ("models:\n  default:\n    embedded: {}\n    component: {}\n", 2, "exactly one"),
        ("models:\n  default:\n    embedded: {}\n  default:\n    embedded: {}\n", 4, "default"),
    ],
)
def test_a_problem_of_a_models_file_comes_with_its_line(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(text)
    with pytest.raises(YamlError) as caught:
        load_models(file)
    assert any(
        str(problem).startswith(f"{file}:{line}") and words in str(problem)
        for problem in caught.value.problems
    ), str(caught.value)


def test_a_models_file_needs_a_default(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  other:\n    embedded: {}\n")
    with pytest.raises(InputError, match="no model called 'default'"):
        load_models(file)


# Sampling ----------------------------------------------------------------------------------------


async def test_sampling_is_sent_with_every_call() -> None:
    model, client = scripted(["x"])
    model = Model(
        "m", model.config.model_copy(update={"top_p": 0.9, "extra": {"top_k": 5}}), client
    )
    answer = await model.ask(PROMPT, response_format=FORM)
    assert answer.text == "x"
    assert answer.latency >= 0
    assert client.arguments[0] == {
        "temperature": 0.7,
        "max_tokens": 4096,
        "top_p": 0.9,
        "seed": 0,
        "top_k": 5,
        "response_format": FORM,
    }


async def test_a_personas_sampling_goes_over_the_models() -> None:
    model, client = scripted(["x"])
    await model.ask(PROMPT, response_format=FORM, temperature=0.0, max_tokens=99)
    assert client.arguments[0]["temperature"] == 0.0
    assert client.arguments[0]["max_tokens"] == 99


async def test_null_leaves_a_setting_to_the_endpoint() -> None:
    _, client = scripted(["x"])
    config = ModelConfig(endpoint=SOMEWHERE, temperature=None, seed=None, max_tokens=None)
    await Model("m", config, client).ask(PROMPT, response_format=FORM)
    assert client.arguments[0] == {"response_format": FORM}


async def test_asking_once_more_differently_is_another_seed() -> None:
    model, client = scripted(["x", "y"])
    await model.ask(PROMPT, response_format=FORM, reseed=2)
    assert client.arguments[0]["seed"] == 2
    unseeded = Model("m", ModelConfig(endpoint=SOMEWHERE, seed=None), client)
    await unseeded.ask(PROMPT, response_format=FORM, reseed=2)
    assert "seed" not in client.arguments[1]


async def test_a_call_that_was_called_off_is_not_an_error_of_the_component() -> None:
    class Halted(ScriptedClient):
        async def create(self, *_: Any, **__: Any) -> Any:
            raise CallNotStarted

    model = Model("m", ModelConfig(component=replay("x")), Halted([]))
    with pytest.raises(CallNotStarted):
        await model.ask(PROMPT, response_format=FORM)


# Prices ------------------------------------------------------------------------------------------


def test_tokens_are_priced_by_the_million_and_cached_ones_are_part_of_the_prompt() -> None:
    usage = Usage(prompt_tokens=3_000_000, completion_tokens=1_000_000, cached_tokens=2_000_000)
    assert Price(prompt=2, completion=8, cached=0.5).cost(usage) == pytest.approx(2 + 1 + 8)
    assert Price(prompt=2, completion=8).cost(usage) == pytest.approx(6 + 8)
    assert Price(prompt=0, completion=0).cost(usage) == 0
    assert Price(prompt=1, completion=1).currency == "USD"


@pytest.mark.parametrize(
    "price",
    [{}, {"prompt": 1}, {"prompt": -1, "completion": 1}, {"prompt": 1, "completion": 1, "per": 1}],
)
def test_a_price_is_whole_or_refused(price: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(price)


def test_a_price_is_never_guessed_but_kept_where_it_is_given() -> None:
    assert ModelConfig(endpoint=SOMEWHERE).price is None
    assert "price" not in ModelConfig(endpoint=SOMEWHERE).public()
    priced = ModelConfig(endpoint=SOMEWHERE, price=Price(prompt=1, completion=2, currency="EUR"))
    assert priced.public()["price"]["currency"] == "EUR"


# Components --------------------------------------------------------------------------------------


def replay(*replies: Any) -> dict[str, Any]:
    """The component config of AutoGen's replay client."""
    texts = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]
    return ReplayChatCompletionClient(texts).dump_component().model_dump()


async def test_a_component_of_autogen_takes_part_in_a_chat() -> None:
    replies = [intents("To know."), draft("So help."), accepts(), accepts(), accepts(), refines()]
    model = Model("default", ModelConfig(component=replay(*replies)))
    cast = Cast(load_recipe("default"), load_policy_set("aidsafe"), {"default": model})
    record = await deliberate("How are you?", cast)
    await model.close()
    assert (record.outcome, record.reason) == ("completed", "consensus")
    assert record.response == "The first response."


def openai_component(endpoint: Endpoint, key: str) -> ModelConfig:
    """AutoGen's own client of OpenAI, at our endpoint."""
    client = {
        "provider": "autogen_ext.models.openai.OpenAIChatCompletionClient",
        "config": {
            "model": "m",
            "api_key": key,
            "base_url": endpoint.base_url,
            "max_retries": 0,
            "model_info": {
                "vision": False,
                "function_calling": False,
                "json_output": True,
                "family": "unknown",
                "structured_output": True,
            },
        },
    }
    return ModelConfig(component=client)


async def test_autogens_own_client_works_against_an_endpoint() -> None:
    with Endpoint(reply=lambda _: "Fine.") as endpoint:
        model = Model("m", openai_component(endpoint, "any"))
        answer = await model.ask(PROMPT, response_format=FORM)
        await model.close()
    assert (answer.text, answer.finish_reason) == ("Fine.", "stop")
    assert endpoint.calls[0].body["temperature"] == 0.7


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault.UNAUTHORIZED, EndpointMisconfigured, r"refused by its endpoint \(401\)"),
        (Fault.SERVER_ERROR, ComponentFailed, "gave no reply .*InternalServerError"),
        (Fault.RESET, ComponentFailed, "gave no reply .*APIConnectionError"),
    ],
)
async def test_what_a_component_raises_becomes_an_endpoint_error_without_its_key(
    fault: Fault, kind: type[EndpointError], words: str
) -> None:
    with Endpoint(faults=[fault]) as endpoint:
        model = Model("m", openai_component(endpoint, "sk-component"))
        with pytest.raises(EndpointError, match=words) as caught:
            await model.ask(PROMPT, response_format=FORM)
        await model.close()
    assert type(caught.value) is kind
    assert caught.value.__context__ is None
    assert "sk-component" not in f"{caught.value!r}"


async def test_a_replay_that_has_run_out_is_an_error_of_its_endpoint() -> None:
    model = Model("m", ModelConfig(component=replay()))
    with pytest.raises(
        EndpointError, match=r"replay.* gave no reply \(ValueError: No more"
    ) as caught:
        await model.ask(PROMPT, response_format=FORM)
    assert caught.value.loggable_cause.endswith("gave no reply."), (
        "an SDK's words may quote the prompt"
    )


CACHE = "autogen_ext.models.cache.ChatCompletionCache"
EVIL = {"provider": "evil.Client", "config": {}}
FOREIGN: dict[str, tuple[dict[str, Any], str]] = {
    "a foreign class": (EVIL, "evil.Client"),
    "any class": ({"provider": "os.system", "config": {}}, "os.system"),
    "a package that only begins alike": (
        {"provider": "autogen_ext.models_evil.Client", "config": {}},
        "autogen_ext.models_evil.Client",
    ),
    "another part of AutoGen": (
        {
            "provider": "autogen_ext.code_executors.local.LocalCommandLineCodeExecutor",
            "config": {},
        },
        "autogen_ext.code_executors.local.LocalCommandLineCodeExecutor",
    ),
    "a foreign client in a cache": (
        {"provider": CACHE, "config": {"client": EVIL, "store": None}},
        "evil.Client",
    ),
    "a foreign store in a cache": (
        {"provider": CACHE, "config": {"client": replay("x"), "store": EVIL}},
        "evil.Client",
    ),
    "one that is hidden deep in a list": (
        {"provider": CACHE, "config": {"x": [{"y": [EVIL]}]}},
        "evil.Client",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_code_from_elsewhere_is_never_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    component, culprit = FOREIGN[name]
    # Were it imported, this would show: the import system asks every finder.
    asked: list[str] = []

    class Watch:
        def find_spec(self, module: str, *_: Any) -> None:
            asked.append(module)

    monkeypatch.setattr(sys, "meta_path", [Watch(), *sys.meta_path])
    with pytest.raises(InputError) as caught:
        Model("m", ModelConfig(component=component))
    assert f"'{culprit}' is not one of AutoGen's model clients" in caught.value.cause
    assert f"--allow-provider {culprit.rpartition('.')[0]}." in caught.value.remedy
    assert not [
        module for module in asked if module.startswith(("evil", "autogen_ext.models_evil"))
    ]


@pytest.mark.parametrize(
    "component",
    [
        {},
        {"provider": 3},
        {"provider": "autogen_ext.models", "config": {}},
        {"provider": "autogen_ext.models.replay.NoSuchClient", "config": {}},
        {"provider": "autogen_ext.models.nothing.Client", "config": {}},
        {"provider": "autogen_ext.models.replay.ReplayChatCompletionClient", "config": {"x": 1}},
    ],
)
def test_a_component_that_cannot_be_loaded_is_an_input_error(component: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Model("m", ModelConfig(component=component))
    assert caught.value.remedy
    assert caught.value.__context__ is None


def test_more_providers_can_be_allowed() -> None:
    cache = ChatCompletionCache(ReplayChatCompletionClient(["x"]))
    dumped = cache.dump_component().model_dump()
    dumped["config"]["store"] = InMemoryStore().dump_component().model_dump()
    config = ModelConfig(component=dumped)
    with pytest.raises(InputError, match=r"autogen_core\.InMemoryStore"):
        Model("m", config)
    for allowed in ("autogen_core", "autogen_core.InMemoryStore"):
        Model("m", config, allowed=[*ALLOWED_PROVIDERS, allowed])
    with pytest.raises(InputError):
        Model("m", config, allowed=[*ALLOWED_PROVIDERS, "autogen"])


# Secrets -----------------------------------------------------------------------------------------

SECRET_CONFIG: dict[str, Any] = {
    "provider": "autogen_ext.models.openai.OpenAIChatCompletionClient",
    "config": {
        "model": "m",
        "max_tokens": 100,
        "api_key": "s3cret",
        "azure_ad_token": "s3cret",
        "default_headers": {"X-Custom": "s3cret", "Authorization": "Bearer s3cret"},
        "base_url": "https://me:s3cret@models.example/v1",
        "client": {"config": {"credentials": ["s3cret"], "client_secret": "s3cret"}},
        "http": [{"Cookie": "s3cret", "password": "s3cret"}],
    },
}


def test_what_run_files_and_records_hold_has_no_secrets() -> None:
    config = ModelConfig(component=SECRET_CONFIG, extra={"apiKey": "s3cret", "top_k": 3})
    public = config.public()
    assert "s3cret" not in json.dumps(public)
    kept = public["component"]["config"]
    assert (kept["model"], kept["max_tokens"]) == ("m", 100)
    assert kept["base_url"] == "https://***@models.example/v1"
    assert public["extra"] == {"apiKey": "***", "top_k": 3}
    assert "s3cret" not in config.label


def test_secrets_in_an_address_and_in_numbers_are_hidden_too() -> None:
    config = {
        "base_url": "https://h/v1?api-version=2&api-key=s3cret&x=1#top",
        "password": 123,
        "max_tokens": 5,
        "use_api_key": True,
    }
    public = ModelConfig(component={"provider": "p", "config": config}).public()
    assert public["component"]["config"] == {
        "base_url": "https://h/v1?api-version=2&api-key=***&x=1#top",
        "password": "***",
        "max_tokens": 5,
        "use_api_key": True,
    }


def test_the_name_of_the_keys_variable_is_no_secret() -> None:
    endpoint = EndpointConfig(base_url="https://h/v1", model="m", api_key_env="MY_KEY")
    assert ModelConfig(endpoint=endpoint).public()["endpoint"]["api_key_env"] == "MY_KEY"


def test_a_dumped_client_of_autogen_keeps_its_key_to_itself() -> None:
    client = OpenAIChatCompletionClient(model="gpt-4o", api_key="sk-secret")
    config = ModelConfig(component=client.dump_component().model_dump())
    assert "sk-secret" not in json.dumps(config.public())


async def test_a_client_of_another_protocol_is_asked_for_json_and_nothing_it_may_not_know() -> None:
    """As AutoGen's Azure AI and Anthropic clients, which refuse OpenAI's fields."""
    config = ModelConfig(component=replay({}), extra={"top_k": 5})
    client = ScriptedClient([accepts()])
    model = Model("other", config, client)

    await model.ask([UserMessage(content="Hi", source="user")], response_format={}, temperature=1)

    assert client.arguments == [{"top_k": 5}]
    assert client.json_outputs == [True]
    assert "temperature" not in config.public()


def test_settings_that_are_left_to_the_endpoint_are_on_record() -> None:
    config = ModelConfig(endpoint=EndpointConfig(base_url="http://h/v1", model="m"), seed=None)
    assert config.public()["seed"] is None
