"""What providers other than the test endpoint say in their errors, and what it stands for."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest

from agents.models.errors import ContextExceeded, EndpointError, RequestRejected, UnusableAnswer
from agents.models.wire import explain, filtered, read_completion


def bad_request(body: dict[str, Any], status: int = 400) -> openai.APIStatusError:
    request = httpx2.Request("POST", "https://models.example/v1/chat/completions")
    response = httpx2.Response(status, request=request)
    message = str(body.get("message"))
    return openai.APIStatusError(message, response=response, body=body)


def explained(error: Exception) -> EndpointError:
    return explain(error, where="The endpoint", model="m", key_env="K", key="", timeout=1)


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
    result = filtered(bad_request(body))
    assert result is not None
    assert (result.finish_reason, result.content) == ("content_filter", "")


def test_any_other_bad_request_is_rejected_in_the_words_of_the_server() -> None:
    error = bad_request({"message": "temperature must be 1\nfor this model."}, 422)
    assert filtered(error) is None
    found = explained(error)
    assert type(found) is RequestRejected
    assert found.cause.endswith("(422): temperature must be 1 for this model.")


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
    with pytest.raises(UnusableAnswer) as caught:
        read_completion(answer, "The endpoint")
    assert caught.value.__context__ is None


def test_usage_and_details_may_be_missing() -> None:
    answer = {"choices": [{"message": {"content": "x"}, "finish_reason": "eos"}], "usage": None}
    result = read_completion(answer, "The endpoint")
    assert (result.usage.prompt_tokens, result.cached_tokens) == (0, 0)
    assert result.finish_reason == "unknown"
