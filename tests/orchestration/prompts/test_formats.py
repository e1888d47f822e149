"""What the reader of prompts promises of every format."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.prompts import sources
from orchestration.prompts.reader import LeftOut, PromptReader
from orchestration.prompts.sources import to_json
from policies.errors import InputError
from tests.orchestration.prompt_files import texts, write

# Formats ------------------------------------------------------------------------------------------

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
    reader = PromptReader(write(tmp_path / file, content))
    prompts = list(reader)
    assert [prompt.text for prompt in prompts] == ["Ä one", "two"]
    assert (reader.read, reader.empty, reader.left_out) == (2, 0, [])
    if "txt" in file:
        assert prompts[0].metadata == {}
    else:
        assert [str(prompt.metadata["n"]) for prompt in prompts] == ["1", "2"]


def test_csv_fields_keep_quoted_newlines_and_commas(tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", 'prompt,kind\n"one\r\nline, and ""more""",x\ntwo,y\n')
    assert texts(PromptReader(source)) == ['one\r\nline, and "more"', "two"]


def test_csv_fields_may_be_huge(tmp_path: Path) -> None:
    huge = "x" * (2 * 2**20)
    assert texts(PromptReader(write(tmp_path / "p.csv", f"prompt,n\n{huge},1\n"))) == [huge]
    assert csv.field_size_limit() >= len(huge)


def test_csv_row_with_too_few_fields_is_filled_up_with_null(tmp_path: Path) -> None:
    reader = PromptReader(write(tmp_path / "p.csv", "prompt,kind\none\ntwo,x\n"))
    assert [prompt.metadata["kind"] for prompt in reader] == [None, "x"]


def test_text_lines_are_split_at_newlines_only(tmp_path: Path) -> None:
    source = write(tmp_path / "p.txt", "one\u2028still one\ftoo\ntwo\n")
    assert texts(PromptReader(source)) == ["one\u2028still one\ftoo", "two"]


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
    assert texts(PromptReader("-")) == expected


@pytest.mark.parametrize("content", ['{"prompt": "one"\n', "{\n", "[\n", '[{"prompt": "one"}]\n'])
def test_standard_input_that_looks_like_json_is_never_taken_for_prompts(
    content: str, pipe: Callable[[str], None]
) -> None:
    pipe(content)
    with pytest.raises(InputError, match=r"^standard input:1: not .*jq"):
        PromptReader("-")


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_empty_standard_input_fails_at_once(content: str, pipe: Callable[[str], None]) -> None:
    pipe(content)
    with pytest.raises(InputError, match="standard input: there are no prompts"):
        PromptReader("-")


# Parquet ------------------------------------------------------------------------------------------


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
    reader = PromptReader(str(path))
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
    monkeypatch.setattr(sources, "PARQUET_BATCH_ROWS", 3)
    rows = [f"prompt {i}" for i in range(10)]
    pq.write_table(pa.table({"prompt": rows, "id": [*range(9), None]}), tmp_path / "p.parquet")
    source = str(tmp_path / "p.parquet")
    assert texts(PromptReader(source)) == rows
    # The numbers of rows do not restart with a batch, nor skip one between two.
    with pytest.raises(InputError, match=r"p\.parquet, row 10: the id in column 'id'"):
        list(PromptReader(source, column="prompt", id_column="id"))


@pytest.mark.parametrize("content", [b"", b"PAR1 but nothing else", b"prompt\nhello\n"])
def test_a_broken_parquet_file_fails_at_once(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"p\.parquet: cannot be read as Parquet"):
        PromptReader(write(tmp_path / "p.parquet", content))


def test_a_parquet_file_without_rows_fails_at_once(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="no prompts"):
        PromptReader(str(tmp_path / "p.parquet"))


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
        PromptReader(source)
    assert str(caught.value) == (
        f"Reading {what} needs {package}, which is not installed. "
        "Install it with: pip install 'aidsafe[data]'"
    )


# to_json ------------------------------------------------------------------------------------------


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


def test_what_is_nested_very_deep_is_cut_off() -> None:
    value: object = "deep"
    for _ in range(5_000):
        value = [value]
    text = json.dumps(to_json(value))
    assert text == "[" * 50 + '"<list>"' + "]" * 50
