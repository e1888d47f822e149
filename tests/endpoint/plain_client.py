"""A client of the standard library, for seeing what the endpoint sends without an SDK between."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.endpoint.server import Endpoint

SCHEMA = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["accept", "revise"]},
        "reason": {"type": "string", "maxLength": 80},
    },
    "required": ["verdict", "reason"],
    "additionalProperties": False,
}


def make_body(prompt: str = "Say something.", **more: Any) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": "You deliberate."},
        {"role": "user", "content": prompt},
    ]
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "Reply", "schema": SCHEMA, "strict": True},
    }
    return {"model": "test-model", "messages": messages, "response_format": wanted, **more}


def post(
    endpoint: Endpoint, body: Any = None, *, key: str = "key", timeout: float = 5.0
) -> tuple[int, Any, dict[str, str]]:
    """Return (status, JSON, headers), also of an error."""
    request = urllib.request.Request(
        f"{endpoint.base_url}/chat/completions",
        json.dumps(make_body() if body is None else body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


def content_of(reply: tuple[int, Any, Any]) -> Any:
    return reply[1]["choices"][0]["message"]["content"]


def wait_for(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
