"""What endpoints say in their errors and replies, in the words of each, and what it means."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from agents.models.dialects import Meaning, Said, dialects, ending, error_within, read_error
from agents.models.errors import (
    ContextExceeded,
    EndpointError,
    EndpointMisconfigured,
    EndpointOverloaded,
    EndpointThrottled,
    QuotaExhausted,
    RequestRejected,
    UnusableAnswer,
)
from agents.models.failure import Endpoint, of_said
from agents.models.response import EndpointResult, join_stream, read_completion
from agents.models.usage import Usage, read_usage

ENDPOINT = Endpoint("https://models.example/v1", "m", "K")


def e(message: str, **more: Any) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, **more}}


ERRORS: dict[Meaning, list[tuple[int, Any]]] = {
    Meaning.FILTERED: [
        (
            400,
            e(
                "The response was filtered due to the prompt triggering Azure OpenAI's content "
                "management policy.",
                code="content_filter",
            ),
        ),
        (400, e("Invalid prompt: your prompt was flagged", code="invalid_prompt")),  # OpenAI
        (400, e("Your request was rejected by our safety system", code="moderation_blocked")),
        (400, e("litellm.ContentPolicyViolationError: …", code="400")),
        (400, e("Content Exists Risk", code="invalid_request_error")),  # DeepSeek
        (400, e("Output blocked by content filtering policy")),  # Anthropic
        (403, e("Input was flagged by moderation", code=403, metadata={"reasons": ["violence"]})),
        (200, {"error": {"message": "This content was flagged for possible risk", "code": 403}}),
        (400, e("Input data may contain inappropriate content.", code="data_inspection_failed")),
        (400, {"code": "DataInspectionFailed", "message": "Output data may contain …"}),
        (400, e("系统检测到输入或生成内容可能包含不安全或敏感内容", code="1301")),  # Zhipu
        (400, e("The request was rejected because it was considered high risk")),  # Moonshot
        (400, {"error": "Request blocked by guardrail"}),
        (422, {"detail": "Prompt violates our usage policies"}),
        (500, e("prompt blocked: PROHIBITED_CONTENT", status="INTERNAL")),  # Gemini
    ],
    Meaning.TOO_LONG: [
        (400, e("This model's maximum…", code="context_length_exceeded")),
        (400, e("the request exceeds", type="exceed_context_size_error", code=400)),  # llama.cpp
        (400, e("This model's maximum context length is 4096 tokens. However, you requested 5000")),
        (400, e("The decoder prompt (length 9) is longer than the maximum model length of 8")),
        (400, e("litellm.ContextWindowExceededError: …", code="400")),
        (400, e("prompt is too long: 208310 tokens > 200000 maximum")),  # Anthropic
        (400, e("The input token count (9) exceeds the maximum number of tokens allowed (8).")),
        (413, "<html><title>413 Request Entity Too Large</title></html>"),
        (400, e("Please reduce the length of the messages or completion.")),  # Groq
    ],
    Meaning.INVALID_JSON: [
        (
            400,
            e("Failed to generate JSON. Please adjust your prompt.", code="json_validate_failed"),
        ),
        (400, e("Tool choice", code="tool_use_failed")),
        (400, e("The model did not generate valid JSON")),
    ],
    Meaning.QUOTA: [
        (402, ""),
        (402, e("Insufficient credits. Add more using …", code=402)),  # OpenRouter
        (402, e("Insufficient Balance")),  # DeepSeek
        (429, e("You exceeded your current quota", code="insufficient_quota")),
        (429, e("x", type="insufficient_quota")),
        (429, e("Your account … exceeded_current_quota_error")),  # Moonshot
        (400, e("Your credit balance is too low to access the Anthropic API.")),
        (403, e("Billing hard limit has been reached", code="billing_hard_limit_reached")),
        (400, e("Access denied, please make sure your account is in good standing: Arrearage")),
        (403, {"code": "AllocationQuota.FreeTierOnly", "message": "The free tier …"}),
    ],
    Meaning.THROTTLED: [
        (429, ""),
        (429, "Too Many Requests"),
        (403, e("Rate Limit Exceeded", errors=[{"reason": "rateLimitExceeded"}])),
        (
            429,
            [
                {
                    "error": {
                        "code": 429,
                        "message": "You exceeded your current quota. Please retry in 1.2s.",
                        "status": "RESOURCE_EXHAUSTED",
                        "details": [{"retryDelay": "1s"}],
                    }
                }
            ],
        ),
        (200, {"error": {"code": 429, "message": "Provider returned error"}}),
        (503, e("Too many requests, concurrency limit")),
    ],
    Meaning.OVERLOADED: [
        *((status, "") for status in (408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529)),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        (503, e("Loading model", type="unavailable_error", code=503)),  # llama.cpp
        (200, {"error": {"code": 502, "message": "Provider disconnected"}}),
        (200, {"error": "Internal server error"}),
    ],
    Meaning.KEY: [
        (401, ""),
        (401, e("Incorrect API key provided")),
        (400, e("API key not valid. Please pass a valid API key.", status="INVALID_ARGUMENT")),
        (403, e("Invalid API Key")),
        (200, {"error": {"code": 401, "message": "No auth credentials found"}}),
    ],
    Meaning.FORBIDDEN: [
        (403, ""),
        (403, "<html>Request blocked</html>"),
        (400, e("This organization has been disabled.")),
        (403, e("Your account was found to violate our usage policies and has been suspended")),
        (403, e("Country, region, or territory not supported", code="unsupported_country_region")),
    ],
    Meaning.MODEL: [
        (404, ""),
        (404, e("The model `m` does not exist or you do not have access to it.")),
        (404, e("No endpoints found matching your data policy.")),
        (400, e("Model Not Exist")),  # DeepSeek
        (400, e("m is not a valid model ID")),  # OpenRouter
        (400, e("The model `m` has been decommissioned", code="model_decommissioned")),
        (405, ""),
    ],
    Meaning.STREAM: [
        (400, e("This model only support stream mode, please enable the stream parameter")),
        (400, e("Non-streaming requests are not supported")),
        (400, e("stream must be true: streaming is required")),
    ],
    Meaning.SYSTEM: [
        (400, {"object": "error", "message": "System role not supported", "code": 400}),
        (400, e("Developer instruction is not enabled for models/gemma-3")),
        (400, e("Conversation roles must alternate user/assistant/user/assistant/...")),
        (500, e("Only user and assistant roles are supported!")),
    ],
    Meaning.SCHEMA: [
        (400, e("Invalid parameter: 'response_format' of type 'json_schema' is not supported")),
        (400, e("Invalid schema for response_format 'draft': In context=(), 'x' is not permitted")),
        (400, e("'messages' must contain the word 'json' in some form")),
        (400, e("This response_format type is unavailable now")),  # DeepSeek
        (422, e("response_format.type `json_schema` is unavailable now at line 1 column 12440")),
        (400, e("This model does not support response format `json_schema`.")),  # Groq
        (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}),  # LM Studio
        (400, e("The provided JSON schema contains features not supported by xgrammar.")),  # vLLM
        (400, e("litellm.UnsupportedParamsError: does not support: ['response_format']")),
        (422, {"detail": [{"loc": ["body", "response_format"], "msg": "Extra inputs are not"}]}),
        (400, e("Failed to initialize samplers: failed to parse grammar", code=400)),  # llama.cpp
        (422, {"error": "Grammar error: invalid grammar", "error_type": "validation"}),  # TGI
        (500, e("invalid JSON schema in format", type="api_error")),  # Ollama
        (400, e("output_config.format.schema: property 'maxItems' is not supported")),  # Anthropic
        (400, [{"error": {"code": 400, "message": "Unknown name at 'response_schema'"}}]),  # Gemini
    ],
    Meaning.PARAMETER: [
        (400, e("Unsupported parameter: 'max_tokens' is not supported with this model.")),
        (400, e("Unrecognized request argument supplied: seed")),
        (400, e("Unsupported value: 'temperature' does not support 0.7", param="temperature")),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra"}]}),
    ],
    Meaning.OTHER: [(400, ""), (400, "Bad Request"), (418, e("I'm a teapot"))],
}
CASES = [(meaning, *case) for meaning, cases in ERRORS.items() for case in cases]


@pytest.mark.parametrize(("meaning", "status", "body"), CASES)
def test_an_error_means_the_same_in_whatever_words(
    meaning: Meaning, status: int, body: Any
) -> None:
    within = error_within(body) if status == 200 else body
    assert read_error(status, within).meaning is meaning


def test_every_meaning_is_tried_and_every_row_names_one() -> None:
    assert set(ERRORS) == set(Meaning)
    assert {row.means for row in dialects().errors} == set(Meaning) - {Meaning.OTHER}


def test_an_error_of_any_shape_and_size_is_read() -> None:
    deep: Any = "x"
    for _ in range(500):
        deep = {"error": deep}
    bodies: list[Any] = [
        None,
        1,
        [],
        [[]],
        {"error": None},
        deep,
        {"error": {"message": "x" * 10**6}},
    ]
    for body in bodies:
        said = read_error(400, body)
        assert len(said.message) <= 2_000


TYPES: list[tuple[int, Any, type[EndpointError]]] = [
    (400, e("context length"), ContextExceeded),
    (401, e("x"), EndpointMisconfigured),
    (402, e("x"), QuotaExhausted),
    (404, e("x"), EndpointMisconfigured),
    (429, e("x"), EndpointThrottled),
    (502, e("x"), EndpointOverloaded),
    (400, e("x"), RequestRejected),
]


@pytest.mark.parametrize(("status", "body", "kind"), TYPES)
def test_a_meaning_becomes_a_typed_error(status: int, body: Any, kind: type[EndpointError]) -> None:
    error = of_said(read_error(status, body), ENDPOINT, {})
    assert type(error) is kind
    assert error.remedy
    assert "x" not in error.loggable_cause.split(), "the words of the endpoint stay out of logs"


@pytest.mark.parametrize("meaning", [Meaning.FILTERED, Meaning.INVALID_JSON])
def test_a_filter_and_a_withheld_reply_are_results_that_agents_judge(meaning: Meaning) -> None:
    status, body = ERRORS[meaning][0]
    result = of_said(read_error(status, body), ENDPOINT, {})
    assert isinstance(result, EndpointResult)
    expected = "content_filter" if meaning is Meaning.FILTERED else "stop"
    assert (result.finish_reason, result.content) == (expected, "")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "2", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, 0.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    error = of_said(read_error(429, e("slow down")), ENDPOINT, headers)
    assert isinstance(error, EndpointThrottled)
    assert (error.retry_after, error.status) == (seconds, 429)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please retry in 1.2s.", 1.2),
        ("Please try again in 20ms.", 0.02),
        ("Please try again in 6m0s.", 360.0),
        ("Try again later", None),
    ],
)
def test_the_wait_may_stand_in_the_message(message: str, seconds: float | None) -> None:
    assert Said(429, (), message).retry_after == seconds


# Replies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "means"),
    [
        *[(r, "stop") for r in ("stop", None, "", "eos_token", "end_turn", "STOP", "tool_calls")],
        *[(r, "length") for r in ("length", "max_tokens", "MAX_TOKENS", "model_length")],
        *[(r, "content_filter") for r in ("content_filter", "SAFETY", "refusal", "content-filter")],
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("FinishReason.MAX_TOKENS", "length"),
        ("odd", "unknown"),
    ],
)
def test_why_a_reply_ended_is_read_in_every_spelling(reason: str | None, means: str) -> None:
    assert ending(reason) == means


def completion(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish}], **more}


def read(answer: Any) -> EndpointResult:
    result = read_completion(answer, "The endpoint", lambda: 400)
    assert isinstance(result, EndpointResult)
    return result


CALL = {"function": {"name": "json", "arguments": "OK"}}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "OK"},
        {"content": [{"type": "text", "text": "OK"}]},
        {"content": [{"type": "text", "text": "O"}, {"type": "text", "text": "K"}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "OK"}]},
        {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": "OK"}]},
        {"content": None, "tool_calls": [CALL]},
        {"content": "", "function_call": CALL["function"]},
        {"content": None, "reasoning_content": "OK"},
        {"content": "OK", "reasoning_content": [{"type": "text", "text": "Hm."}]},
        {"content": "OK", "reasoning": {"odd": 1}, "tool_calls": [], "refusal": None},
    ],
)
def test_a_reply_is_read_in_every_shape(message: dict[str, Any]) -> None:
    assert read(completion(message)).content == "OK"


def test_a_model_that_has_only_thought_until_it_was_cut_off_has_said_nothing() -> None:
    result = read(completion({"content": "", "reasoning_content": "long thoughts"}, "length"))
    assert (result.content, result.finish_reason) == ("", "length")


def test_an_answer_without_a_choice_is_a_prompt_that_was_blocked() -> None:
    result = read({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 0}})
    assert (result.content, result.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "text",
        {},
        {"choices": [{}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"message": {"content": [1]}}]},
        {"choices": 7},
    ],
)
def test_an_answer_of_any_other_shape_is_unusable_and_kept_out_of_the_error(answer: Any) -> None:
    error = read_completion(answer, "The endpoint", lambda: 400)
    assert type(error) is UnusableAnswer
    assert error.__context__ is None


def test_an_answer_that_is_unusable_and_billed_says_what_it_cost() -> None:
    answer = {"choices": [{}], "usage": {"prompt_tokens": 70, "completion_tokens": 7}}
    error = read_completion(answer, "The endpoint", lambda: 400)
    assert isinstance(error, UnusableAnswer)
    assert error.billed == Usage(prompt_tokens=70, completion_tokens=7)


def test_a_stream_adds_up_to_a_completion() -> None:
    events = [
        {"id": "c", "model": "m", "choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"reasoning_content": "Hm."}}]},
        {"choices": [{"delta": {"content": "O"}}]},
        {"choices": [{"delta": {"content": "K"}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    text = ": open\n\n" + "".join(f"data: {json.dumps(x)}\r\n\r\n" for x in events) + "data: [DONE]"
    joined = join_stream(text)
    assert joined is not None
    result = read(joined)
    assert (result.content, result.thought, result.finish_reason) == ("OK", "Hm.", "length")
    assert result.tokens == Usage(prompt_tokens=3, completion_tokens=2)


def test_an_error_in_a_stream_is_that_error() -> None:
    text = 'data: {"choices": []}\n\ndata: {"error": {"code": 429, "message": "slow"}}\n\n'
    assert error_within(join_stream(text)) == {"code": 429, "message": "slow"}


@pytest.mark.parametrize("text", ["", "<html>", "data: {", "data: 7", "OK"])
def test_what_is_no_stream_is_told_apart(text: str) -> None:
    assert join_stream(text) is None


# Usage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "read"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 2}, (3, 2, 0, 0)),
        ({"prompt_tokens": "3", "completion_tokens": 2.0}, (3, 2, 0, 0)),
        ({"input_tokens": 3, "output_tokens": 2}, (3, 2, 0, 0)),
        (
            {
                "prompt_tokens": 30,
                "completion_tokens": 2,
                "prompt_tokens_details": {"cached_tokens": 10},
            },
            (30, 2, 10, 0),
        ),
        (
            {"prompt_tokens": 30, "completion_tokens": 2, "prompt_cache_hit_tokens": 10},
            (30, 2, 10, 0),
        ),
        # Without the cached ones, as gateways in front of Anthropic count.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 4000},
            },
            (4100, 50, 4000, 0),
        ),
        # Gemini's thinking is in the total alone.
        ({"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 132}, (30, 102, 0, 0)),
        ({"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 32}, (30, 2, 0, 0)),
        (None, (100, 10, 0, 110)),
        ({}, (100, 10, 0, 110)),
        ([], (100, 10, 0, 110)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (100, 10, 0, 110)),
        ({"prompt_tokens": 30, "completion_tokens": None}, (30, 10, 0, 10)),
        (
            {"prompt_tokens": None, "completion_tokens": "20", "total_tokens": 1.5},
            (100, 20, 0, 100),
        ),
        ({"prompt_tokens": -5, "completion_tokens": 2}, (100, 2, 0, 100)),
        ({"prompt_tokens": math.nan, "completion_tokens": math.inf}, (100, 10, 0, 110)),
        ({"prompt_tokens": 10**30, "completion_tokens": True}, (100, 10, 0, 110)),
        ({"prompt_tokens": "many", "completion_tokens": [2]}, (100, 10, 0, 110)),
    ],
)
def test_usage_is_plausible_whatever_is_stated(
    stated: Any, read: tuple[int, int, int, int]
) -> None:
    usage = read_usage(stated, lambda: 400, reply_bytes=40)
    prompt, completion_tokens, cached, estimated = read
    assert usage == Usage(
        prompt_tokens=prompt,
        completion_tokens=completion_tokens,
        cached_tokens=cached,
        estimated_tokens=estimated,
    )
    assert 0 <= usage.cached_tokens <= usage.prompt_tokens
