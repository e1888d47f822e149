"""From the text of a model to a typed reply: finds the object and validates it, or a refusal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agents.replies import ReplyContract

ReplyT = TypeVar("ReplyT", bound=BaseModel)

MOST_CHARACTERS = 1_000_000
"""Of a reply: far more than any that is of use. The time to read one is linear in it."""
_DECODER = json.JSONDecoder(strict=False)  # strict would refuse line breaks inside strings
_OBJECT_START = re.compile(r'\{(?=\s*["}])')
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_MAX_BROKEN = 20
"""Broken objects that are skipped; each may cost a pass over the rest of the text."""
_MOST_OBJECTS = 4

_TAGS = r"think|thinking|thought|reasoning|reflection|seed:think|analysis"
_THINKING_ENDS = re.compile(
    rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>"
    r"|<\|channel\|>final(?: [^<]*)?<\|message\|>|assistantfinal",
    re.IGNORECASE,
)
_THINKING_STARTS = re.compile(
    rf"<(?:{_TAGS})>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>", re.IGNORECASE
)


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
    # The last mark that is not quoted in the object. Chat templates may swallow the opening one.
    for end in reversed(list(_THINKING_ENDS.finditer(text))[-20:]):
        if not _is_quoted(text, end.start()):
            return text[end.end() :].lstrip()
    return "" if _THINKING_STARTS.match(text) else text


def _is_quoted(text: str, position: int) -> bool:
    """Whether a position is inside the first object of a reply: a mark there is only quoted."""
    start = _OBJECT_START.search(text, 0, position)
    if start is None:
        return False
    try:
        return _DECODER.raw_decode(text, start.start())[1] > position
    except (ValueError, RecursionError):
        return False


def _read_objects(text: str) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    """The outermost JSON objects that differ, as text and data, and the first error found."""
    found: list[tuple[str, dict[str, Any]]] = []
    problem: str | None = None
    position = broken = 0
    while len(found) < _MOST_OBJECTS and broken < _MAX_BROKEN:
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
            written = text[position:end]
            if _HALF.search(written):
                data = _without_halves(data)
            if all(data != other for _, other in found):  # some models say it twice
                found.append((written, data))
            position = end
    return found, problem


def _without_halves(node: Any) -> Any:
    """Data whose strings can be encoded: halves of surrogate pairs are replaced."""
    if isinstance(node, dict):
        return {_without_halves(key): _without_halves(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_halves(item) for item in node]
    return node.encode("utf-8", "replace").decode() if isinstance(node, str) else node


def _unpacked(text: str) -> str:
    """The text inside a reply that is a JSON string as a whole."""
    stripped = text.strip()
    if len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        try:
            return str(_DECODER.decode(stripped))
        except (ValueError, RecursionError):
            pass
    return text


def _objects_of(raw: str) -> tuple[list[tuple[str, dict[str, Any]]], str | None]:
    if len(raw) > MOST_CHARACTERS:
        return [], f"it has {len(raw):,} characters"
    return _read_objects(_unpacked(without_thinking(raw)))


def find_object(raw: str) -> tuple[str, dict[str, Any]] | None:
    """The JSON object in a reply, as text and data; None if there is not exactly one."""
    objects, _ = _objects_of(raw)
    return objects[0] if len(objects) == 1 else None


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
    objects, broken = _objects_of(raw)
    if len(objects) != 1:
        number = "more than one" if objects else "no"
        problem = f"there is {number} JSON object in it"
        raise ReplyError(f"its JSON is broken ({broken})" if broken else problem)
    fields = objects[0][1]
    if any(_holds(source, fields) for source in data):
        raise ReplyError("it is copied out of text that is data")
    fields.pop("role", None)
    try:
        return reply_type.model_validate(fields, context=contract)
    except ValidationError as error:
        # An object inside of a broken one can be read, but is not the reply.
        problem = f"its JSON is broken ({broken})" if broken else _describe(error)
        raise ReplyError(problem) from error


def _holds(source: str, fields: dict[str, Any]) -> bool:
    """Whether a text that is data holds this object, however it is written there.

    Its order, its white space, what encloses it, and whether it stands in a string do not matter:
    each of its values must stand behind its name. The time is linear in the size of the text.
    """
    if not fields or "{" not in source:
        return False
    if "\\u" not in source and any(name not in source for name in fields):
        return False  # nearly always
    text = _plain_source(source)
    return all(part in text for part in _parts(fields))


def _parts(node: Any, name: str = "") -> Iterator[str]:
    """The values of an object as `_plain` writes them, each with its name in front."""
    if isinstance(node, dict) and node:
        yield from (part for key, value in node.items() for part in _parts(value, f'"{key}":'))
    elif isinstance(node, list) and node:
        yield _plain(name)
        yield from (part for item in node for part in _parts(item))
    else:
        yield _plain(name + json.dumps(node, ensure_ascii=False))


_ESCAPED = re.compile(r"(?<!\\)\\+u([0-9a-fA-F]{4})")  # a run of backslashes is tried once
_LEFT_OUT = re.compile(r"\\+[nrtbf]?|\s+")


@lru_cache(maxsize=4)
def _plain_source(source: str) -> str:
    return _plain(source)


def _plain(text: str) -> str:
    """A text without white space, and without the backslashes of strings, however deep."""
    if "\\u" in text:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    return _LEFT_OUT.sub("", text)


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
