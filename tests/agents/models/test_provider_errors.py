"""What providers other than the test endpoint say in their errors, and what it stands for."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from agents.models.errors import (
    ContextExceeded,
    EndpointError,
    EndpointOverloaded,
    EndpointThrottled,
    QuotaExhausted,
    RequestRejected,
    SchemaUnsupported,
    UnusableAnswer,
)
from agents.models.failure import filter_result, to_endpoint_error
from agents.models.response import EndpointResult, read_completion


def bad_request(
    body: dict[str, Any], status: int = 400, headers: dict[str, str] | None = None
) -> openai.APIStatusError:
    request = httpx2.Request("POST", "https://models.example/v1/chat/completions")
    response = httpx2.Response(status, request=request, headers=headers)
    message = str(body.get("message"))
    return openai.APIStatusError(message, response=response, body=body)


def explained(error: Exception) -> EndpointError:
    return to_endpoint_error(error, where="The endpoint", model="m", key_env="K", key="", timeout=1)


@pytest.mark.parametrize(
    "body",
    [
        # OpenAI
        {"message": "This model's maximum…", "code": "context_length_exceeded"},
        # llama.cpp
        {"message": "the request exceeds", "type": "exceed_context_size_error", "code": 400},
        # vLLM
        {
            "message": "This model's maximum context length is 4096 tokens. However, you requested "
            "5000 tokens",
            "type": "BadRequestError",
            "code": 400,
        },
        {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8"},
        # LiteLLM
        {"message": "litellm.ContextWindowExceededError: …", "code": "400"},
    ],
)
def test_a_prompt_that_is_too_long_concerns_one_chat_whatever_the_server_calls_it(
    body: dict[str, Any],
) -> None:
    assert type(explained(bad_request(body))) is ContextExceeded


@pytest.mark.parametrize(
    "body",
    [
        # Azure
        {
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's "
            "content management policy.",
            "code": "content_filter",
        },
        # OpenAI
        {"message": "Invalid prompt: your prompt was flagged", "code": "invalid_prompt"},
        # LiteLLM
        {"message": "litellm.ContentPolicyViolationError: …", "code": "400"},
    ],
)
def test_a_prompt_that_a_filter_takes_is_a_refusal_and_no_error(body: dict[str, Any]) -> None:
    result = filter_result(bad_request(body))
    assert result is not None
    assert (result.finish_reason, result.content) == ("content_filter", "")


def test_any_other_bad_request_is_rejected_in_the_words_of_the_server() -> None:
    error = bad_request({"message": "temperature must be 1\nfor this model."}, 422)
    assert filter_result(error) is None
    found = explained(error)
    assert type(found) is RequestRejected
    assert found.cause.endswith("(422): temperature must be 1 for this model.")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        # OpenAI
        (
            400,
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with "
            "model version `gpt-4`.",
        ),
        (400, "Invalid schema for response_format 'draft': In context=(), 'x' is not permitted."),
        # and of json_object, where the prompt does not speak of JSON
        (
            400,
            "'messages' must contain the word 'json' in some form, to use 'response_format' of "
            "type 'json_object'.",
        ),
        # DeepSeek, now and before
        (400, "This response_format type is unavailable now"),
        (
            422,
            "Failed to deserialize the JSON body into the target type: response_format: "
            "response_format.type `json_schema` is unavailable now at line 1 column 12440",
        ),
        # Groq
        (400, "This model does not support response format `json_schema`."),
        (
            400,
            "'response_format.type' : value is not one of the allowed values "
            "['text','json_object']",
        ),
        # LM Studio
        (
            400,
            "Error code: 400 - {'error': \"'response_format.type' must be 'json_schema' or "
            "'text'\"}",
        ),
        # vLLM
        (400, "The provided JSON schema contains features not supported by xgrammar."),
        # LiteLLM
        (
            400,
            "litellm.UnsupportedParamsError: together_ai does not support parameters: "
            "['response_format'], for model=m",
        ),
        # xAI
        (400, "The response_format parameter is unsupported at the moment. Leave it unset."),
        # whatever is built on FastAPI
        (
            422,
            "Error code: 422 - {'detail': [{'loc': ['body', 'response_format'], 'msg': 'Extra "
            "inputs are not permitted'}]}",
        ),
    ],
)
def test_who_does_not_know_the_form_says_so_in_many_ways(status: int, message: str) -> None:
    assert type(explained(bad_request({"message": message}, status))) is SchemaUnsupported


@pytest.mark.parametrize(
    "message",
    [
        "temperature must be 1 for this model.",
        "Unsupported parameter: 'max_tokens' is not supported with this model.",
        "The response was too odd to format.",
    ],
)
def test_what_is_said_of_something_else_is_not_about_the_form(message: str) -> None:
    assert type(explained(bad_request({"message": message}))) is RequestRejected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "2", "retry-after-ms": "1500"}, 1.5),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "-1"}, 0.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = explained(bad_request({"message": "slow down"}, 429, headers))
    assert type(error) is EndpointThrottled
    assert (error.retry_after, error.status) == (seconds, 429)


def test_429_and_5xx_can_be_told_apart_and_an_empty_purse_from_both() -> None:
    assert explained(bad_request({}, 429)).kind == "throttled"
    assert explained(bad_request({}, 502)).kind == "server_error"
    assert type(explained(bad_request({}, 502))) is EndpointOverloaded
    for where in ("code", "type"):
        empty = explained(bad_request({where: "insufficient_quota"}, 429))
        assert type(empty) is QuotaExhausted
        assert "finished work is kept" in empty.remedy


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": [1]}}]},
        {"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}},
    ],
)
def test_an_answer_of_any_other_shape_is_unusable_and_kept_out_of_the_error(answer: Any) -> None:
    error = read_completion(answer, "The endpoint")
    assert type(error) is UnusableAnswer
    assert error.__context__ is None


def test_usage_and_details_may_be_missing() -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "eos"}], "usage": None}
    result = read_completion(answer, "The endpoint")
    assert isinstance(result, EndpointResult)
    assert (result.usage.prompt_tokens, result.cached_tokens) == (0, 0)
    assert result.finish_reason == "unknown"
