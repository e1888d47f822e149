"""The reader of prompts: from files, standard input or the Hugging Face Hub, one row at a time.

The memory it takes grows with the digests of the prompts handed out (and, with an id column, with
their ids), never with the rows themselves.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import difflib
import gzip
import hashlib
import json
import math
import re
import sys
import unicodedata
import uuid
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from io import BufferedIOBase, BufferedReader
from itertools import chain, count, zip_longest
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

from pydantic import JsonValue

from policies.errors import InputError

MAX_LINE_BYTES = 16 * 2**20
"""The longest line or CSV field: a missing newline or quote must not fill the memory."""
PARQUET_BATCH_ROWS = 1024
"""How many rows of a Parquet file are held at once."""
HUB_PATIENCE_SECONDS = 60.0
"""How long a Hugging Face data set may take to its first row; the library has no such limit."""
LEFT_OUT_SHOWN = 10
"""How many of the rows left out are named."""

_KINDS = ".jsonl, .ndjson, .csv, .tsv, .txt (each also with .gz) or .parquet"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_Row = Mapping[str, object]
_Rows = Iterator[tuple[int, _Row]]  # the line a row starts on (its number, if it has no lines)
_Lines = Iterator[tuple[int, str]]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a chat deliberates on."""

    id: str
    """Stable across runs: the id column's value, or `p` and 12 hex digits of the text's SHA-256."""
    text: str
    """Without surrounding white space, otherwise as it was read."""
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    """The other columns of the row."""


class LeftOut(NamedTuple):
    """A row that was read but not handed out."""

    row: int
    """The line it starts on, or its number (from 1) where rows have no lines."""
    reason: str


class _Place(NamedTuple):
    """Where a row is: `file:line`, or `source, row number` where rows have no lines."""

    source: str
    mark: str = ":"

    def at(self, number: int) -> str:
        return f"{self.source}{self.mark}{number}" if number else self.source

    def error(self, number: int, what: str, remedy: str) -> InputError:
        return InputError(f"{self.at(number)}: {what}.", remedy)


class PromptReader(Iterator[Prompt]):
    """Hands out the prompts of a source once each, and counts the rows it left out.

    Made by `read_prompts`. Closes its file at the end, at an error and on `close`; also a context
    manager. The first prompt is read ahead, so the counts may start above zero; they are complete
    once iteration has ended.
    """

    def __init__(
        self,
        rows: _Rows,
        place: _Place,
        stack: ExitStack,
        column: str | None,
        id_column: str | None,
        limit: int | None,
    ) -> None:
        self.read = 0
        """Rows seen so far."""
        self.empty = 0
        """Rows left out because their prompt was empty, white space or null."""
        self.duplicates = 0
        """Rows left out because an earlier row has the same text."""
        self.left_out: list[LeftOut] = []
        """The first few of the rows left out, in order."""
        self._place = place
        self._column = column
        self._id_column = id_column
        self._seen: set[bytes] = set()
        self._ids: dict[str, int] = {}
        self._prompts = self._pick(rows, stack, limit)
        self._ahead = next(self._prompts, None)
        if self._ahead is None:
            raise place.error(0, "there are no prompts in it", "Check that it is the one you mean.")

    def __next__(self) -> Prompt:
        if (prompt := self._ahead) is not None:
            self._ahead = None
            return prompt
        return next(self._prompts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the source; no further prompt is handed out. May be called twice."""
        self._ahead = None
        self._prompts.close()

    def _pick(self, rows: _Rows, stack: ExitStack, limit: int | None) -> Generator[Prompt]:
        with stack:
            column = ""
            for number, row in rows:
                self.read += 1
                if self.read == 1:
                    column = self._choose_column(number, list(row))
                text = self._text(number, row, column)
                digest = _digest(text)
                if not text:
                    self.empty += 1
                    self._leave_out(number, "empty prompt")
                elif digest[:16] in self._seen:
                    self.duplicates += 1
                    self._leave_out(number, "same text as an earlier prompt")
                else:
                    self._seen.add(digest[:16])
                    prompt_id = self._id(number, row, digest)
                    rest = {k: row[k] for k in row if k not in (column, self._id_column)}
                    yield Prompt(prompt_id, text, {k: to_json(rest[k]) for k in rest})
                    if limit is not None and (limit := limit - 1) == 0:
                        return

    def _choose_column(self, number: int, columns: list[str]) -> str:
        names = ", ".join(columns)
        for wanted in (self._column, self._id_column):
            if wanted is not None and wanted not in columns:
                near = difflib.get_close_matches(wanted, columns, n=1)
                hint = f"Did you mean {near[0]!r}? " if near else ""
                what = f"there is no column {wanted!r}"
                raise self._place.error(number, what, f"{hint}The columns are: {names}.")
        if self._column is not None:
            return self._column
        others = [name for name in columns if name != self._id_column]
        if "prompt" in others:
            return "prompt"
        if len(others) == 1:
            return others[0]
        what = f"no column is called 'prompt'; the columns are: {names or 'none'}"
        raise self._place.error(number, what, "Name that of the prompts with --column NAME.")

    def _text(self, number: int, row: _Row, column: str) -> str:
        value = self._value(number, row, column)
        if value is not None and not isinstance(value, str):
            what = f"the prompt in column {column!r} is not a string but {type(value).__name__}"
            raise self._place.error(number, what, "Make it one, or name another with --column.")
        return (value or "").strip()

    def _id(self, number: int, row: _Row, digest: bytes) -> str:
        if self._id_column is None:
            own = _id_of(digest)
            # At ten million prompts 48 bits do collide, and two prompts of one id would share their
            # replies. Its length tells this key from the 16-byte digests in the same set.
            if digest[:6] in self._seen:
                what = f"the id made of this prompt, {own}, is that of another prompt already"
                raise self._place.error(number, what, "Name a column of ids with --id-column.")
            self._seen.add(digest[:6])
            return own
        value = to_json(self._value(number, row, self._id_column))
        own = "" if isinstance(value, bool | list | dict | None) else str(value).strip()
        if not own:
            what = f"the id in column {self._id_column!r} is {value!r}"
            raise self._place.error(number, what, "Give every row a string or a number there.")
        # The text is new, so an id seen before belongs to another prompt.
        if (other := self._ids.setdefault(own, number)) != number:
            what = f"the id {own!r} is that of another prompt too, at {self._place.at(other)}"
            raise self._place.error(number, what, "Make the ids unique, or leave out --id-column.")
        return own

    def _value(self, number: int, row: _Row, column: str) -> object:
        if column not in row:
            what = f"the row has no column {column!r}, only: {', '.join(row) or 'none'}"
            raise self._place.error(number, what, "Give it one, or take the row out.")
        return row[column]

    def _leave_out(self, number: int, reason: str) -> None:
        if len(self.left_out) < LEFT_OUT_SHOWN:
            self.left_out.append(LeftOut(number, reason))


def _digest(text: str) -> bytes:
    return hashlib.sha256(unicodedata.normalize("NFC", text).encode()).digest()


def _id_of(digest: bytes) -> str:
    return "p" + digest[:6].hex()


def prompt_id(text: str) -> str:
    """The id that a prompt gets from its text where nothing else names it."""
    return _id_of(_digest(text.strip()))


def read_prompts(
    source: str,
    *,
    column: str | None = None,
    id_column: str | None = None,
    limit: int | None = None,
) -> PromptReader:
    """Open a source and read up to its first prompt, so that a wrong source fails here.

    Args:
        source: A file (JSONL, CSV, TSV, text with one prompt a line, Parquet), `-` for standard
            input (JSONL if the first line that is not blank starts an object, else one prompt a
            line), or a Hugging Face data set as `hf:owner/name[:config[:split]]` (split `train`).
        column: The column of the prompts; by default `prompt`, or else the only column.
        id_column: The column of the ids; by default ids are made from the text.
        limit: How many prompts to hand out at most.

    Raises:
        InputError: The source, a column or the limit cannot be used. Iteration raises it too, at
            the first malformed row or at an id that two different prompts share.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit must be >= 1 (got {limit}).", "Leave it out to read all prompts.")
    with ExitStack() as stack:
        rows, place = _open_rows(source, stack)
        return PromptReader(rows, place, stack.pop_all(), column, id_column, limit)


def _open_rows(source: str, stack: ExitStack) -> tuple[_Rows, _Place]:
    if source == "-":
        place = _Place("standard input")
        return _stdin_rows(_lines(sys.stdin.buffer, place), place), place
    lines_at, rows_at = _Place(source), _Place(source, ", row ")
    if source.startswith("hf:"):
        return _hub_rows(source, rows_at), rows_at

    file: BufferedIOBase = stack.enter_context(_open_file(source))
    path = Path(source.lower())
    kind = path.suffix
    if kind == ".parquet":
        return _parquet_rows(file, rows_at), rows_at
    if kind == ".gz":
        kind = path.with_suffix("").suffix
        file = gzip.GzipFile(fileobj=file)
    lines = _lines(file, lines_at)
    if kind == ".txt":
        return _text_rows(lines), lines_at
    if kind in (".jsonl", ".ndjson"):
        return _jsonl_rows(lines, lines_at), lines_at
    if kind in (".csv", ".tsv"):
        return _csv_rows(lines, lines_at, "\t" if kind == ".tsv" else ","), lines_at
    if kind == ".json":
        raise InputError(
            f"{source} is one JSON document, which cannot be read row by row.",
            f"Convert it to JSONL: jq -c '.[]' {source} > {Path(source).with_suffix('.jsonl')} "
            "(if it holds one object a line already, rename it to .jsonl).",
        )
    raise InputError(f"{source} is of no kind that can be read.", f"Use {_KINDS}.")


def _open_file(source: str) -> BufferedReader:
    try:
        return open(source, "rb")
    except FileNotFoundError as error:
        hub = f", or write hf:{source} for the data set" if _HUB_NAME.fullmatch(source) else ""
        raise InputError(f"There is no file {source}.", f"Check the path{hub}.") from error
    except IsADirectoryError as error:
        raise InputError(f"{source} is a directory.", "Name one file of prompts.") from error
    except (OSError, ValueError) as error:
        what = f"{source} cannot be opened ({getattr(error, 'strerror', error)})."
        raise InputError(what, "Check that it may be read.") from error


def _lines(file: BufferedIOBase | BinaryIO, place: _Place) -> _Lines:
    """Decode line by line: a text-mode file could not say on which line the bad byte is."""
    for number in count(1):
        try:
            raw = file.readline(MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            what = f"cannot be read ({error})"
            raise place.error(number, what, "Check that the file is whole.") from error
        if not raw:
            return
        if len(raw) > MAX_LINE_BYTES:
            what = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB"
            raise place.error(number, what, "Check that the file is text with one row a line.")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8"
            raise place.error(number, what, "Save the file as UTF-8 text.") from error
        if "\0" in text:
            what = "the line holds a NUL byte (a binary file, or UTF-16)"
            raise place.error(number, what, "Save the file as UTF-8 text.")
        yield number, text


def _text_rows(lines: _Lines) -> _Rows:
    return ((number, {"prompt": text}) for number, text in lines)


def _stdin_rows(lines: _Lines, place: _Place) -> _Rows:
    for number, text in lines:
        if start := text.strip():
            rows = chain([(number, text)], lines)
            # A line that starts like an object but is broken is bad JSONL rather than a prompt.
            is_json = start.startswith(("{", "[{")) or start == "["
            yield from _jsonl_rows(rows, place) if is_json else _text_rows(rows)


def _jsonl_rows(lines: _Lines, place: _Place) -> _Rows:
    remedy = "Put one whole JSON object on each line (jq -c . does; jq -c '.[]' for an array)."
    for number, text in lines:
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            if "\\ud" in text.lower():
                json.dumps(row, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            what = f"not JSON: {error.msg} at column {error.colno}"
            raise place.error(number, what, remedy) from error
        except UnicodeEncodeError as error:
            what = "an escape stands for half a character (an unpaired surrogate)"
            raise place.error(number, what, "Replace the lone \\ud… escape.") from error
        except (ValueError, RecursionError) as error:
            raise place.error(number, f"not JSON: {error}", remedy) from error
        if not isinstance(row, dict):
            raise place.error(number, "not a JSON object", remedy)
        yield number, row


def _csv_rows(lines: _Lines, place: _Place, delimiter: str) -> _Rows:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
    # Strict, so that a quote left open fails instead of swallowing the rows that follow.
    reader = csv.reader((text for _, text in lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            what = f"the row that starts here is malformed ({error})"
            raise place.error(number, what, "Check its quotes, and those around it.") from error
        if fields is None:
            return
        if not header:
            header = fields
            if twice := [name for name in header if header.count(name) > 1]:
                raise place.error(number, f"two columns are called {twice[0]!r}", "Rename one.")
            if len(header) == 1 and (other := re.search(r"[;\t,]", header[0])):
                what = f"the columns seem to be separated by {other[0]!r}"
                raise place.error(number, what, f"Separate them by {delimiter!r}.")
        elif len(fields) > len(header):
            what = f"the row has {len(fields)} fields for {len(header)} columns"
            raise place.error(number, what, f"Quote the fields that hold {delimiter!r}.")
        elif fields:
            yield number, dict(zip_longest(header, fields))


def _parquet_rows(source: BufferedIOBase, place: _Place) -> _Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise _missing("Parquet", "pyarrow") from error
    numbers = count(1)
    try:
        file = pyarrow.parquet.ParquetFile(source, buffer_size=2**20)
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for row in batch.to_pylist():
                yield next(numbers), row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        what = f"cannot be read as Parquet ({_first_line(error)})"
        raise place.error(0, what, "Check that the file is whole, or convert it.") from error


def _hub_rows(source: str, place: _Place) -> _Rows:
    name, config, split = (*source.removeprefix("hf:").split(":", 2), "", "")[:3]
    if not _HUB_NAME.fullmatch(name):
        raise InputError(
            f"{source} does not name a Hugging Face data set.",
            "Write hf:owner/name, hf:owner/name:config or hf:owner/name:config:split.",
        )
    try:
        import datasets
        import huggingface_hub
    except ImportError as error:
        raise _missing("Hugging Face data sets", "datasets") from error

    def open_and_read_first() -> tuple[Any, Iterator[Any]]:
        # Without the Hub, load_dataset retries for half a minute; this request fails at once.
        # If the Hub answers, if only with an error, load_dataset says better what is wrong.
        with suppress(huggingface_hub.errors.HfHubHTTPError):
            huggingface_hub.HfApi().dataset_info(name, timeout=10)
        data = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        rows = iter(data)
        return next(rows, None), rows

    number = 0
    try:
        first, rest = _within(HUB_PATIENCE_SECONDS, open_and_read_first)
        while first is not None:
            number += 1
            yield number, first
            first = next(rest, None)
    except Exception as error:
        what = f"the data set cannot be read ({_first_line(error)})"
        remedy = "Check name, config, split and connection; or download it and pass a file of it."
        raise place.error(number, what, remedy) from error


def _within(seconds: float, work: Callable[[], _T]) -> _T:
    """Give up waiting after some seconds; the daemon thread then does not hold up the exit."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 (the caller gets it)
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from error


def to_json(value: object) -> JsonValue:
    """What a JSON file can hold of a value; a placeholder such as `<3 bytes>` if nothing."""
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | datetime.timedelta():
            return str(value)
        case bytes():
            return f"<{len(value)} bytes>"
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return to_json(value.tolist())
    return f"<{type(value).__name__}>"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _missing(what: str, package: str) -> InputError:
    return InputError(
        f"Reading {what} needs {package}, which is not installed.",
        "Install it with: pip install 'aidsafe[data]'",
    )
