"""Reads prompts from files, standard input or the Hugging Face Hub, one row at a time.

It keeps no row in memory; the journal knows which prompts exist already.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Self

from pydantic import JsonValue

from orchestration.prompts.columns import Columns
from orchestration.prompts.location import LeftOut, RowLocation
from orchestration.prompts.sources import Part, location_of, open_parts
from policies import InputError

LEFT_OUT_SHOWN = 10
"""Maximum number of left-out rows that are reported."""

_ID_BYTES = 8  # among ten million prompts, the odds that two get one id are 1 in 400,000


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a chat deliberates on."""

    id: str
    """Stable across runs: the id column's value, or `p` and 16 hex digits of the text's SHA-256."""
    text: str
    """Without surrounding white space, otherwise as in the source."""
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    """The other columns of the row."""
    row: int = field(default=0, compare=False)
    """Its first line in the source, or its number (from 1) if rows have no lines."""
    location: RowLocation | None = field(default=None, compare=False, repr=False)
    """Its file, for messages about its row; None if it is from no source."""

    @property
    def digest(self) -> bytes:
        """16 bytes that two prompts share only if their texts are the same, in NFC form."""
        return _digest(self.text)[:16]

    def left_out(self, reason: str) -> LeftOut:
        """The note that it is left out."""
        return (
            self.location.left_out(self.row, reason) if self.location else LeftOut(self.row, reason)
        )


class PromptReader(Iterator[Prompt]):
    """Iterates over the prompts of a source, and counts the rows without one.

    Closes its file at the end, at an error and on `close`; a context manager too. The first prompt
    is read ahead, so that an invalid source fails at once, and counts may start above zero; they
    are final when the iteration has ended.

    Args:
        source: A file (JSONL, JSON, CSV, TSV, text with one prompt a line, each also with `.gz` or
            `.zst`; Parquet); a folder, or a pattern such as `data/*.jsonl`, for all such files in
            the order of their names; `-` for standard input (JSONL if the first line that is not
            blank starts an object, else one prompt a line); or a Hugging Face data set as
            `hf:owner/name[:config[:split]]` (split `train`).
        column: The column of the prompts, with dots to reach into objects; by default `prompt`, or
            else a column that holds a chat, or else the only column.
        id_column: The column of the ids, likewise; by default ids are made from the text.

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
        self._prompts = self._read_parts(open_parts(source))
        self._ahead = next(self._prompts, None)
        if self._ahead is None:
            what = "there are no prompts in it"
            raise location_of(source).error(0, what, "Check that it is the one you mean.")

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

    def _read_parts(self, parts: Generator[Part]) -> Generator[Prompt]:
        with closing(parts):
            for part in parts:
                yield from self._read_part(part)

    def _read_part(self, part: Part) -> Generator[Prompt]:
        location = part.location
        columns: Columns | None = None
        for number, row in part.rows:
            self.read += 1
            if columns is None:
                columns = Columns(
                    self._column, self._id_column, row, number, location, part.is_typed
                )
            found = columns.find(number, row)
            if found.text:
                own = found.id or prompt_id(found.text)
                yield Prompt(own, found.text, found.metadata, number, location)
                continue
            self.empty += 1
            if len(self.left_out) < LEFT_OUT_SHOWN:
                self.left_out.append(location.left_out(number, "empty prompt"))


def _digest(text: str) -> bytes:
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).digest()


def prompt_id(text: str) -> str:
    """The id that a prompt gets from its text if the source has none."""
    return "p" + _digest(text.strip())[:_ID_BYTES].hex()


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
