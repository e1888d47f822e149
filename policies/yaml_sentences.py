"""Turns errors of pydantic and PyYAML into sentences for people who know YAML and no Python."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from policies.errors import FieldError, Loc, quote, shorten, suggest

_LIST_TYPES = {"list_type", "tuple_type", "set_type", "frozen_set_type"}
_MAPPING_TYPES = {"dict_type", "mapping_type", "model_type", "model_attributes_type"}
_SCALARS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_KINDS: dict[type, str] = {
    bool: "a yes/no value",  # before int, whose subclass it is
    int: "a number",
    float: "a number",
    datetime.date: "a date",
    dict: "a mapping",
    list: "a list",
    type(None): "nothing",
}
_FORMS = {
    "greater_than": ("{name} must be more than {gt} (got {short}).", "Change the number."),
    "greater_than_equal": ("{name} must be at least {ge} (got {short}).", "Change the number."),
    "less_than": ("{name} must be less than {lt} (got {short}).", "Change the number."),
    "less_than_equal": ("{name} must be at most {le} (got {short}).", "Change the number."),
    "string_unicode": ("{name} has an escape that stands for no character.", "Remove it."),
    "string_too_short": ("{name} needs at least {min_length} characters.", "Write more."),
    "string_too_long": ("{name} has {length} characters, of at most {max_length}.", "Shorten it."),
    "too_short": (
        "{name} has {length} items and needs at least {min_length}.",
        "Add what is missing.",
    ),
    "too_long": (
        "{name} has {length} items, of at most {max_length}.",
        "Remove some, or split the file.",
    ),
    "string_pattern_mismatch": (
        "{name} has the wrong form: {quoted}.",
        "It must match {pattern}.",
    ),
}
"""Cause and remedy of pydantic's errors about bounds, lengths and patterns."""
_SYNTAX = (
    (
        "mapping values are not allowed",
        "a colon stands where no value can begin",
        'Put text that contains ": " in quotes, or indent this line like the one above.',
    ),
    (
        "could not find expected ':'",
        "a key has no colon",
        "Write a colon and a space after every key.",
    ),
    ("found unexpected end of stream", "a quote is opened and never closed", "Close it."),
    ("found unexpected document separator", "a quote is opened and never closed", "Close it."),
    (
        "unknown escape character",
        "double quotes hold an unknown escape",
        "Use single quotes, or write every backslash twice.",
    ),
    (
        "expected alphabetic or numeric character",
        "a text begins with * or &",
        "Put text that begins with * or & in quotes.",
    ),
    (
        "that cannot start any token",
        "a text begins with a character that YAML keeps for itself",
        "Put the text in quotes.",
    ),
    ("expected ',' or", "a bracket is not closed", "Separate the items by commas and close it."),
    (
        "expected <block end>",
        "this does not belong to what stands above it",
        "Begin all keys of one mapping, and all items of one list, in the same column; put quotes "
        "around the whole of a text, and close each.",
    ),
)
"""Part of what PyYAML says, what that means, and what to do about it."""


def explain_syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str, str]:
    """Line, cause and remedy of a text that is not YAML at all."""
    said, begin = error.problem or "it cannot be read", error.context_mark
    mark = error.problem_mark or begin
    if "found unexpected end of stream" in said:
        # A quote that is never closed: the end of the file tells its writer nothing.
        mark = begin or mark
    number = mark.line if mark else 0
    if isinstance(error, yaml.composer.ComposerError):
        cause = 'A second document begins here ("---"), and a file holds one.'
        return number + 1, cause, "Remove the line, or make two files."
    here = [*text.splitlines(), ""][number]
    if re.match(r"\s*\t", here) or "'\\t'" in said:
        return number + 1, "This line is indented with a tab.", "Use spaces, in the whole file."
    cause, remedy = next(
        ((cause, remedy) for part, cause, remedy in _SYNTAX if part in said),
        (said, "Check the indentation, the colons and the quotes of this line and the one before."),
    )
    since = f" (in what begins on line {begin.line + 1})" if begin else ""
    return number + 1, f"This is not valid YAML: {cause}{since}.", remedy


def explain_value(
    error: ErrorDetails, model: type[BaseModel], written: str | None
) -> tuple[str, str]:
    """Cause and remedy of one pydantic error.

    Args:
        error: One of `ValidationError.errors()`.
        model: The model that refused the data.
        written: The value as it stands in the file, if it is a single one: `yes`, not `True`.
    """
    cause, remedy = _explain(error, model, written)
    return cause[:1].upper() + cause[1:], remedy


def _explain(error: ErrorDetails, model: type[BaseModel], written: str | None) -> tuple[str, str]:
    kind, loc, value = error["type"], error["loc"], error["input"]
    limits = error.get("ctx", {})
    name = _name(loc)
    if kind == "extra_forbidden":
        return f"the key {name} is not known here.", suggest(str(loc[-1]), _keys(model, loc))
    if kind == "missing":
        parent = f" in {_name(loc[:-1])}" if len(loc) > 1 else ""
        return f"the key {name} is missing{parent}.", f'Add a line "{loc[-1]}: ..." there.'
    if kind in {"value_error", "assertion_error"}:
        raised = limits.get("error")
        if isinstance(raised, FieldError):
            return raised.cause, raised.remedy
        return f"{name} cannot be used: {str(raised).rstrip('.')}.", ""
    if value is None:
        return f"{name} has no value.", "Write one after the colon, or remove the line."
    if kind == "string_type":
        if isinstance(value, list | dict):
            return _mismatch(name, "a text", value), "Write one text there; quote it if need be."
        return _mismatch(name, "text", value, written), f"Put it in quotes: {quote(written)}."
    if kind in _LIST_TYPES:
        remedy = 'Write each item on a line of its own that begins with "- ".'
        return _mismatch(name, "a list", value), remedy
    if kind in _MAPPING_TYPES:
        return _mismatch(name, "a mapping", value), 'Write it as lines of the form "key: value".'
    if scalar := _SCALARS.get(kind.split("_")[0]):
        return _mismatch(name, scalar, value, written), f"Write {scalar}, without quotes."
    return _explain_form(error, name)


def _explain_form(error: ErrorDetails, name: str) -> tuple[str, str]:
    """Bounds, lengths, patterns, choices, and whatever else."""
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    if kind in _FORMS:
        if kind == "string_too_short" and not str(value).strip():
            return f"{name} is empty.", "Write its text."
        length = limits.get("actual_length") or getattr(value, "__len__", int)()
        given = {key: str(limit).removesuffix(".0") for key, limit in limits.items()}
        given |= {"name": name, "short": shorten(value), "quoted": quote(value)}
        given["length"] = str(length)
        cause, remedy = _FORMS[kind]
        return cause.format_map(given), remedy.format_map(given)
    if kind in {"literal_error", "enum", "union_tag_invalid"}:
        known = re.findall(r"'([^']*)'", str(limits.get("expected", limits.get("expected_tags"))))
        if kind == "union_tag_invalid":
            tag, key = str(limits["tag"]), str(limits["discriminator"]).strip("'")
            return f"{quote(tag)} is no known {key} of {name}.", suggest(tag, known)
        cause = f"{name} must be one of {', '.join(map(quote, known))}, but it is {quote(value)}."
        return cause, suggest(str(value), known)
    said = error["msg"].replace("Input should", "it should").rstrip(".")
    return f"{name} cannot be used: {said}.", "Change the value."


def describe_kind(value: object) -> str:
    """What YAML took a value for, in words."""
    return next((words for kind, words in _KINDS.items() if isinstance(value, kind)), "text")


def _mismatch(name: str, wanted: str, value: object, written: str | None = None) -> str:
    if written is None:
        return f"{name} must be {wanted}, but it is {describe_kind(value)}."
    return f"{name} must be {wanted}, but {shorten(written)} is read as {describe_kind(value)}."


def _name(loc: Loc) -> str:
    """Names a place as its writer would: `item 2 of "rules"`."""
    if not loc:
        return "The file"
    if isinstance(loc[-1], str):
        return quote(loc[-1])
    parent = next((part for part in reversed(loc) if isinstance(part, str)), None)
    return f"item {loc[-1] + 1} of {quote(parent)}" if parent else f"item {loc[-1] + 1}"


def _keys(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a mapping at `loc[:-1]` may have."""
    models = [model]
    for part in loc[:-1]:
        # Indices, free keys and union tags name no field: they stay in the same models.
        fields = [field for each in models if (field := each.model_fields.get(str(part)))]
        if fields:
            models = [found for field in fields for found in _models_in(field.annotation)]
    names = (field.alias or name for each in models for name, field in each.model_fields.items())
    return list(dict.fromkeys(names))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type mentions: `tuple[Rule, ...] | None` mentions Rule."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    parts: Iterable[Any] = get_args(annotation)
    for part in parts:
        yield from _models_in(part)
