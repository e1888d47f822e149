"""Reads prompts from files, standard input or the Hugging Face Hub, one row at a time.

It keeps no row in memory; the journal knows which prompts exist already.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from pydantic import JsonValue

from orchestration.prompts.sources import Row, Rows, open_rows, to_json
from policies import InputError

LEFT_OUT_SHOWN = 10
"""Maximum number of left-out rows that are reported."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a chat deliberates on."""

    id: str
    """Stable across runs: the id column's value, or `p` and 12 hex digits of the text's SHA-256."""
    text: str
    """Without surrounding white space, otherwise as in the source."""
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    """The other columns of the row."""
    row: int = field(default=0, compare=False)
    """Its first line in the source, or its number (from 1) if rows have no lines."""

    @property
    def digest(self) -> bytes:
        """16 bytes that two prompts share only if their texts are the same, in NFC form."""
        return _digest(self.text)[:16]


class LeftOut(NamedTuple):
    """A row that was read and left out."""

    row: int
    """Its first line, or its number (from 1) if rows have no lines."""
    reason: str


class PromptReader(Iterator[Prompt]):
    """Iterates over the prompts of a source, and counts the rows without one.

    Closes its file at the end, at an error and on `close`; a context manager too. The first prompt
    is read ahead, so that an invalid source fails at once, and counts may start above zero; they
    are final when the iteration has ended.

    Args:
        source: A file (JSONL, CSV, TSV, text with one prompt a line, Parquet), `-` for standard
            input (JSONL if the first line that is not blank starts an object, else one prompt a
            line), or a Hugging Face data set as `hf:owner/name[:config[:split]]` (split `train`).
        column: The column of the prompts; by default `prompt`, or else the only column.
        id_column: The column of the ids; by default ids are made from the text.

    Raises:
        InputError: The source or a column cannot be used. Iteration raises it too, at the first
            malformed row.
    """

    def __init__(
        self, source: str, *, column: str | None = None, id_column: str | None = None
    ) -> None:
        self.read = 0
        """Rows seen so far."""
        self.empty = 0
        """Rows left out because their prompt was empty, white space or null."""
        self.left_out: list[LeftOut] = []
        """The first few of the rows left out, in order."""
        self._column = column
        self._id_column = id_column
        with ExitStack() as stack:
            rows, self.location = open_rows(source, stack)
            self._prompts = self._pick(rows, stack.pop_all())
        self._ahead = next(self._prompts, None)
        if self._ahead is None:
            what = "there are no prompts in it"
            raise self.location.error(0, what, "Check that it is the one you mean.")

    def __next__(self) -> Prompt:
        prompt, self._ahead = self._ahead, None
        return prompt or next(self._prompts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the source; there is no further prompt. May be called twice."""
        self._ahead = None
        with suppress(ValueError):  # a thread is reading from it, and will stop
            self._prompts.close()

    def _pick(self, rows: Rows, stack: ExitStack) -> Generator[Prompt]:
        with stack:
            column = ""
            for number, row in rows:
                self.read += 1
                if self.read == 1:
                    column = self._choose_column(number, list(row))
                text = self._text(number, row, column)
                if not text:
                    self.empty += 1
                    if len(self.left_out) < LEFT_OUT_SHOWN:
                        self.left_out.append(LeftOut(number, "empty prompt"))
                    continue
                prompt_id = self._id(number, row, text)
                rest = {k: row[k] for k in row if k not in (column, self._id_column)}
                yield Prompt(prompt_id, text, {k: to_json(rest[k]) for k in rest}, number)

    def _choose_column(self, number: int, columns: list[str]) -> str:
        names = ", ".join(columns)
        for wanted in (self._column, self._id_column):
            if wanted is not None and wanted not in columns:
                near = difflib.get_close_matches(wanted, columns, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                what = f"there is no column {wanted!r}"
                raise self.location.error(number, what, f"{hint}The columns are: {names}.")
        if self._column is not None:
            return self._column
        others = [name for name in columns if name != self._id_column]
        if "prompt" in others:
            return "prompt"
        if len(others) == 1:
            return others[0]
        what = f"no column is called 'prompt'; the columns are: {names or 'none'}"
        raise self.location.error(number, what, "Name that of the prompts with --column NAME.")

    def _text(self, number: int, row: Row, column: str) -> str:
        value = self._value(number, row, column)
        if value is not None and not isinstance(value, str):
            what = f"the prompt in column {column!r} is not a string but {type(value).__name__}"
            raise self.location.error(number, what, "Make it one, or name another with --column.")
        if value and "\0" in value:
            what = f"the prompt in column {column!r} holds a NUL character"
            raise self.location.error(number, what, "Remove it; no model can read it.")
        return (value or "").strip()

    def _id(self, number: int, row: Row, text: str) -> str:
        if self._id_column is None:
            return prompt_id(text)
        value = to_json(self._value(number, row, self._id_column))
        own = "" if isinstance(value, bool | list | dict | None) else str(value).strip()
        if not own:
            what = f"the id in column {self._id_column!r} is {value!r}"
            raise self.location.error(number, what, "Give every row a string or a number there.")
        return own

    def _value(self, number: int, row: Row, column: str) -> object:
        if column not in row:
            what = f"the row has no column {column!r}, only: {', '.join(row) or 'none'}"
            raise self.location.error(number, what, "Give it one, or remove the row.")
        return row[column]


def _digest(text: str) -> bytes:
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).digest()


def prompt_id(text: str) -> str:
    """The id that a prompt gets from its text if the source has none."""
    return "p" + _digest(text.strip())[:6].hex()


def as_prompt(given: str | Prompt) -> Prompt:
    """A prompt that was given as a text, or is one; an InputError if no model can read it."""
    if isinstance(given, Prompt):
        return given
    text = given.strip()
    if not text:
        raise InputError("The prompt is empty.", "Give it as a text that is not blank.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("The prompt is not UTF-8 text.", "Give it as UTF-8.") from None
    if "\0" in text:
        raise InputError("The prompt holds a NUL character.", "Remove it; no model can read it.")
    return Prompt(prompt_id(text), text)
