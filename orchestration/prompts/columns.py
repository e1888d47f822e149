"""Which columns of a file hold prompts and ids, and what a row has in them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import JsonValue

from orchestration.prompts.chats import CHAT_COLUMNS, ChatError, is_chat, read_chat
from orchestration.prompts.formats import Row
from orchestration.prompts.location import RowLocation
from orchestration.prompts.values import to_json

_NO_ID = frozenset({"", "nan", "NaN", "null", "None", "<NA>"})
"""Texts that tools write for a value that is missing."""
_WHOLE = re.compile(r"-?\d+\.0")


class Found(NamedTuple):
    """What a row has."""

    text: str
    """Of the prompt, stripped; empty if it has none."""
    id: str | None
    """None if there is no column of ids, or no prompt."""
    metadata: dict[str, JsonValue]
    """What is left of the row."""


class Columns:
    """The columns of prompts and ids in the rows of one file.

    A name with dots reaches into objects, unless a column has just that name.

    Args:
        column: That of the prompts; by default `prompt`, or else the one of `CHAT_COLUMNS` that
            holds a chat, or else the only column.
        id_column: That of the ids, if there is one.
        first: The file's first row, by which the column is chosen.
        number: Where it is.
        location: Where the file is.
        is_typed: Whether the file tells numbers from strings.

    Raises:
        InputError: A column does not exist, or that of the prompts is not clear.
    """

    def __init__(
        self,
        column: str | None,
        id_column: str | None,
        first: Row,
        number: int,
        location: RowLocation,
        is_typed: bool,
    ) -> None:
        self._id_column = id_column
        self._location = location
        self._is_typed = is_typed
        for wanted in (column, id_column):
            if wanted is not None and _path(first, wanted) is None:
                raise self._unknown(wanted, first, number)
        self._column = self._choose(first, number) if column is None else column

    def find(self, number: int, row: Row) -> Found:
        """What a row has.

        Raises:
            InputError: It lacks a column, or holds there what is no prompt or no id.
        """
        path = self._path(number, row, self._column)
        text, others = self._text(number, _value(row, path))
        text = text.strip()
        if not text:
            return Found("", None, {})
        own = None
        rest = _without(row, path, others)
        if self._id_column is not None:
            path = self._path(number, row, self._id_column)
            own = self._id(number, _value(row, path), self._id_column)
            rest = _without(rest, path)
        return Found(text, own, {str(key): to_json(rest[key]) for key in rest})

    def _choose(self, first: Row, number: int) -> str:
        others = [name for name in first if name != self._id_column]
        if "prompt" in others:
            return "prompt"
        # The first row may lack its chat, or hold a bad one, which is reported as such.
        may_hold = (list, tuple, type(None))
        chats = [c for c in CHAT_COLUMNS if c in others and isinstance(first[c], may_hold)]
        if len(chats) == 1:
            return chats[0]
        if len(others) == 1:
            return others[0]
        names = ", ".join(first) or "none"
        what = f"no column is called 'prompt'; the columns are: {names}"
        raise self._location.error(number, what, "Name that of the prompts with --column NAME.")

    def _unknown(self, wanted: str, first: Row, number: int) -> Exception:
        nested = [f"{k}.{name}" for k, v in first.items() if isinstance(v, Mapping) for name in v]
        near = difflib.get_close_matches(wanted, [*first, *nested], n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        remedy = f"{hint}The columns are: {', '.join(first)}."
        return self._location.error(number, f"there is no column {wanted!r}", remedy)

    def _path(self, number: int, row: Row, column: str) -> list[str]:
        path = _path(row, column)
        if path is None:
            what = f"the row has no column {column!r}, only: {', '.join(row) or 'none'}"
            raise self._location.error(number, what, "Give it one, or remove the row.")
        return path

    def _text(self, number: int, value: object) -> tuple[str, list[object]]:
        """The prompt, and the other messages of a chat."""
        others: list[object] = []
        where = f"in column {self._column!r}"
        if isinstance(value, float) and math.isnan(value):
            value = None  # as pandas writes a text that is missing
        if is_chat(value):
            try:
                value, others = read_chat(value)
            except ChatError as error:
                raise self._location.error(
                    number, f"{error.what} ({where})", error.remedy
                ) from None
        if value is not None and not isinstance(value, str):
            what = f"the prompt {where} is not a string but {type(value).__name__}"
            remedy = "Make it a string or a chat, or name another column with --column."
            raise self._location.error(number, what, remedy)
        if value and "\0" in value:
            what = f"the prompt {where} holds a NUL character"
            raise self._location.error(number, what, "Remove it; no model can read it.")
        return value or "", others

    def _id(self, number: int, value: object, column: str) -> str:
        shown = plain = to_json(value)
        if isinstance(value, float) and math.isnan(value):
            shown = "NaN"
        if isinstance(plain, float) and plain.is_integer():
            # As pandas writes a column of integers with gaps.
            plain = int(plain)
        own = "" if isinstance(plain, bool | list | dict | None) else str(plain).strip()
        if not self._is_typed and _WHOLE.fullmatch(own):
            own = own.removesuffix(".0")
        if own in _NO_ID:
            what = f"the id in column {column!r} is {shown!r}"
            raise self._location.error(number, what, "Give every row a string or a number there.")
        return own


def _path(row: Row, column: str) -> list[str] | None:
    """The keys that lead to a column; None if there is none. A null on the way ends the path."""
    if column in row:
        return [column]
    for position, character in enumerate(column):
        if character == "." and (name := column[:position]) in row:
            inner = row[name]
            if inner is None:
                return [name]
            if isinstance(inner, Mapping) and (rest := _path(inner, column[position + 1 :])):
                return [name, *rest]
    return None


def _value(row: Row, path: list[str]) -> object:
    value: object = row
    for name in path:
        value = value[name] if isinstance(value, Mapping) else None
    return value


def _without(row: Row, path: list[str], others: list[object] | None = None) -> dict[str, object]:
    """A row without what is at a path, or with other messages there; an empty object goes too."""
    name, *rest = path
    kept = dict(row)
    inner = kept.pop(name, None)
    left: object = others
    if rest and isinstance(inner, Mapping):
        left = _without(inner, rest, others)
    if left:
        kept[name] = left
    return kept
