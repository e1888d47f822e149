"""Where prompts come from: files, standard input or the Hugging Face Hub, part by part."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from contextlib import ExitStack
from itertools import chain
from typing import NamedTuple

from orchestration.prompts import formats
from orchestration.prompts.files import (
    find_files,
    is_known,
    jsonl_name,
    kind_of,
    open_file,
    unknown_kind,
)
from orchestration.prompts.formats import Rows
from orchestration.prompts.hub import hub_rows
from orchestration.prompts.location import ROW_MARK, RowLocation
from orchestration.prompts.text import decompress, open_stdin, read_lines

_UNPACK = {
    "": "jq -c '{{}}' {}",
    ".gz": "gunzip -c {} | jq -c '{{}}'",
    ".zst": "unzstd -c {} | jq -c '{{}}'",
}
"""Commands that apply a filter of jq to a JSON file, by its compression."""


class Part(NamedTuple):
    """A file of a source, or all of it; its rows have the same columns."""

    rows: Rows
    """Read as they are asked for."""
    location: RowLocation
    """For errors."""
    is_typed: bool = True
    """Whether numbers differ from strings; they do not in CSV."""


def location_of(source: str) -> RowLocation:
    """The location of a source as a whole."""
    return RowLocation("standard input" if source == "-" else source)


def open_parts(source: str) -> Generator[Part]:
    """Opens the parts of a source one after the other, each while its rows are read.

    Raises:
        InputError: A part cannot be read. The iteration of its rows raises it too.
    """
    whole = location_of(source)
    if source.startswith("hf:"):
        location = RowLocation(source, ROW_MARK)
        yield Part(hub_rows(source, location), location)
    elif source == "-":
        with ExitStack() as stack:
            lines = read_lines(open_stdin(stack), whole)
            yield Part(formats.stdin_rows(lines, whole), whole)
    else:
        files = find_files(source)
        for path in files:
            with ExitStack() as stack:
                yield _open_part(path, files != [source], stack)


def _open_part(path: str, is_part: bool, stack: ExitStack) -> Part:
    lines_at = RowLocation(path, is_part=is_part)
    rows_at = lines_at._replace(mark=ROW_MARK)
    file = stack.enter_context(open_file(path))
    if not is_known(path):
        raise unknown_kind(path)
    kind, compression = kind_of(path)
    if kind == ".parquet":
        return Part(formats.parquet_rows(file, rows_at), rows_at)
    content = decompress(file, compression)
    if kind == ".json":
        read = _UNPACK[compression].format(shlex.quote(path))
        jq = f"{read} > {jsonl_name(path)}"
        remedy = f"Convert it to JSONL: {jq.format('.[]')}."
        lines = read_lines(content, lines_at, formats.MAX_DOCUMENT_BYTES, remedy)
        start, is_jsonl = formats.read_start(lines)
        lines = chain(start, lines)
        if is_jsonl:
            return Part(formats.jsonl_rows(lines, lines_at), lines_at)
        return Part(formats.document_rows(lines, lines_at, jq), rows_at)
    lines = read_lines(content, lines_at)
    if kind == ".txt":
        return Part(formats.text_rows(lines), lines_at)
    if kind in (".csv", ".tsv"):
        delimiter = "\t" if kind == ".tsv" else ","
        return Part(formats.csv_rows(lines, lines_at, delimiter), lines_at, is_typed=False)
    return Part(formats.jsonl_rows(lines, lines_at), lines_at)
