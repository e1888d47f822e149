"""What the reader of prompts promises, source by source and row by row."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import hashlib
import importlib.resources
import io
import json
import sys
import time
import types
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration import prompts as module
from orchestration.prompts import LeftOut, Prompt, PromptReader, read_prompts, to_json
from policies.errors import InputError


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def write_jsonl(path: Path, *rows: object) -> str:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def texts(reader: PromptReader) -> list[str]:
    return [prompt.text for prompt in reader]


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], None]:
    def feed(content: str | bytes) -> None:
        raw = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    return feed


# Formats -----------------------------------------------------------------------------------------

JSONL = '{"prompt": "Ä one", "n": 1}\n{"prompt": "two", "n": 2}\n'
FORMATS: dict[str, tuple[str, str | bytes]] = {
    "jsonl": ("p.jsonl", JSONL),
    "ndjson": ("p.ndjson", JSONL),
    "upper-case suffix": ("P.JSONL", JSONL),
    "jsonl with blank lines": ("p.jsonl", "\n" + JSONL.replace("\n", "\n\n")),
    "jsonl with BOM": ("p.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
    "jsonl with CRLF": ("p.jsonl", JSONL.replace("\n", "\r\n")),
    "jsonl without final newline": ("p.jsonl", JSONL.rstrip()),
    "jsonl.gz": ("p.jsonl.gz", gzip.compress(JSONL.encode())),
    "csv": ("p.csv", "prompt,n\nÄ one,1\ntwo,2\n"),
    "csv with BOM": ("p.csv", "\ufeffprompt,n\nÄ one,1\ntwo,2\n"),
    "csv with CRLF": ("p.csv", "n,prompt\r\n1,Ä one\r\n2,two\r\n"),
    "csv with blank lines": ("p.csv", "\nprompt,n\n\nÄ one,1\n\ntwo,2\n"),
    "csv.gz": ("p.csv.gz", gzip.compress("prompt,n\nÄ one,1\ntwo,2\n".encode())),
    "tsv": ("p.tsv", "prompt\tn\nÄ one\t1\ntwo\t2\n"),
    "txt": ("p.txt", "Ä one\ntwo\n"),
    "txt with BOM and CRLF": ("p.txt", "\ufeffÄ one\r\ntwo"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_yields_the_same_prompts(name: str, tmp_path: Path) -> None:
    file, content = FORMATS[name]
    reader = read_prompts(write(tmp_path / file, content))
    prompts = list(reader)
    assert [prompt.text for prompt in prompts] == ["Ä one", "two"]
    assert (reader.read, reader.empty, reader.duplicates, reader.left_out) == (2, 0, 0, [])
    if "txt" in file:
        assert prompts[0].metadata == {}
    else:
        assert [str(prompt.metadata["n"]) for prompt in prompts] == ["1", "2"]


def test_csv_fields_keep_quoted_newlines_and_commas(tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", 'prompt,kind\n"one\r\nline, and ""more""",x\ntwo,y\n')
    assert texts(read_prompts(source)) == ['one\r\nline, and "more"', "two"]


def test_csv_fields_may_be_huge(tmp_path: Path) -> None:
    huge = "x" * (2 * 2**20)
    assert texts(read_prompts(write(tmp_path / "p.csv", f"prompt,n\n{huge},1\n"))) == [huge]
    assert csv.field_size_limit() >= len(huge)


def test_csv_row_with_too_few_fields_is_filled_up_with_null(tmp_path: Path) -> None:
    reader = read_prompts(write(tmp_path / "p.csv", "prompt,kind\none\ntwo,x\n"))
    assert [prompt.metadata["kind"] for prompt in reader] == [None, "x"]


def test_text_lines_are_split_at_newlines_only(tmp_path: Path) -> None:
    source = write(tmp_path / "p.txt", "one\u2028still one\ftoo\ntwo\n")
    assert texts(read_prompts(source)) == ["one\u2028still one\ftoo", "two"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (JSONL, ["Ä one", "two"]),
        ("\n\n" + JSONL, ["Ä one", "two"]),
        ("\ufeff" + JSONL, ["Ä one", "two"]),
        ("How are you?\nFine.\n", ["How are you?", "Fine."]),
        ('"quoted"\n{"prompt": "not a row"}\n', ['"quoted"', '{"prompt": "not a row"}']),
        ("[INST] hello\n", ["[INST] hello"]),
    ],
)
def test_standard_input_is_jsonl_or_text(
    content: str, expected: list[str], pipe: Callable[[str], None]
) -> None:
    pipe(content)
    assert texts(read_prompts("-")) == expected


@pytest.mark.parametrize("content", ['{"prompt": "one"\n', "{\n", "[\n", '[{"prompt": "one"}]\n'])
def test_standard_input_that_looks_like_json_is_never_taken_for_prompts(
    content: str, pipe: Callable[[str], None]
) -> None:
    pipe(content)
    with pytest.raises(InputError, match=r"^standard input:1: not .*jq"):
        read_prompts("-")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_standard_input_fails_at_once(content: str, pipe: Callable[[str], None]) -> None:
    pipe(content)
    with pytest.raises(InputError, match="standard input: there are no prompts"):
        read_prompts("-")


# Parquet -----------------------------------------------------------------------------------------


def test_parquet_rows_come_with_json_able_metadata(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = pa.table(
        {
            "prompt": ["one", "two", None],
            "day": [datetime.date(2025, 5, 28)] * 3,
            "at": pa.array([datetime.datetime(2025, 5, 28, 12)] * 3, pa.timestamp("ns")),
            "raw": [b"abc"] * 3,
            "nested": [[{"tags": ["a", "b"]}]] * 3,
            "map": pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
            "price": [decimal.Decimal("1.50")] * 3,
            "score": [0.5, float("nan"), None],
        }
    )
    pq.write_table(table, path)
    reader = read_prompts(str(path))
    first, second = reader
    assert first.metadata == {
        "day": "2025-05-28",
        "at": "2025-05-28T12:00:00",
        "raw": "<3 bytes>",
        "nested": [{"tags": ["a", "b"]}],
        "map": [["k", 1]],
        "price": "1.50",
        "score": 0.5,
    }
    assert second.metadata["score"] is None
    assert reader.left_out == [LeftOut(3, "empty prompt")]


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARQUET_BATCH_ROWS", 3)
    rows = [f"prompt {i}" for i in range(10)]
    pq.write_table(pa.table({"prompt": rows, "id": [*range(9), 0]}), tmp_path / "p.parquet")
    source = str(tmp_path / "p.parquet")
    assert texts(read_prompts(source)) == rows
    # The numbers of rows do not restart with a batch, nor skip one between two.
    with pytest.raises(InputError, match=r"p\.parquet, row 10: the id '0' .*p\.parquet, row 1\."):
        list(read_prompts(source, column="prompt", id_column="id"))


@pytest.mark.parametrize("content", [b"", b"PAR1 but nothing else", b"prompt\nhello\n"])
def test_a_broken_parquet_file_fails_at_once(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.parquet: cannot be read as Parquet"):
        read_prompts(write(tmp_path / "p.parquet", content))


def test_a_parquet_file_without_rows_fails_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no prompts"):
        read_prompts(str(tmp_path / "p.parquet"))


@pytest.mark.parametrize(
    ("source", "package", "what"),
    [("p.parquet", "pyarrow", "Parquet"), ("hf:o/n", "datasets", "Hugging Face data sets")],
)
def test_a_missing_extra_is_named(
    source: str, package: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    Path("p.parquet").touch()
    with pytest.raises(InputError) as caught:
        read_prompts(source)
    assert str(caught.value) == (
        f"Reading {what} needs {package}, which is not installed. "
        "Install it with: pip install 'aidsafe[data]'"
    )


# to_json -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, True),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.float32("nan"), None),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (float("inf"), None),
        ((1, (2,)), [1, [2]]),
        ({1: {"a": b""}}, {"1": {"a": "<0 bytes>"}}),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (object(), "<object>"),
    ],
)
def test_any_value_becomes_json_able(value: object, expected: object) -> None:
    result = to_json(value)
    assert result == expected
    assert type(result) is type(expected)
    json.dumps(result, allow_nan=False)


# Sources that fail at once -----------------------------------------------------------------------

BAD_SOURCES: dict[str, tuple[str, str | bytes, str]] = {
    "empty": ("p.jsonl", "", "there are no prompts in it"),
    "only a BOM": ("p.jsonl", b"\xef\xbb\xbf", "there are no prompts in it"),
    "only blank lines": ("p.txt", "\n \n", "there are no prompts in it"),
    "only empty prompts": ("p.jsonl", '{"prompt": " "}\n', "there are no prompts in it"),
    "only a header": ("p.csv", "prompt,kind\n", "there are no prompts in it"),
    "empty gzip": ("p.jsonl.gz", b"", "there are no prompts in it"),
    "JSON array": ("p.json", '[{"prompt": "x"}]', "jq -c '.[]'"),
    "JSON object": ("p.json", '{"prompt": "x"}', "jq -c '.[]'"),
    "JSON array as JSONL": ("p.jsonl", '[{"prompt": "x"}]\n', "p.jsonl:1: not a JSON object"),
    "indented JSON": ("p.jsonl", '{\n"prompt": "x"\n}\n', "p.jsonl:1: not JSON"),
    "unknown kind": ("p.docx", "x", "Use .jsonl, .ndjson, .csv, .tsv, .txt"),
    "no suffix": ("p", "x", "Use .jsonl"),
    "packed Parquet": ("p.parquet.gz", b"", "Use .jsonl"),
    "binary": ("p.jsonl", b"\x7fELF\x02\x01\x00\x00\n", "p.jsonl:1: the line holds a NUL byte"),
    "binary text": ("p.txt", b"\x89PNG\r\n\x1a\n", "p.txt:1: byte 1 of the line is not UTF-8"),
    "UTF-16": ("p.csv", "prompt\nx\n".encode("utf-16-le"), "or UTF-16"),
    "Latin-1": ("p.csv", "prompt,é\nx,y\n".encode("latin-1"), "byte 8 of the line is not UTF-8"),
    "not gzip": ("p.jsonl.gz", JSONL, "p.jsonl.gz:1: cannot be read"),
    "semicolons": ("p.csv", "prompt;kind\nx;y\n", "separated by ';'"),
    "tabs in CSV": ("p.csv", "prompt\tkind\nx\ty\n", r"separated by '\t'"),
    "commas in TSV": ("p.tsv", "prompt,kind\nx,y\n", "separated by ','"),
    "a column twice": ("p.csv", "prompt,a,a\nx,y,z\n", "two columns are called 'a'"),
}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_source_that_cannot_be_read_fails_at_once(name: str, tmp_path: Path) -> None:
    file, content, message = BAD_SOURCES[name]
    with pytest.raises(InputError) as caught:
        read_prompts(write(tmp_path / file, content))
    assert message in str(caught.value)
    assert file in caught.value.cause
    assert caught.value.remedy


def test_a_missing_file_and_a_directory_fail_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file"):
        read_prompts(str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="is a directory"):
        read_prompts(str(tmp_path))
    with pytest.raises(InputError, match="cannot be opened"):
        read_prompts("nul\0.jsonl")


def test_a_missing_file_called_like_a_data_set_hints_at_the_hub() -> None:
    with pytest.raises(InputError, match="write hf:owner/name for the data set"):
        read_prompts("owner/name")


@pytest.mark.parametrize("limit", [0, -1])
def test_the_limit_must_be_positive(limit: int) -> None:
    with pytest.raises(InputError, match=rf"limit must be >= 1 \(got {limit}\)"):
        read_prompts("-", limit=limit)


# Rows that fail when they are reached ------------------------------------------------------------

GOOD = '{"prompt": "good"}\n'
BAD_ROWS: dict[str, tuple[str, str | bytes, str]] = {
    "bad JSON": ("p.jsonl", GOOD + '\n{"prompt": "x"\n', ":3: not JSON: Expecting ',' delimiter"),
    "a list": ("p.jsonl", GOOD + '["x"]\n', ":2: not a JSON object"),
    "nested too deep": ("p.jsonl", GOOD + "[" * 200_000 + "\n", ":2: not JSON"),
    "a number too long": ("p.jsonl", GOOD + "9" * 5000 + "\n", ":2: not JSON"),
    "half a character": ("p.jsonl", GOOD + '{"prompt": "\\uD83D"}\n', "unpaired surrogate"),
    "a number": ("p.jsonl", GOOD + '{"prompt": 3}\n', ":2: the prompt in column 'prompt' is not"),
    "a chat": ("p.jsonl", GOOD + '{"prompt": [{}]}\n', "is not a string but list"),
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
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_malformed_row_names_its_line_after_the_good_rows(name: str, tmp_path: Path) -> None:
    file, content, message = BAD_ROWS[name]
    reader = read_prompts(write(tmp_path / file, content))
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
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 2**20)
    source = write(tmp_path / "p.txt", "good\n" + "x" * (2**20 + 1))
    with pytest.raises(InputError, match=":2: the line is longer than 1 MiB"):
        list(read_prompts(source))


# The column --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ({"text": "a", "prompt": "b"}, None, "b"),
        ({"text": "a", "prompt": "b"}, "text", "a"),
        ({"question": "a"}, None, "a"),
    ],
)
def test_the_column_is_the_named_or_prompt_or_the_only_one(
    row: dict[str, str], column: str | None, expected: str, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", row)
    assert texts(read_prompts(source, column=column)) == [expected]


def test_the_id_column_does_not_count_for_the_only_column(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"id": "x", "question": "a"})
    assert list(read_prompts(source, id_column="id")) == [Prompt("x", "a", {})]


def test_an_unknown_column_lists_the_columns_and_suggests_the_nearest(tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", "question,answer\na,b\n")
    for wanted in ({"column": "questoin"}, {"column": "answer", "id_column": "questoin"}):
        with pytest.raises(InputError) as caught:
            read_prompts(source, **wanted)
        assert "there is no column 'questoin'" in caught.value.cause
        assert caught.value.remedy == "Did you mean 'question'? The columns are: question, answer."


def test_without_a_clear_column_the_error_lists_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"question": "a", "answer": "b"})
    with pytest.raises(InputError, match=r"the columns are: question, answer\. .*--column NAME"):
        read_prompts(source)


# Ids, texts, metadata ----------------------------------------------------------------------------


def test_an_id_is_made_of_the_normalised_text_alone(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "  Café?\n")
    a = write_jsonl(tmp_path / "a.jsonl", {"prompt": decomposed, "n": 1})
    b = write_jsonl(tmp_path / "b.jsonl", {"question": "first"}, {"question": "Café?"})
    [from_a], [_, from_b] = read_prompts(a), read_prompts(b)
    assert from_a.id == from_b.id == "p" + hashlib.sha256("Café?".encode()).hexdigest()[:12]
    assert from_a.text == decomposed.strip()


def test_the_text_is_only_stripped(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"prompt": "\t a  b\r\n\n c\u00a0"})
    assert texts(read_prompts(source)) == ["a  b\r\n\n c"]


def test_metadata_is_all_other_columns(tmp_path: Path) -> None:
    row = {"prompt": "a", "id": 7, "kind": "x", "more": {"list": [1, None, True]}}
    source = write_jsonl(tmp_path / "p.jsonl", row)
    rest = {"kind": "x", "more": {"list": [1, None, True]}}
    assert list(read_prompts(source, id_column="id")) == [Prompt("7", "a", rest)]
    assert next(read_prompts(source)).metadata == {"id": 7, **rest}


@pytest.mark.parametrize("bad", [None, "", "  ", True, [1], {"a": 1}])
def test_an_id_must_be_a_string_or_number(bad: object, tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "p.jsonl", {"prompt": "a", "id": "x"}, {"prompt": "b", "id": bad}
    )
    with pytest.raises(InputError, match=r"p\.jsonl:2: the id in column 'id' is"):
        list(read_prompts(source, id_column="id"))


def test_two_prompts_with_one_id_are_an_error_that_names_both(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "y"}, {"prompt": "c", "id": "x"}]
    source = write_jsonl(tmp_path / "p.jsonl", *rows)
    with pytest.raises(InputError, match=r"jsonl:3: the id 'x' .* at .*p\.jsonl:1\. .*--id-column"):
        list(read_prompts(source, id_column="id"))


def test_one_id_with_the_same_text_is_a_duplicate(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", *[{"prompt": "a", "id": "x"}] * 2)
    reader = read_prompts(source, id_column="id")
    assert [prompt.id for prompt in reader] == ["x"]
    assert reader.duplicates == 1


def test_made_ids_that_collide_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weak(data: bytes) -> Any:
        return types.SimpleNamespace(digest=lambda: bytes(6) + data.ljust(26))

    monkeypatch.setattr(module.hashlib, "sha256", weak)
    with pytest.raises(InputError, match=r":2: the id made .* p000000000000, .*--id-column"):
        list(read_prompts(write(tmp_path / "p.txt", "a\nb\n")))


# Left out ----------------------------------------------------------------------------------------


def test_empty_and_duplicate_prompts_are_left_out_counted_and_named(tmp_path: Path) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    values = [None, nfc, " ", nfd, f" {nfc}\n", "e"]
    rows = [{"prompt": value, "n": n} for n, value in enumerate(values)]
    reader = read_prompts(write_jsonl(tmp_path / "p.jsonl", *rows))
    prompts = list(reader)
    assert [(prompt.text, prompt.metadata["n"]) for prompt in prompts] == [(nfc, 1), ("e", 5)]
    assert (reader.read, reader.empty, reader.duplicates) == (6, 2, 2)
    same = "same text as an earlier prompt"
    assert reader.left_out == [
        LeftOut(1, "empty prompt"),
        LeftOut(3, "empty prompt"),
        LeftOut(4, same),
        LeftOut(5, same),
    ]


def test_only_the_first_few_rows_left_out_are_named(tmp_path: Path) -> None:
    reader = read_prompts(write(tmp_path / "p.txt", "a\n" * 100))
    assert texts(reader) == ["a"]
    assert reader.duplicates == 99
    assert [row.row for row in reader.left_out] == list(range(2, 12))


def test_the_limit_counts_prompts_handed_out(tmp_path: Path) -> None:
    source = write(tmp_path / "p.txt", "\na\na\n\nb\nc\n")
    reader = read_prompts(source, limit=2)
    assert texts(reader) == ["a", "b"]
    assert (reader.read, reader.empty, reader.duplicates) == (5, 2, 1)
    assert len(texts(read_prompts(source, limit=99))) == 3


def test_rows_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    assert texts(read_prompts(write(tmp_path / "p.jsonl", GOOD + "broken\n"), limit=1)) == ["good"]


# Streaming and closing ---------------------------------------------------------------------------


def test_rows_are_read_one_by_one(pipe: Callable[[str], None]) -> None:
    pipe("".join(f"prompt {i}\n" for i in range(1000)))
    reader = read_prompts("-")
    assert reader.read == 1
    next(reader)
    next(reader)
    assert reader.read == 2


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    files: list[Any] = []
    real = module._open_file

    def remember(source: str) -> Any:
        files.append(real(source))
        return files[-1]

    monkeypatch.setattr(module, "_open_file", remember)
    return files


@pytest.mark.parametrize("end", ["exhausted", "limit", "closed", "context", "error", "bad column"])
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_the_file_is_closed_however_it_ends(
    kind: str, end: str, tmp_path: Path, opened: list[Any]
) -> None:
    path = tmp_path / f"p.{kind}"
    rows = {"prompt": ["a", "b", "c"], "id": ["1", "2", "1"]}
    if kind == "parquet":
        pq.write_table(pa.table(rows), path)
    elif kind == "csv":
        write(path, "prompt,id\na,1\nb,2\nc,1\n")
    else:
        lines = [{"prompt": p, "id": i} for p, i in zip(*rows.values(), strict=True)]
        raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
        write(path, gzip.compress(raw) if kind.endswith("gz") else raw)

    if end == "exhausted":
        assert texts(read_prompts(str(path))) == ["a", "b", "c"]
    elif end == "limit":
        assert texts(read_prompts(str(path), limit=2)) == ["a", "b"]
    elif end == "closed":
        reader = read_prompts(str(path))
        assert not opened[0].closed
        reader.close()
        reader.close()
        assert list(reader) == []
    elif end == "context":
        with read_prompts(str(path)) as reader:
            assert next(reader).text == "a"
        assert list(reader) == []
    elif end == "error":
        with pytest.raises(InputError):
            list(read_prompts(str(path), id_column="id"))
    else:
        with pytest.raises(InputError):
            read_prompts(str(path), column="none")
    assert [file.closed for file in opened] == [True]


def test_standard_input_is_not_closed(pipe: Callable[[str], None]) -> None:
    pipe("a\n")
    assert texts(read_prompts("-")) == ["a"]
    assert not sys.stdin.closed


# Hugging Face ------------------------------------------------------------------------------------


class FakeHub:
    """Stands in for the libraries `datasets` and `huggingface_hub`."""

    class HfHubHTTPError(OSError):
        pass

    def __init__(self) -> None:
        self.rows: Callable[[], Iterator[dict[str, object]]] = lambda: iter([])
        self.ping: Callable[[], None] = lambda: None
        self.calls: list[tuple[Any, ...]] = []

    def dataset_info(self, name: str, timeout: float) -> None:
        self.ping()

    def load_dataset(
        self, name: str, config: str | None, *, split: str, streaming: bool
    ) -> Iterator[dict[str, object]]:
        self.calls.append((name, config, split, streaming))
        return self.rows()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    datasets: Any = types.ModuleType("datasets")
    datasets.load_dataset = fake.load_dataset
    client: Any = types.ModuleType("huggingface_hub")
    client.HfApi = lambda: fake
    client.errors = fake
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return fake


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:owner/name", ("owner/name", None, "train", True)),
        ("hf:owner/name:config", ("owner/name", "config", "train", True)),
        ("hf:owner/name:config:test", ("owner/name", "config", "test", True)),
        ("hf:owner/name::test", ("owner/name", None, "test", True)),
    ],
)
def test_a_data_set_is_streamed(source: str, call: tuple[Any, ...], hub: FakeHub) -> None:
    hub.rows = lambda: iter([{"prompt": "a", "n": np.int64(1)}, {"prompt": "b", "n": None}])
    prompts = list(read_prompts(source))
    assert [(prompt.text, prompt.metadata) for prompt in prompts] == [
        ("a", {"n": 1}),
        ("b", {"n": None}),
    ]
    assert hub.calls == [call]


@pytest.mark.parametrize(
    "source", ["hf:", "hf:name", "hf:../secrets", "hf:/etc/passwd", "hf:a/b/c"]
)
def test_what_is_no_data_set_id_is_refused(source: str, hub: FakeHub) -> None:
    with pytest.raises(InputError, match="does not name a Hugging Face data set"):
        read_prompts(source)
    assert hub.calls == []


def test_without_a_connection_the_data_set_fails_at_once(hub: FakeHub) -> None:
    def offline() -> None:
        raise ConnectionError("Name or service not known\nand a long story")

    hub.ping = offline
    with pytest.raises(InputError) as caught:
        read_prompts("hf:owner/name")
    assert caught.value.cause == (
        "hf:owner/name: the data set cannot be read (Name or service not known)."
    )
    assert "connection" in caught.value.remedy
    assert hub.calls == []


def test_an_unknown_data_set_gives_the_library_s_reason(hub: FakeHub) -> None:
    def unknown() -> Any:
        raise FileNotFoundError("Dataset 'owner/name' doesn't exist on the Hub.")

    def not_found() -> None:
        raise hub.HfHubHTTPError("404")

    hub.ping, hub.rows = not_found, unknown
    with pytest.raises(InputError, match=r"\(Dataset 'owner/name' doesn't exist on the Hub\)"):
        read_prompts("hf:owner/name")


def test_a_hub_that_hangs_is_given_up(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUB_PATIENCE_SECONDS", 0.05)
    hub.ping = lambda: time.sleep(0.5)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"no answer within 0\.05 seconds"):
        read_prompts("hf:owner/name")
    assert time.monotonic() - start < 0.4


def test_a_data_set_that_breaks_off_names_the_last_row(hub: FakeHub) -> None:
    def rows() -> Iterator[dict[str, object]]:
        yield {"prompt": "a"}
        yield {"prompt": "b"}
        raise OSError

    hub.rows = rows
    reader = read_prompts("hf:owner/name")
    assert [next(reader).text, next(reader).text] == ["a", "b"]
    with pytest.raises(InputError, match=r"^hf:owner/name, row 2: .*\(OSError\)"):
        next(reader)


def test_an_empty_data_set_fails_at_once(hub: FakeHub) -> None:
    with pytest.raises(InputError, match="no prompts"):
        read_prompts("hf:owner/name")


# The demo prompts --------------------------------------------------------------------------------


def test_the_demo_prompts_cover_every_kind_early() -> None:
    source = importlib.resources.files("orchestration") / "demo_prompts.jsonl"
    prompts = list(read_prompts(str(source), id_column="id"))
    assert [prompt.id for prompt in prompts] == [f"demo-{n:02}" for n in range(1, 13)]
    kinds = [prompt.metadata["kind"] for prompt in prompts]
    assert Counter(kinds) == {
        "benign": 3,
        "benign_alarming": 3,
        "borderline": 2,
        "harmful": 2,
        "harmful_disguised": 1,
        "injection": 1,
    }
    assert len(set(kinds[:4])) == 4
