"""Rows of the kinds of files: JSONL, JSON, CSV, text and Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from io import BufferedIOBase, StringIO
from itertools import chain, count, zip_longest

from orchestration.prompts.chats import is_chat
from orchestration.prompts.location import ROW_MARK, RowLocation, first_line, missing_package
from orchestration.prompts.text import MAX_LINE_BYTES, Lines

MAX_DOCUMENT_BYTES = 512 * 2**20
"""The longest JSON document: it is held in memory, and takes several times as much there."""
PARQUET_BATCH_ROWS = 1024
"""How many rows of a Parquet file are held at once."""

Row = Mapping[str, object]
Rows = Iterator[tuple[int, Row]]
"""The line that a row starts on (its number, from 1, if it has no lines), and its columns."""


def text_rows(lines: Lines) -> Rows:
    """A prompt a line."""
    return ((number, {"prompt": text}) for number, text in lines)


def stdin_rows(lines: Lines, location: RowLocation) -> Rows:
    """JSONL if the first line that is not blank starts an object, else a prompt a line."""
    for number, text in lines:
        if start := text.strip():
            rows = chain([(number, text)], lines)
            # A line that starts like an object but is broken is bad JSONL rather than a prompt.
            is_json = start.startswith(("{", "[{")) or start == "["
            yield from jsonl_rows(rows, location) if is_json else text_rows(rows)


# JSON ---------------------------------------------------------------------------------------------


def jsonl_rows(lines: Lines, location: RowLocation) -> Rows:
    """An object a line; a string stands for an object with it as its prompt, and so does a chat."""
    remedy = (
        "Put one whole JSON object on each line (jq -c . does; jq -c '.[]' for an array), or call "
        "a file that is one JSON document .json."
    )
    for number, text in lines:
        if text.strip():
            value = _parse(text, number, location, remedy)
            yield number, _json_row(value, number, location, remedy, _has_half(text))


def read_start(lines: Lines) -> tuple[list[tuple[int, str]], bool]:
    """Reads the beginning of a JSON file, to see whether it is JSONL by another name.

    It is, if its first line is a whole value and another one follows: a document would end there.

    Returns:
        The lines read, at most two, none of them blank; and whether the file is JSONL.
    """
    start: list[tuple[int, str]] = []
    for number, text in lines:
        if not text.strip():
            continue
        start.append((number, text))
        if len(start) == 2:
            return start, True
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            break
    return start, False


def document_rows(lines: Lines, location: RowLocation, jq: str) -> Rows:
    """The elements of a JSON document: an array, the only array in an object, or the object itself.

    Args:
        lines: The file's, without blank ones at the beginning.
        location: For errors in a line.
        jq: The command that makes JSONL of the document, with `{}` for its filter.
    """
    content, first, size = StringIO(), 0, 0
    for number, text in lines:
        first = first or number
        size += len(text)
        if size > MAX_DOCUMENT_BYTES:
            what = f"the JSON document is longer than {MAX_DOCUMENT_BYTES // 2**20} MiB"
            raise location.error(0, what, f"Convert it to JSONL: {jq.format('.[]')}.")
        content.write(text)
    if not first:
        return
    remedy = "Check that the file is one whole JSON document, or one JSON object a line."
    text = content.getvalue().rstrip()  # else what breaks off would do so on the line below
    has_half = _has_half(text)
    document = _parse(text, first, location, remedy, is_document=True)
    del content, text
    rows_location = location._replace(mark=ROW_MARK)
    remedy = "Make each element an object with a prompt, or a string."
    for number, value in enumerate(_elements(document, location, jq), 1):
        yield number, _json_row(value, number, rows_location, remedy, has_half)


def _elements(document: object, location: RowLocation, jq: str) -> list[object]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and not isinstance(document.get("prompt"), str):
        arrays = {k: v for k, v in document.items() if isinstance(v, list) and not is_chat(v)}
        if len(arrays) == 1:
            return list(*arrays.values())
        if arrays:
            names = ", ".join(arrays)
            what = f"the object holds {len(arrays)} arrays ({names}), and any may be the prompts"
            chosen = jq.format(f".[{json.dumps(next(iter(arrays)))}][]")
            remedy = f"Make JSONL of the right one, such as: {chosen}."
            raise location.error(0, what, remedy)
    return [document]


_JSON_TYPES = {list: "an array", bool: "true or false", int: "a number", float: "a number"}


def _json_row(
    value: object, number: int, location: RowLocation, remedy: str, has_half: bool
) -> dict[str, object]:
    if isinstance(value, str):
        value = {"prompt": value}
    elif is_chat(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        what = f"not a JSON object or string but {_JSON_TYPES.get(type(value), 'null')}"
        raise location.error(number, what, remedy)
    if has_half:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            what = "an escape stands for half a character (an unpaired surrogate)"
            raise location.error(number, what, "Replace the lone \\ud… escape.") from error
    return value


def _has_half(text: str) -> bool:
    """Whether a JSON text may have an escape for half a character, which UTF-8 cannot write."""
    return "\\ud" in text or "\\uD" in text


def _parse(
    text: str, number: int, location: RowLocation, remedy: str, is_document: bool = False
) -> object:
    """Parses a line, or the document that begins there."""
    line = 0 if is_document else number
    try:
        found: object = _DECODER.decode(text)
        return found
    except json.JSONDecodeError as error:
        what = f"not JSON: {error.msg} at column {error.colno}"
        line = number + error.lineno - 1 if is_document else number
        raise location.error(line, what, remedy) from error
    except _KeyTwiceError as error:
        what = f"an object has two keys called {error.args[0]!r}"
        raise location.error(line, what, "Rename or remove one of them.") from error
    except (ValueError, RecursionError) as error:
        raise location.error(line, f"not JSON: {error}", remedy) from error


class _KeyTwiceError(Exception):
    """An object has two keys of this name; json would take the last one in silence."""


def _make_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise _KeyTwiceError(next(name for name in names if names.count(name) > 1))
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_make_object)  # json.loads would make one a line


# Tables -------------------------------------------------------------------------------------------


def csv_rows(lines: Lines, location: RowLocation, delimiter: str) -> Rows:
    """The rows below a header, with their fields as strings."""
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
            remedy = "Check its quotes, and those around it."
            if "new-line" in str(error):
                what = "a carriage return stands outside of quotes in the row that starts here"
                remedy = "Quote its field; if all lines end in one: tr '\\r' '\\n' < OLD > NEW."
            raise location.error(number, what, remedy) from error
        if fields is None:
            return
        if not header:
            header = fields
            refuse_twice(header, location, number)
            if len(header) == 1 and (other := re.search(r"[;\t,]", header[0])):
                what = f"the columns seem to be separated by {other[0]!r}"
                raise location.error(number, what, f"Separate them by {delimiter!r}.")
        elif len(fields) > len(header):
            what = f"the row has {len(fields)} fields for {len(header)} columns"
            raise location.error(number, what, f"Quote the fields that hold {delimiter!r}.")
        elif fields:
            yield number, dict(zip_longest(header, fields))


def parquet_rows(source: BufferedIOBase, location: RowLocation) -> Rows:
    """The rows of a Parquet file, of which a batch at a time is held."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("Parquet", "pyarrow") from error
    numbers = count(1)
    try:
        file = pyarrow.parquet.ParquetFile(source, buffer_size=2**20)
        refuse_twice(file.schema_arrow.names, location, 0)
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            for row in batch.to_pylist():
                yield next(numbers), row
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        what = f"cannot be read as Parquet ({first_line(error)})"
        raise location.error(0, what, "Check that the file is whole, or convert it.") from error


def refuse_twice(columns: list[str], location: RowLocation, number: int) -> None:
    """Refuses a table with two columns of one name, of which a row could hold only the last."""
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise location.error(number, f"two columns are called {twice[0]!r}", "Rename one of them.")
