"""Dialects: what endpoints mean by the errors, names and codes that they use; see `dialects.yaml`.

An error may quote the prompt. So nothing is learned of an endpoint from words alone: what would
concern every prompt is confirmed by a probe first (see `probing.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from autogen_core.models import FinishReasons
from pydantic import BaseModel, BeforeValidator, Field

from policies import load_yaml

RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Parameters of two names, of which an endpoint takes one."""
_MOST_TEXT = 2_000  # characters of an error that are read
_MOST_DEPTH = 6
_LEAST_ROOM = 256  # tokens


class Meaning(Enum):
    """What an error means for the call, the prompt and the run."""

    # They concern this call or this prompt.
    FILTERED = "filtered"
    """A filter rejects the prompt."""
    TOO_LONG = "too_long"
    """The prompt is longer than the context."""
    INVALID_JSON = "invalid_json"
    """The endpoint checked the JSON of the reply, and withholds it."""
    THROTTLED = "throttled"
    """Too many requests for now."""
    OVERLOADED = "overloaded"
    """It failed for now."""
    # They concern every prompt, until somebody does something about it.
    KEY = "key"
    """The key is wrong."""
    FORBIDDEN = "forbidden"
    """The key is not allowed to do this; or a firewall rejects one prompt."""
    QUOTA = "quota"
    """Credit or quota is used up."""
    MODEL = "model"
    """There is no such model, or none for this use."""
    # The endpoint does not take the request in this form, and may take it in another.
    STREAM = "stream"
    """It only streams."""
    SYSTEM = "system"
    """It takes no system prompt."""
    SCHEMA = "schema"
    """It does not take this way of requesting JSON."""
    PARAMETER = "parameter"
    """It does not take a parameter."""
    OTHER = "other"
    """Anything else."""


class ErrorRow(BaseModel, extra="forbid", frozen=True):
    """Errors of one meaning."""

    means: Meaning
    statuses: re.Pattern[str]
    words: tuple[str, ...] = ()
    """Any if left out."""
    but_not: re.Pattern[str] | None = Field(default=None, alias="except")

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """All of its words."""
        return re.compile("|".join(self.words), re.IGNORECASE | re.DOTALL)

    def fits(self, status: int, text: str) -> bool:
        """Whether an error of this status and text is one of them."""
        if not self.statuses.fullmatch(str(status)) or not self.pattern.search(text):
            return False
        return self.but_not is None or not self.but_not.search(text.lower())


def _split(text: Any) -> Any:
    return frozenset(text.split()) if isinstance(text, str) else text


Words = Annotated[frozenset[str], BeforeValidator(_split)]


class Dialects(BaseModel, extra="forbid", frozen=True):
    """The content of `dialects.yaml`, which describes it."""

    errors: tuple[ErrorRow, ...]
    codes: Words
    messages: Words
    endings: dict[FinishReasons, Words]
    keywords: Words


@cache
def dialects() -> Dialects:
    """The shipped tables."""
    return load_yaml(Path(__file__).with_name("dialects.yaml"), Dialects)


class Said(NamedTuple):
    """What an endpoint says in an error."""

    status: int
    """The HTTP status; of an error inside a 200, the one that it states; 0 if none is known."""
    codes: tuple[str, ...]
    """Codes, types and the like, which never quote a prompt."""
    message: str
    """Its message, which may."""

    @property
    def meaning(self) -> Meaning:
        """What it means."""
        text, status = self._text, self.status or 400  # inside a 200, it may be any
        rows = (row.means for row in dialects().errors if row.fits(status, text))
        return next(rows, Meaning.OTHER)

    @property
    def names_filter(self) -> bool:
        """Whether it has words of a filter, whatever else it says."""
        rows = (row for row in dialects().errors if row.means is Meaning.FILTERED)
        return any(row.pattern.search(self._text) for row in rows)

    @property
    def _text(self) -> str:
        return f"{' '.join(self.codes)} {self.message}"

    def named(self, names: Iterable[str]) -> list[str]:
        """Those of some names that stand in it as whole words, the longest first."""
        found = [n for n in names if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", self._text)]
        return sorted(found, key=len, reverse=True)

    @property
    def room_for_reply(self) -> int | None:
        """Tokens that the context has left for a reply, where it says that too many were asked for.

        None if it does not say it, or if too few are left to be worth a try.
        """
        context = re.search(r"context length (?:is|of) (\d{1,9})", self.message)
        taken = re.search(
            r"(\d{1,9}) (?:input tokens|(?:tokens )?in the (?:messages|prompt))", self.message
        )
        if context is None or taken is None:
            return None
        room = int(context[1]) - int(taken[1])
        return room if room >= _LEAST_ROOM else None

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, where the body says it."""
        found = re.search(
            r"(?:retry in|try again in|retry after|retrydelay=) ?(\d{1,6}(?:\.\d{1,9})?) ?"
            r"(ms|s|m)",
            self._text.lower(),
        )
        return (
            None if found is None else float(found[1]) * {"ms": 0.001, "m": 60.0}.get(found[2], 1)
        )


def read_error(status: int, body: Any) -> Said:
    """What an error body says, whatever its shape.

    Args:
        status: The HTTP status.
        body: The body, parsed if it is JSON, else as text.
    """
    codes: list[str] = []
    messages: list[str] = []
    _collect(body, "error", codes, messages, 0)
    if status < 300:
        stated = [int(code) for code in codes if re.fullmatch(r"[45]\d\d", code)]
        status = stated[0] if stated else 0
    message = " ".join(" ".join(messages).split())[:_MOST_TEXT]
    return Said(status, tuple(code[:200] for code in codes[:20]), message)


def _collect(node: Any, key: str, codes: list[str], messages: list[str], depth: int) -> None:
    if depth > _MOST_DEPTH or len(codes) + len(messages) > 40:
        return
    if isinstance(node, dict):
        for name, value in list(node.items())[:40]:
            _collect(value, str(name).lower(), codes, messages, depth + 1)
    elif isinstance(node, list):
        for item in node[:10]:
            _collect(item, key, codes, messages, depth + 1)
    elif isinstance(node, str | int | float) and not isinstance(node, bool):
        text = str(node)[:_MOST_TEXT]
        if key in dialects().codes:
            codes.append(f"{key}={text}" if key == "retrydelay" else text)
        elif key in dialects().messages:
            messages.append(text)


def error_within(answer: Any) -> Any:
    """The error inside the body of a 200; None if there is none."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return answer if answer[0].get("error") else None
    if not isinstance(answer, dict):
        return None
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, dict):
        if first.get("error") or str(first.get("finish_reason")).lower() == "error":
            return first.get("error") or {"code": 502, "message": "finish_reason: error"}
        if first.get("message"):
            return None
    if answer.get("error"):
        return answer["error"]
    stated = answer.get("base_resp")  # MiniMax
    if isinstance(stated, dict) and stated.get("status_code"):
        return stated
    if "error" in (answer.get("object"), answer.get("type")):
        return answer
    told = "choices" not in answer and ("message" in answer or "error_msg" in answer)
    return answer if told else None


def ending(reason: Any) -> FinishReasons:
    """Why a reply ended."""
    if reason in ("stop", None, ""):
        return "stop"
    words = re.split(r"[^a-z_]+", str(reason).lower().replace("-", "_"))
    endings = dialects().endings.items()
    return next((end for word in words for end, known in endings if word in known), "unknown")
