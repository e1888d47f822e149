"""The ways in which the endpoint can misbehave."""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple


class Fault(StrEnum):
    """What goes wrong with one call; the README's table says what the client sees."""

    RATE_LIMITED = "rate_limited"
    RATE_LIMITED_RETRY_AFTER = "rate_limited_retry_after"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    SCHEMA_UNSUPPORTED = "schema_unsupported"
    QUOTA_EXHAUSTED = "quota_exhausted"
    CONTEXT_LENGTH = "context_length"
    RESET = "reset"
    HANG = "hang"
    CUT_BODY = "cut_body"
    INVALID_JSON = "invalid_json"
    WRONG_SHAPE = "wrong_shape"
    EMPTY_CONTENT = "empty_content"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    REFUSAL_FIELD = "refusal_field"


class ErrorReply(NamedTuple):
    """An error as OpenAI's API reports it; `message` may hold `{model}`."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None

    def body(self, model: str = "") -> dict[str, Any]:
        """Return the JSON body, with `model` filled in."""
        error = {
            "message": self.message.replace("{model}", model),
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


_TOO_FAST = ErrorReply(
    429, "requests", "rate_limit_exceeded", "Rate limit reached for {model}. Please try again."
)

ERRORS: dict[Fault, ErrorReply] = {
    Fault.RATE_LIMITED: _TOO_FAST,
    Fault.RATE_LIMITED_RETRY_AFTER: _TOO_FAST,
    Fault.SERVER_ERROR: ErrorReply(
        500, "server_error", None, "The server had an error while processing your request."
    ),
    Fault.UNAVAILABLE: ErrorReply(
        503, "server_error", "overloaded", "The engine is currently overloaded."
    ),
    Fault.UNAUTHORIZED: ErrorReply(
        401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."
    ),
    Fault.FORBIDDEN: ErrorReply(
        403, "invalid_request_error", "forbidden", "You may not use this resource."
    ),
    Fault.MODEL_NOT_FOUND: ErrorReply(
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    Fault.SCHEMA_UNSUPPORTED: ErrorReply(
        400,
        "invalid_request_error",
        None,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this "
        "model.",
        "response_format",
    ),
    Fault.QUOTA_EXHAUSTED: ErrorReply(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Fault.CONTEXT_LENGTH: ErrorReply(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is exceeded. Please reduce the length of the "
        "messages.",
        "messages",
    ),
}
"""The faults that are answered with an HTTP error. All others break a 200 or send nothing."""


def bad_request(message: str, param: str | None = None) -> ErrorReply:
    """Return the 400 for a request that is itself at fault."""
    return ErrorReply(400, "invalid_request_error", None, message, param)


class FaultPlan:
    """Decides which fault strikes a call: first the script, then the rates.

    Attributes:
        script: One entry for each of the next calls; None answers well. Each call takes one.
        rates: Once the script has ended, the share of calls that each fault strikes.
    """

    def __init__(
        self, script: Iterable[Fault | None], rates: Mapping[Fault, float], seed: int
    ) -> None:
        self.script = deque(script)
        self.rates = dict(rates)
        self._seed = seed
        if any(rate < 0 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError(f"fault rates must be >= 0 and sum to <= 1 (got {self.rates})")

    def next_fault(self, number: int) -> Fault | None:
        """Return the fault of call `number`, using up one entry of the script."""
        if self.script:
            return self.script.popleft()
        if not self.rates:
            return None
        # One generator per call number: calls that arrive in another order draw the same faults.
        point = Random(f"{self._seed}:{number}").random()
        for fault, rate in self.rates.items():
            point -= rate
            if point < 0:
                return fault
        return None


class TokenBucket:
    """Lets through `rate` calls a second; saves up those of one second, and at least one."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"rate_limit must be > 0 (got {rate})")
        self._rate = rate
        self._burst = max(rate, 1.0)
        self._tokens = self._burst
        self._refilled = time.monotonic()

    def take(self) -> bool:
        """Return whether a call may pass now, and count it if so."""
        now = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._refilled) * self._rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
