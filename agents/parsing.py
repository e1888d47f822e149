"""From the text of a model to a typed reply: finds the object, and holds it to the contract."""

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
_MOST_BROKEN = 50
"""Broken objects that are passed over; each may cost a pass over the rest of the text."""


class ReplyError(ValueError):
    """A reply that is not what was asked for; the message is fit to be quoted to the model."""


def without_thinking(raw: str) -> str:
    """A reply without the thinking that some models put in front of it.

    Thinking is not the reply, and a draft of the object may stand in it. Where it does not end, the
    reply has not begun.
    """
    text = raw.lstrip()
    if text.startswith("{"):
        return text
    end = text.rfind("</think>")  # chat templates may swallow the opening tag
    if end >= 0 and not _is_quoted(text, end):
        return text[end + len("</think>") :].lstrip()
    return "" if text.startswith("<think>") else text


def _is_quoted(text: str, place: int) -> bool:
    """Whether a place in a reply is inside its first object: a tag there is quoted, not meant."""
    start = _OBJECT_START.search(text, 0, place)
    if start is None:
        return False
    try:
        return _DECODER.raw_decode(text, start.start())[1] > place
    except (ValueError, RecursionError):
        return False


def _read_objects(text: str, most: int = 2) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    """The whole JSON objects in a text that stand in no other, and what is wrong with the rest.

    Returns:
        Each object as text and as data, up to `most`: in a reply, two are one too many. And the
        first error of the JSON decoder, or None.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    problem: str | None = None
    position = broken = 0
    while len(found) < most and broken < _MOST_BROKEN:
        start = _OBJECT_START.search(text, position)
        if start is None:
            break
        position = start.start()
        try:
            data, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            problem = problem or f"{error.msg} at character {error.pos}"
        except ValueError:
            problem = problem or "a number of thousands of digits"
        except RecursionError:
            problem = problem or "it is nested too deeply"
            break  # every further start would be as deep, and as costly
        else:
            found.append((text[position:end], data))
            position = end
            continue
        position += 1
        broken += 1
    return found, problem


def find_json(raw: str) -> str | None:
    """The JSON object in a reply, without what unconstrained models put around it.

    Args:
        raw: The text of the reply; may hold a ``<think>`` block, a code fence, words before or
            after the object.

    Returns:
        The text of the object; None if there is none that is whole, or more than one.
    """
    objects, _ = _read_objects(without_thinking(raw))
    return objects[0][0] if len(objects) == 1 else None


def parse_reply(
    raw: str, reply_type: type[ReplyT], contract: ReplyContract, data: Sequence[str] = ()
) -> ReplyT:
    """Reads a reply and holds it to the contract.

    Args:
        raw: The text as the model gave it.
        reply_type: The reply model that was asked for.
        contract: Ids and limits of the run.
        data: The prompt and other texts that are data: who repeats an object that stands in one
            of them has not replied, but quoted or obeyed it.

    Returns:
        The parsed reply.

    Raises:
        ReplyError: The text holds no JSON object or several, or one of another shape, or one that
            is copied out of the data, or that cites an unknown id.
    """
    objects, broken = _read_objects(without_thinking(raw))
    if len(objects) != 1 and broken:
        raise ReplyError(f"its JSON is broken ({broken})")
    if len(objects) != 1:
        many = "more than one" if objects else "no"
        raise ReplyError(f"there is {many} JSON object in it")
    text, fields = objects[0]
    if any(_holds(source, text, fields) for source in data):
        raise ReplyError("it is copied out of text that is data")
    fields.pop("role", None)
    try:
        return reply_type.model_validate(fields, context=contract)
    except ValidationError as error:
        # An object inside a broken one is whole, but is not the reply: the outer one is at fault.
        problem = f"its JSON is broken ({broken})" if broken else _describe(error)
        raise ReplyError(problem) from error


def _holds(source: str, text: str, fields: dict[str, Any]) -> bool:
    """Whether a text that is data holds this object, to the letter or in other white space."""
    if text in source:
        return True
    return "{" in source and any(fields == f for _, f in _read_objects(source, _MOST_BROKEN)[0])


def _describe(error: ValidationError, most: int = 4) -> str:
    problems = []
    for item in error.errors(include_url=False, include_input=False)[:most]:
        where = ".".join(str(part) for part in item["loc"]) or "the object"
        problems.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    left = error.error_count() - len(problems)
    return "; ".join(problems) + (f"; and {left} more" if left > 0 else "")
