"""From the text of a model to a typed reply: finds the object and validates it, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agents.replies import ReplyContract

ReplyT = TypeVar("ReplyT", bound=BaseModel)

_DECODER = json.JSONDecoder(strict=False)  # strict would refuse line breaks inside strings
_OBJECT_START = re.compile(r'\{(?=\s*["}])')
_MAX_BROKEN = 50
"""Broken objects that are skipped; each may cost a pass over the rest of the text."""


_REFUSAL = re.compile(
    r"""\W*(
        ((i'?m|i\ am)\ ((so|very|really|truly)\ )?)?sorry\b(?!\ for\ the\b)
      | i\ (do\ |must\ )?apologi[sz]e\b(?!\ for\ the\b)
      | (as\ an?\ (ai|assistant|language\ model)\b[^.]{0,40}?,?\ )?
        (unfortunately,?\ |i'?m\ afraid\ (that\ )?)?
        (i|we)\ ?(\w+ly\ |must\ |have\ to\ )*
        ( can(no|')t | can\ not | won't | will\ not | decline
        | ('m|\ am|am|\ are)\ ?(unable|not\ able|not\ comfortable|not\ willing) )
        # Finding nothing is no refusal, only the wrong form of a reply.
        (?!(\ to)?\ (see|find|think|spot|identify|detect|add|improve|tell)\b)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


class ReplyError(ValueError):
    """A reply that is not what was asked for; the message can be quoted to the model."""


def without_thinking(raw: str) -> str:
    """A reply without the thinking in front of it, which may hold a draft of the object.

    Where the thinking does not end, there is no reply.
    """
    text = raw.lstrip()
    if text.startswith("{"):
        return text
    end = text.rfind("</think>")  # chat templates may swallow the opening tag
    if end >= 0 and not _is_quoted(text, end):
        return text[end + len("</think>") :].lstrip()
    return "" if text.startswith("<think>") else text


def _is_quoted(text: str, position: int) -> bool:
    """Whether a position is inside the first object of a reply: a tag there is only quoted."""
    start = _OBJECT_START.search(text, 0, position)
    if start is None:
        return False
    try:
        return _DECODER.raw_decode(text, start.start())[1] > position
    except (ValueError, RecursionError):
        return False


def _read_objects(text: str, most: int = 2) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    """The outermost JSON objects, as text and as data, and the first error of the decoder."""
    found: list[tuple[str, dict[str, Any]]] = []
    problem: str | None = None
    position = broken = 0
    while len(found) < most and broken < _MAX_BROKEN:
        start = _OBJECT_START.search(text, position)
        if start is None:
            break
        position = start.start()
        try:
            data, end = _DECODER.raw_decode(text, position)
        except RecursionError:
            problem = problem or "it is nested too deeply"
            break  # every further start would be as deep, and as costly
        except ValueError as error:
            if isinstance(error, json.JSONDecodeError):
                problem = problem or f"{error.msg} at character {error.pos}"
            problem = problem or "a number of thousands of digits"
            position, broken = position + 1, broken + 1
        else:
            found.append((text[position:end], data))
            position = end
    return found, problem


def find_json(raw: str) -> str | None:
    """The text of the JSON object in a reply; None if there is not exactly one."""
    objects, _ = _read_objects(without_thinking(raw))
    return objects[0][0] if len(objects) == 1 else None


def parse_reply(
    raw: str, reply_type: type[ReplyT], contract: ReplyContract, data: Sequence[str] = ()
) -> ReplyT:
    """Reads a reply and validates it.

    Args:
        raw: The text as the model gave it.
        reply_type: The reply type that was asked for.
        contract: Ids and limits of the run.
        data: The prompt and other texts that are data. An object that stands in one of them is no
            reply: the model has quoted or obeyed the data.

    Raises:
        ReplyError: There is not exactly one JSON object, or it is not as it must be.
    """
    objects, broken = _read_objects(without_thinking(raw))
    if len(objects) != 1:
        number = "more than one" if objects else "no"
        problem = f"there is {number} JSON object in it"
        raise ReplyError(f"its JSON is broken ({broken})" if broken else problem)
    text, fields = objects[0]
    if any(_holds(source, text, fields) for source in data):
        raise ReplyError("it is copied out of text that is data")
    fields.pop("role", None)
    try:
        return reply_type.model_validate(fields, context=contract)
    except ValidationError as error:
        # An object inside of a broken one can be read, but is not the reply.
        problem = f"its JSON is broken ({broken})" if broken else _describe(error)
        raise ReplyError(problem) from error


def _holds(source: str, text: str, fields: dict[str, Any]) -> bool:
    """Whether a text that is data holds this object, whatever its white space."""
    if text in source:
        return True
    return "{" in source and any(fields == f for _, f in _read_objects(source, _MAX_BROKEN)[0])


def _describe(error: ValidationError, most: int = 4) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False)[:most]:
        where = ".".join(str(part) for part in item["loc"]) or "the object"
        problems.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    left = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {left} more" if left > 0 else "")


def looks_like_refusal(text: str) -> bool:
    """Whether a text begins like a refusal.

    Asked only of replies that could not be parsed: it decides between two failures, never about
    the content of a chat. `refused` goes to the fallback models, `malformed` to a correction turn.
    In doubt it says no, since a correction turn costs little and a model that does refuse will do
    so again. So "I am not able to see a problem" is no refusal: that is a deliberator at work.
    """
    said = without_thinking(text).strip()[:200].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return bool(_REFUSAL.match(said))
