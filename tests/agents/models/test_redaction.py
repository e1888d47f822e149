"""Secrets are found in every form in which they may return, and names are no secrets."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from pydantic import ValidationError

from agents.models import redaction
from agents.models.config import EndpointConfig, ModelConfig, load_models
from agents.models.redaction import (
    hold_headers,
    hold_secret,
    looks_like_key,
    redact_reply,
    redact_text,
)
from policies import YamlError
from tests.scripted import result, scripted

KEYS = {
    "OpenAI": "sk-proj-NotARealKey0123456789abcdef",
    "Anthropic": "sk-ant-api03-NotARealKey0123456789",
    "OpenRouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "Groq": "gsk_NotARealKey0123456789abcdef",
    "Google": "AIzaSyNotARealKey0123456789abcdefghijk",
    "Hugging Face": "hf_NotARealKey0123456789abcdef",
    "Fireworks": "fw_NotARealKey0123456789",
    "Replicate": "r8_NotARealKey0123456789abcdef",
    "xAI": "xai-NotARealKey0123456789abcdef",
    "NVIDIA": "nvapi-NotARealKey0123456789abcdef",
    "Amazon": "AKIANOTAREALKEY01234",
    "GitHub": "ghp_NotARealKey0123456789abcdef",
    "a JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "hexadecimal": "a0123456789abcdef0123456789abcdef",
    "a UUID": "a0123456-89ab-cdef-0123-456789abcdef",
    "letters and digits": "NotARealKey0123456789abcdef",
}
NAMES = [
    "OPENAI_API_KEY",
    "AZURE_OPENAI_API_KEY_2",
    "MyCompany_Key_2",
    "skywork-o1-open-llama-3.1-8b",
    "pku-alignment-beaver-7b-v3.0",
    "keyboard-layouts-2024-prompts.jsonl",
    "hf:owner/repository/model-Q4_K_M-2024.gguf",
    "accounts/fireworks/models/llama-v3p1-405b-instruct",
]


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_HELD", {})
    monkeypatch.setattr(redaction, "_IN_REPLIES", set())


def models_yaml(folder: Path, field: str, value: str) -> Path:
    settings = {"base_url": "https://api.example/v1", "model": "m", field: f'"{value}"'}
    lines = "".join(f"      {name}: {said}\n" for name, said in settings.items())
    file = folder / "models.yaml"
    file.write_text(f"models:\n  default:\n    endpoint:\n{lines}")
    return file


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_quoted(
    tmp_path: Path, key: str
) -> None:
    with pytest.raises(YamlError) as caught:
        load_models(models_yaml(tmp_path, "api_key_env", key))
    assert "models.yaml:6: " in str(caught.value)
    assert "name of an environment variable" in str(caught.value)
    assert key[:12] not in f"{caught.value} {caught.value!r}"
    assert caught.value.__context__ is None


@pytest.mark.parametrize("field", ["base_url", "json_as", "model", "timeout", "api_key_header"])
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_in_any_other_place_is_not_quoted(tmp_path: Path, field: str, key: str) -> None:
    file = models_yaml(tmp_path, field, key)
    if field == "model" and redact_text(key) == key:
        return  # a model may be called anything that no provider's key is like
    with pytest.raises(YamlError) as caught:
        load_models(file)
    assert key[:12] not in f"{caught.value} {caught.value!r}"


def test_errors_of_objects_made_in_python_quote_no_value() -> None:
    for settings in ({"base_url": "sk-proj-NotARealKey0123456789"}, {"api_key_env": "sk-oh no"}):
        with pytest.raises(ValidationError) as caught:
            EndpointConfig.model_validate({"base_url": "http://h/v1", "model": "m", **settings})
        assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_variables_models_and_files_are_no_keys(name: str) -> None:
    assert not looks_like_key(name)
    assert redact_text(f"the model {name}") == f"the model {name}"


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda key: quote(key, safe=""),
    "percent-encoded but for slashes": quote,
    "in lower case": lambda key: re.sub("%..", lambda part: part[0].lower(), quote(key, safe="")),
    "twice": lambda key: quote(quote(key, safe=""), safe=""),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 with a name": lambda key: base64.b64encode(f"user:{key}".encode()).decode(),
    "base64 inside a text": lambda key: base64.b64encode(f"to={key}&x=1".encode()).decode(),
    "base64 for addresses": lambda key: base64.urlsafe_b64encode(f"k:{key}".encode()).decode(),
    "base64, percent-encoded": lambda key: quote(base64.b64encode(key.encode()).decode(), safe=""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["hunter2-hunter2", "a+b/c~d?e>f<g"])
def test_a_key_that_is_held_is_found_in_every_form(form: str, key: str) -> None:
    hold_secret(key)
    said = f"https://login.example/?to={FORMS[form](key)}&x=1"
    for text in (redact_reply(said), redact_text(said)):
        assert "***" in text
        # At both ends of base64 stand characters of what is around the key.
        left = text.removeprefix("https://login.example/?to=").removesuffix("&x=1")
        assert len(left.replace("***", "")) <= 12


def test_values_behind_the_question_mark_are_removed_by_their_name() -> None:
    query = {"api-version": "2024-10-21", "key": "s1", "sig": "s2", "x-api-key": "s3", "code": "s4"}
    endpoint = EndpointConfig(base_url="http://h/v1", model="m", query=query)
    public = ModelConfig(endpoint=endpoint).public()["endpoint"]
    assert public["query"] == {"api-version": "2024-10-21", **dict.fromkeys(list(query)[1:], "***")}


def test_renamed_parameters_are_no_secrets() -> None:
    params: Any = {"drop": ("seed",), "rename": {"max_tokens": "max_completion_tokens"}}
    endpoint = EndpointConfig(base_url="http://h/v1", model="m", params=params)
    public = ModelConfig(endpoint=endpoint).public()
    assert ModelConfig.model_validate(public).endpoint == endpoint


def test_words_that_are_no_secrets_stay_in_replies() -> None:
    hold_secret("ollama")  # as a key, where a server wants any
    headers = {
        "X-Title": "careful reasoning",
        "HTTP-Referer": "https://aidsafe.example/about-the-project",
        "Accept": "application/json",
        "Authorization": "Bearer of-the-gateway-itself",
        "X-Gateway": "NotARealKey0123456789abcdef",
    }
    hold_headers(headers)
    said = " ".join(["ollama", *list(headers.values())[:3]])
    assert redact_reply(said) == said
    assert redact_reply("of-the-gateway-itself NotARealKey0123456789abcdef") == "*** ***"
    assert redact_text(f"{said} of-the-gateway-itself") == "*** *** *** *** ***"


async def test_a_reply_that_repeats_our_key_comes_without_it() -> None:
    hold_secret("hunter2-hunter2")
    said = result("Your key is hunter2-hunter2, as sk-proj-AnotherKey0123456789 might be.")
    said.served_model = "hunter2-hunter2"
    reply = await scripted([said])[0].ask([], response_format=None)
    assert reply.text == "Your key is ***, as sk-proj-AnotherKey0123456789 might be."
    assert reply.served_model == "***"
