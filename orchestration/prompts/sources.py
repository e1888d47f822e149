"""Where prompts come from: rows of files, of standard input and of the Hugging Face Hub."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import json
import math
import os
import re
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from io import BufferedIOBase, BufferedReader
from itertools import chain, count, zip_longest
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, NamedTuple, TypeVar

from pydantic import JsonValue

from policies.errors import InputError

MAX_LINE_BYTES = 16 * 2**20
"""The longest line or CSV field: a missing newline or quote must not fill the memory."""
PARQUET_BATCH_ROWS = 1024
"""How many rows of a Parquet file are held at once."""
HUB_PATIENCE_SECONDS = 60.0
"""How long a Hugging Face data set may take to its first row; the library has no such limit."""

_KINDS = ".jsonl, .ndjson, .csv, .tsv, .txt (each also with .gz) or .parquet"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

Row = Mapping[str, object]
Rows = Iterator[tuple[int, Row]]  # the line a row starts on (its number, if it has no lines)
_Lines = Iterator[tuple[int, str]]
_T = TypeVar("_T")


class RowLocation(NamedTuple):
    """Where a row is: `file:line`, or `source, row number` where rows have no lines."""

    source: str
    mark: str = ":"

    def at(self, number: int) -> str:
        """The location of a row, or of the whole source for 0."""
        return f"{self.source}{self.mark}{number}" if number else self.source

    def error(self, number: int, what: str, remedy: str) -> InputError:
        """The error for what is wrong at a row."""
        return InputError(f"{self.at(number)}: {what}.", remedy)


def open_rows(source: str, stack: ExitStack) -> tuple[Rows, RowLocation]:
    """Opens a source, and puts what must be closed on the stack.

    Returns:
        The rows, read as they are asked for, and how to say where one is.

    Raises:
        InputError: It cannot be read. Iteration raises it too.
    """
    if source == "-":
        location = RowLocation("standard input")
        return _stdin_rows(_lines(_stdin(stack), location), location), location
    lines_at, rows_at = RowLocation(source), RowLocation(source, ", row ")
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


def _stdin(stack: ExitStack) -> BufferedIOBase | BinaryIO:
    """Standard input, as a stream of our own.

    It may be read in a thread that still waits for a line when the program ends; Python's own
    stream cannot be taken down then.
    """
    try:
        return stack.enter_context(open(os.dup(sys.stdin.fileno()), "rb"))
    except (OSError, ValueError):
        return sys.stdin.buffer


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


def _lines(file: BufferedIOBase | BinaryIO, location: RowLocation) -> _Lines:
    """Decode line by line: a text-mode file could not say on which line the bad byte is."""
    for number in count(1):
        try:
            raw = file.readline(MAX_LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            what = f"cannot be read ({error})"
            raise location.error(number, what, "Check that the file is whole.") from error
        if not raw:
            return
        if len(raw) > MAX_LINE_BYTES:
            what = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB"
            raise location.error(number, what, "Check that the file is text with one row a line.")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"byte {error.start + 1} of the line is not UTF-8"
            raise location.error(number, what, "Save the file as UTF-8 text.") from error
        if "\0" in text:
            what = "the line holds a NUL byte (a binary file, or UTF-16)"
            raise location.error(number, what, "Save the file as UTF-8 text.")
        yield number, text


def _text_rows(lines: _Lines) -> Rows:
    return ((number, {"prompt": text}) for number, text in lines)


def _stdin_rows(lines: _Lines, location: RowLocation) -> Rows:
    for number, text in lines:
        if start := text.strip():
            rows = chain([(number, text)], lines)
            # A line that starts like an object but is broken is bad JSONL rather than a prompt.
            is_json = start.startswith(("{", "[{")) or start == "["
            yield from _jsonl_rows(rows, location) if is_json else _text_rows(rows)


def _jsonl_rows(lines: _Lines, location: RowLocation) -> Rows:
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
            raise location.error(number, what, remedy) from error
        except UnicodeEncodeError as error:
            what = "an escape stands for half a character (an unpaired surrogate)"
            raise location.error(number, what, "Replace the lone \\ud… escape.") from error
        except (ValueError, RecursionError) as error:
            raise location.error(number, f"not JSON: {error}", remedy) from error
        if not isinstance(row, dict):
            raise location.error(number, "not a JSON object", remedy)
        yield number, row


def _csv_rows(lines: _Lines, location: RowLocation, delimiter: str) -> Rows:
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
            raise location.error(number, what, "Check its quotes, and those around it.") from error
        if fields is None:
            return
        if not header:
            header = fields
            if twice := [name for name in header if header.count(name) > 1]:
                raise location.error(number, f"two columns are called {twice[0]!r}", "Rename one.")
            if len(header) == 1 and (other := re.search(r"[;\t,]", header[0])):
                what = f"the columns seem to be separated by {other[0]!r}"
                raise location.error(number, what, f"Separate them by {delimiter!r}.")
        elif len(fields) > len(header):
            what = f"the row has {len(fields)} fields for {len(header)} columns"
            raise location.error(number, what, f"Quote the fields that hold {delimiter!r}.")
        elif fields:
            yield number, dict(zip_longest(header, fields))


def _parquet_rows(source: BufferedIOBase, location: RowLocation) -> Rows:
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
        raise location.error(0, what, "Check that the file is whole, or convert it.") from error


def _hub_rows(source: str, location: RowLocation) -> Rows:
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
        raise location.error(number, what, remedy) from error


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


def to_json(value: object, depth: int = 50) -> JsonValue:
    """What JSON can hold of a value; placeholders such as `<3 bytes>` for the rest.

    One stands, too, for what is nested more than `depth` levels deep.
    """
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping() if depth:
            return {str(key): to_json(item, depth - 1) for key, item in value.items()}
        case list() | tuple() if depth:
            return [to_json(item, depth - 1) for item in value]
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID() | datetime.timedelta():
            return str(value)
        case bytes():
            return f"<{len(value)} bytes>"
    if depth and hasattr(value, "tolist"):  # NumPy's scalars and arrays
        return to_json(value.tolist(), depth - 1)
    return f"<{type(value).__name__}>"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _missing(what: str, package: str) -> InputError:
    return InputError(
        f"Reading {what} needs {package}, which is not installed.",
        "Install it with: pip install 'aidsafe[data]'",
    )
