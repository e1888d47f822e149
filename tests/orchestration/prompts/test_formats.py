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

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from orchestration.prompts import formats
from orchestration.prompts.location import LeftOut
from orchestration.prompts.reader import PromptReader
from policies.errors import InputError
from tests.orchestration.prompt_files import texts, write

# Formats ------------------------------------------------------------------------------------------

JSONL = '{"prompt": "Ä one", "n": 1}\n{"prompt": "two", "n": 2}\n'
CSV = "prompt,n\nÄ one,1\ntwo,2\n"
ARRAY = '[{"prompt": "Ä one", "n": 1},\n {"prompt": "two", "n": 2}]'
BOMS = {
    "utf-8": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "utf-32-be": b"\0\0\xfe\xff",
}
FORMATS: dict[str, tuple[str, str | bytes]] = {
    "jsonl": ("p.jsonl", JSONL),
    "ndjson": ("p.ndjson", JSONL),
    "upper-case suffix": ("P.JSONL", JSONL),
    "jsonl with blank lines": ("p.jsonl", "\n" + JSONL.replace("\n", "\n\n")),
    "jsonl with BOM": ("p.jsonl", b"\xef\xbb\xbf" + JSONL.encode()),
    "jsonl with CRLF": ("p.jsonl", JSONL.replace("\n", "\r\n")),
    "jsonl without final newline": ("p.jsonl", JSONL.rstrip()),
    "csv": ("p.csv", CSV),
    "csv with BOM": ("p.csv", "\ufeffprompt,n\nÄ one,1\ntwo,2\n"),
    "csv with CRLF": ("p.csv", "n,prompt\r\n1,Ä one\r\n2,two\r\n"),
    "csv with blank lines": ("p.csv", "\nprompt,n\n\nÄ one,1\n\ntwo,2\n"),
    "tsv": ("p.tsv", "prompt\tn\nÄ one\t1\ntwo\t2\n"),
    "jsonl of two files with BOMs": ("p.jsonl", "".join(f"\ufeff{x}\n" for x in JSONL.split("\n"))),
    "txt of two files with BOMs": ("p.txt", "\ufeffÄ one\n\ufefftwo\n"),
    "json": ("p.json", ARRAY),
    "json in one line": ("p.json", ARRAY.replace("\n", "")),
    "json with blank lines and BOM": ("p.json", "\ufeff\n\n" + ARRAY + "\n\n"),
    "json, indented": ("p.json", json.dumps(json.loads(ARRAY), indent=2)),
    "json, an array in an object": ("p.json", f'{{"version": "1", "size": 2, "rows": {ARRAY}}}'),
    "json that is JSONL": ("p.json", "\n" + JSONL),
    "txt": ("p.txt", "Ä one\ntwo\n"),
    "txt with BOM and CRLF": ("p.txt", "\ufeffÄ one\r\ntwo"),
    "jsonl of strings": ("p.jsonl", '"Ä one"\n"two"\n'),
    "json of strings": ("p.json", '["Ä one", "two"]'),
    "json of strings in an object": ("p.json", '{"prompts": ["Ä one", "two"], "by": "me"}'),
    "json that is JSONL of strings": ("p.json", '"Ä one"\n"two"\n'),
}
UNCOMPRESSED = {
    "p.jsonl": JSONL,
    "p.ndjson": JSONL,
    "p.json": ARRAY,
    "p.csv": CSV,
    "p.tsv": CSV.replace(",", "\t"),
    "p.txt": "Ä one\ntwo\n",
}
for file, content in UNCOMPRESSED.items():
    raw = content.encode()
    FORMATS[f"{file}.gz"] = (f"{file}.gz", gzip.compress(raw))
    FORMATS[f"{file}.zst"] = (f"{file}.zst", zstandard.compress(raw))
    for encoding, mark in BOMS.items():
        FORMATS[f"{file} in {encoding}"] = (file, mark + content.encode(encoding))
FORMATS["zst of two frames"] = (
    "p.jsonl.zst",
    b"".join(zstandard.compress(line.encode() + b"\n") for line in JSONL.splitlines()),
)
FORMATS["zst of UTF-16"] = ("p.csv.zst", zstandard.compress(CSV.encode("utf-16")))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_yields_the_same_prompts(name: str, tmp_path: Path) -> None:
    file, content = FORMATS[name]
    reader = PromptReader(write(tmp_path / file, content))
    prompts = list(reader)
    assert [prompt.text for prompt in prompts] == ["Ä one", "two"]
    assert (reader.read, reader.empty, reader.left_out) == (2, 0, [])
    if "txt" in file or "strings" in name:
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


@pytest.mark.parametrize("encoding", BOMS)
def test_standard_input_may_have_a_byte_order_mark(
    encoding: str, pipe: Callable[[str | bytes], None]
) -> None:
    pipe(BOMS[encoding] + JSONL.encode(encoding))
    assert texts(PromptReader("-")) == ["Ä one", "two"]


@pytest.mark.parametrize("encoding", BOMS)
def test_lines_are_those_of_the_text_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    """Bytes of a line end inside of a character (U+0A0A, U+0D0A) are none."""
    content = "prompt,id\n\u0a0a\u0d0a,1\n" + "x" * 100_000 + ",2\nbad,\n"
    source = write(tmp_path / "p.csv", BOMS[encoding] + content.encode(encoding))
    reader = PromptReader(source, id_column="id")
    assert next(reader).text == "\u0a0a\u0d0a"
    assert next(reader).row == 3
    with pytest.raises(InputError, match=r"p\.csv:4: the id in column 'id' is ''"):
        next(reader)


@pytest.mark.parametrize("name", ["p.jsonl", "p.json"])
def test_a_line_or_element_may_be_a_chat(name: str, tmp_path: Path) -> None:
    chats = [json.dumps([{"role": "user", "content": text}]) for text in "ab"]
    assert texts(PromptReader(write(tmp_path / name, "\n".join(chats)))) == ["a", "b"]
    elements = write(tmp_path / "q.json", f"[{', '.join(chats)}]")
    assert texts(PromptReader(elements)) == ["a", "b"]


def test_elements_of_a_document_are_counted_and_lines_of_jsonl_too(tmp_path: Path) -> None:
    document = PromptReader(write(tmp_path / "a.json", f"\n\n{ARRAY}"))
    lines = PromptReader(write(tmp_path / "b.json", f"\n\n{JSONL}"))
    assert [prompt.row for prompt in document] == [1, 2]
    assert [prompt.row for prompt in lines] == [3, 4]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "tags": ["x", "y"]},
        {"prompt": "a", "tags": ["x"], "more": []},
        {"messages": [{"role": "user", "content": "a"}]},
        {"question": "a"},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_document_of_one_object_may_be_one_row(
    row: object, indent: int | None, tmp_path: Path
) -> None:
    reader = PromptReader(write(tmp_path / "p.json", json.dumps(row, indent=indent)))
    assert texts(reader) == ["a"]


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
    monkeypatch.setattr(formats, "PARQUET_BATCH_ROWS", 3)
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
    [
        ("p.parquet", "pyarrow", "Parquet"),
        ("p.txt.zst", "zstandard", "Zstandard files"),
        ("hf:o/n", "datasets", "Hugging Face data sets"),
    ],
)
def test_a_missing_extra_is_named(
    source: str, package: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    Path(source).touch() if ":" not in source else None
    with pytest.raises(InputError) as caught:
        PromptReader(source)
    assert str(caught.value) == (
        f"Reading {what} needs {package}, which is not installed. "
        "Install it with: pip install 'aidsafe[data]'"
    )
