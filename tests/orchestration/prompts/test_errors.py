"""What the reader of prompts says of sources and rows that cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from orchestration.prompts import formats, text
from orchestration.prompts.reader import PromptReader
from policies.errors import InputError
from tests.orchestration.prompt_files import GOOD, write

# Sources that fail at once ------------------------------------------------------------------------

BAD_SOURCES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("p.jsonl", "", "there are no prompts in it"),
    "only a BOM": ("p.jsonl", b"\xef\xbb\xbf", "there are no prompts in it"),
    "only blank lines": ("p.txt", "\n \n", "there are no prompts in it"),
    "only empty prompts": ("p.jsonl", '{"prompt": " "}\n', "there are no prompts in it"),
    "only a header": ("p.csv", "prompt,kind\n", "there are no prompts in it"),
    "empty gzip": ("p.jsonl.gz", b"", "there are no prompts in it"),
    "two arrays": (
        "p.json",
        '{"train": ["x"], "test": ["y"]}',
        "holds 2 arrays (train, test), and any may be the prompts. Make JSONL of the right one",
    ),
    "no object": ("p.json", "3", "p.json, row 1: not a JSON object or string but a number"),
    "null": ("p.json", "null", "p.json, row 1: not a JSON object or string but null"),
    "an empty array": ("p.json", "[]", "there are no prompts in it"),
    "an empty document": ("p.json", " \n", "there are no prompts in it"),
    "an array in an array": ("p.json", '[["x"]]', "row 1: not a JSON object or string but an arr"),
    "a document cut off": (
        "p.json",
        '[\n{"prompt":\n "x"}\n\n',
        "p.json:3: not JSON: Expecting ','",
    ),
    "a document with a key twice": ("p.json", '[{"a": 1,\n"a": 2}]', "two keys called 'a'"),
    "broken JSONL by another name": (
        "p.json",
        '{"prompt": "x"\n{"prompt": "y"}\n',
        "p.json:2: not",
    ),
    "JSON array as JSONL": ("p.jsonl", '[{"prompt": "x"}]\n', "p.jsonl:1: not a JSON object"),
    "indented JSON": ("p.jsonl", '{\n"prompt": "x"\n}\n', "p.jsonl:1: not JSON"),
    "unknown kind": ("p.html", "x", "Use .jsonl, .ndjson, .json, .csv, .tsv, .txt (each also"),
    "unknown kind, packed": ("p.html.gz", "x", "Use .jsonl, .ndjson"),
    "spreadsheet": (
        "p.xlsx",
        "x",
        "is a spreadsheet; aidsafe does not read it. Save its sheet as CSV",
    ),
    "old spreadsheet": ("P.XLS", "x", "is a spreadsheet"),
    "free spreadsheet": ("p.ods", "x", "is a spreadsheet"),
    "archive": ("p.zip", "x", "is an archive of files; aidsafe does not read it. Unpack it"),
    "packed archive": ("p.tar.gz", "x", "is an archive of files"),
    "pickle": ("p.pkl", "x", "is a Python pickle, which can run any code"),
    "document": ("p.docx", "x", "is a document"),
    "PDF": ("p.pdf", "x", "is a document"),
    "Arrow": ("p.arrow", "x", "Save its table as Parquet"),
    "bzip2": ("p.jsonl.bz2", "x", "Decompress it with bunzip2"),
    "no suffix": ("p", "x", "Use .jsonl"),
    "packed Parquet": ("p.parquet.gz", b"", "Decompress it with gunzip"),
    "binary": ("p.jsonl", b"\x7fELF\x02\x01\x00\x00\n", "p.jsonl:1: the line holds a NUL byte"),
    "binary text": ("p.txt", b"\x89PNG\r\n\x1a\n", "p.txt:1: byte 1 of the line is not UTF-8"),
    "UTF-16 without a mark": ("p.csv", "prompt\nx\n".encode("utf-16-le"), "iconv -f UTF-16LE"),
    "half a UTF-16 character": (
        "p.txt",
        b"\xff\xfea",
        "p.txt:1: the line is not UTF-16 (truncated",
    ),
    "a UTF-16 mark alone": ("p.txt", b"\xff\xfe", "there are no prompts in it"),
    "not Zstandard": ("p.jsonl.zst", GOOD, "p.jsonl.zst:1: cannot be read"),
    "empty Zstandard": ("p.jsonl.zst", b"", "there are no prompts in it"),
    "Latin-1": ("p.csv", "prompt,é\nx,y\n".encode("latin-1"), "byte 8 of the line is not UTF-8"),
    "not gzip": ("p.jsonl.gz", GOOD, "p.jsonl.gz:1: cannot be read"),
    "semicolons": ("p.csv", "prompt;kind\nx;y\n", "separated by ';'"),
    "tabs in CSV": ("p.csv", "prompt\tkind\nx\ty\n", r"separated by '\t'"),
    "commas in TSV": ("p.tsv", "prompt,kind\nx,y\n", "separated by ','"),
    "lines that end in CR": (
        "p.csv",
        "prompt,n\rx,1\r",
        "p.csv:1: a carriage return stands outside",
    ),
    "a column twice": ("p.csv", "prompt,a,a\nx,y,z\n", "two columns are called 'a'"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_source_that_cannot_be_read_fails_at_once(name: str, tmp_path: Path) -> None:
    file, content, message = BAD_SOURCES[name]
    with pytest.raises(InputError) as caught:
        PromptReader(write(tmp_path / file, content))
    assert message in str(caught.value)
    assert file in caught.value.cause
    assert caught.value.remedy


def test_a_missing_file_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        PromptReader(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="cannot be opened"):
        PromptReader("nul\0.jsonl")


def test_a_missing_file_called_like_a_data_set_hints_at_the_hub() -> None:
    with pytest.raises(InputError, match="write hf:owner/name for the data set"):
        PromptReader("owner/name")


# Rows that fail when they are reached -------------------------------------------------------------

BAD_ROWS: dict[str, tuple[str, str | bytes, str]] = {
    "bad JSON": ("p.jsonl", GOOD + '\n{"prompt": "x"\n', ":3: not JSON: Expecting ',' delimiter"),
    "a list": ("p.jsonl", GOOD + '["x"]\n', ":2: not a JSON object or string but an array"),
    "a key twice": (
        "p.jsonl",
        GOOD + '{"prompt": "x", "prompt": "y"}\n',
        ":2: an object has two keys",
    ),
    "an inner key twice": (
        "p.jsonl",
        GOOD + '{"prompt": "x", "m": [{"a": 1, "a": 1}]}\n',
        "called 'a'",
    ),
    "half a character in a document": (
        "p.json",
        f'[{GOOD},{{"prompt": "\\ud83d"}}]',
        "row 2: an esc",
    ),
    "half a character in a string": ("p.jsonl", GOOD + '"\\uDEAD"\n', ":2: an escape stands"),
    "half a UTF-16 pair": (
        "p.txt",
        b"\xff\xfe" + "good\nnext".encode("utf-16-le") + b"\x00\xd8" + "x".encode("utf-16-le"),
        ":2: the line is not UTF-16 (illegal",
    ),
    "nested too deep": ("p.jsonl", GOOD + "[" * 200_000 + "\n", ":2: not JSON"),
    "a number too long": ("p.jsonl", GOOD + "9" * 5000 + "\n", ":2: not JSON"),
    "half a character": ("p.jsonl", GOOD + '{"prompt": "\\uD83D"}\n', "unpaired surrogate"),
    "a number": ("p.jsonl", GOOD + '{"prompt": 3}\n', ":2: the prompt in column 'prompt' is not"),
    "a chat": ("p.jsonl", GOOD + '{"prompt": [{}]}\n', "is not a string but list"),
    "NUL in JSON": (
        "p.jsonl",
        GOOD + '{"prompt": "a\\u0000b"}\n',
        ":2: the prompt in column 'prompt'",
    ),
    "no prompt": ("p.jsonl", GOOD + '{"text": "x"}\n', ":2: the row has no column 'prompt', only:"),
    "not UTF-8": ("p.jsonl", GOOD.encode() + b'{"prompt": "\xe9"}\n', ":2: byte 13 of the line"),
    "not UTF-8 in CSV": ("p.csv", b"prompt,n\ngood,1\n\xe9,2\n", ":3: byte 1 of the line"),
    "not UTF-8 in text": ("p.txt", b"good\n\xff\n", ":2: byte 1 of the line is not UTF-8"),
    "NUL": ("p.txt", b"good\nx\0\n", ":2: the line holds a NUL byte"),
    "too many fields": ("p.csv", "prompt,n\ngood,1\nx,2,3\n", ":3: the row has 3 fields for 2"),
    "after a long row": ("p.csv", 'prompt,n\n"good\n\n",1\nx,2,3\n', ":5: the row has 3 fields"),
    "open quote": ("p.csv", 'prompt,n\ngood,1\n"x,2\ny,3\n', ":3: the row that starts here is mal"),
    "stray quote": ("p.csv", 'prompt,n\ngood,1\n"x"y,2\n', ":3: the row that starts here is mal"),
    "gzip cut off": (
        "p.txt.gz",
        gzip.compress(b"good\n" + bytes(str([*range(50_000)]), "ascii"))[:-20],
        ":2: cannot be read",
    ),
    "Zstandard cut off": (
        "p.txt.zst",
        zstandard.compress(b"good\n" + bytes(str([*range(500_000)]), "ascii"))[:-20],
        ":2: cannot be read (compressed file ended",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_malformed_row_names_its_line_after_the_good_rows(name: str, tmp_path: Path) -> None:
    file, content, message = BAD_ROWS[name]
    reader = PromptReader(write(tmp_path / file, content))
    assert next(reader).text == "good"
    with pytest.raises(InputError) as caught:
        list(reader)
    assert f"{file}" in caught.value.cause
    assert message in caught.value.cause
    assert caught.value.remedy
    assert next(reader, None) is None


def test_a_line_without_end_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "MAX_LINE_BYTES", 2**20)
    source = write(tmp_path / "p.txt", "good\n" + "x" * (2**20 + 1))
    with pytest.raises(InputError, match=":2: the line is longer than 1 MiB"):
        list(PromptReader(source))


@pytest.mark.parametrize("separator", ["", "\n"])
def test_a_document_that_is_too_long_is_named_with_the_command_that_helps(
    separator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MAX_DOCUMENT_BYTES", 2**20)
    rows = f",{separator}".join(['{"prompt": "x"}'] * 2**17)
    source = write(tmp_path / "my data.v1.json.gz", gzip.compress(f"[{rows}]".encode()))
    with pytest.raises(InputError, match="is longer than 1 MiB") as caught:
        PromptReader(source)
    packed, made = tmp_path / "my data.v1.json.gz", tmp_path / "my data.v1.jsonl"
    assert f"gunzip -c '{packed}' | jq -c '.[]' > '{made}'" in caught.value.remedy
