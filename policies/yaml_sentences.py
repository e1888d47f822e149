"""Turns errors of pydantic and PyYAML into sentences for people who know YAML and no Python."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from policies.problems import FieldError, Loc, quote, shorten, suggest

_LIST_TYPES = {"list_type", "tuple_type", "set_type", "frozen_set_type"}
_MAPPING_TYPES = {"dict_type", "mapping_type", "model_type", "model_attributes_type"}
_SCALARS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
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


def explain_syntax(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    """Cause and remedy of text that is not YAML at all."""
    said = error.problem or "it cannot be read"
    cause, remedy = next(
        ((cause, remedy) for part, cause, remedy in _SYNTAX if part in said),
        (said, "Check the indentation, the colons and the quotes of this line and the one before."),
    )
    begin = error.context_mark
    since = f" (in what begins on line {begin.line + 1})" if begin else ""
    return f"This is not valid YAML: {cause}{since}.", remedy


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
        return _explain_refusal(limits.get("error"), name)
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
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        limit = str(limits[key]).removesuffix(".0")
        return f"{name} must be {words} {limit} (got {shorten(value)}).", "Change the number."
    return _explain_form(kind, limits, name, value) or (
        f"{name} cannot be used: {_plain(error['msg'])}.",
        "Change the value.",
    )


def _explain_form(
    kind: str, limits: dict[str, Any], name: str, value: Any
) -> tuple[str, str] | None:
    """Lengths, patterns and choices."""
    if kind == "string_unicode":
        return f"{name} has an escape that stands for no character.", "Remove it."
    if kind == "string_too_short":
        if not str(value).strip():
            return f"{name} is empty.", "Write its text."
        return f"{name} needs at least {limits['min_length']} characters.", "Write more."
    if kind == "string_too_long":
        most = limits["max_length"]
        return f"{name} has {len(value)} characters, of at most {most}.", "Shorten it."
    if kind == "too_short":
        least, count = limits["min_length"], limits["actual_length"]
        return f"{name} has {count} items and needs at least {least}.", "Add what is missing."
    if kind == "too_long":
        most, count = limits["max_length"], limits["actual_length"] or len(value)
        return f"{name} has {count} items, of at most {most}.", "Remove some, or split the file."
    if kind == "string_pattern_mismatch":
        return f"{name} has the wrong form: {quote(value)}.", f"It must match {limits['pattern']}."
    if kind in {"literal_error", "enum"}:
        known = re.findall(r"'([^']*)'", str(limits["expected"]))
        return (
            f"{name} must be one of {', '.join(map(quote, known))}, but it is {quote(value)}.",
            suggest(str(value), known),
        )
    if kind == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", str(limits["expected_tags"]))
        key = str(limits["discriminator"]).strip("'")
        return (
            f"{quote(limits['tag'])} is no known {key} of {name}.",
            suggest(str(limits["tag"]), known),
        )
    return None


def _explain_refusal(error: object, name: str) -> tuple[str, str]:
    """What a validator of the model itself said."""
    if isinstance(error, FieldError):
        return error.cause, error.remedy
    return f"{name} cannot be used: {str(error).rstrip('.')}.", ""


def describe_kind(value: object) -> str:
    """What YAML took a value for, in words."""
    if isinstance(value, bool):
        return "a yes/no value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, datetime.date):
        return "a date"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "nothing" if value is None else "text"


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


def _plain(message: str) -> str:
    return message.replace("Input should", "it should").rstrip(".")


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
