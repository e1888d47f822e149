"""What the reader of prompts promises of columns, ids, texts and streaming."""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import math
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import JsonValue

from orchestration.prompts import files, sources
from orchestration.prompts.location import LeftOut
from orchestration.prompts.reader import Prompt, PromptReader
from policies.errors import InputError
from tests.orchestration.prompt_files import texts, write, write_jsonl

# The column ---------------------------------------------------------------------------------------


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
    assert texts(PromptReader(source, column=column)) == [expected]


def test_the_id_column_does_not_count_for_the_only_column(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"id": "x", "question": "a"})
    assert list(PromptReader(source, id_column="id")) == [Prompt("x", "a", {})]


def test_an_unknown_column_lists_the_columns_and_suggests_the_nearest(tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", "question,answer\na,b\n")
    for wanted in ({"column": "questoin"}, {"column": "answer", "id_column": "questoin"}):
        with pytest.raises(InputError) as caught:
            PromptReader(source, **wanted)
        assert "there is no column 'questoin'" in caught.value.cause
        assert caught.value.remedy == "Did you mean 'question'? The columns are: question, answer."


def test_without_a_clear_column_the_error_lists_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"question": "a", "answer": "b"})
    with pytest.raises(InputError, match=r"the columns are: question, answer\. .*--column NAME"):
        PromptReader(source)


# Ids, texts, metadata -----------------------------------------------------------------------------


def test_an_id_is_made_of_the_normalised_text_alone(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "  Café?\n")
    a = write_jsonl(tmp_path / "a.jsonl", {"prompt": decomposed, "n": 1})
    b = write_jsonl(tmp_path / "b.jsonl", {"question": "first"}, {"question": "Café?"})
    [from_a], [_, from_b] = PromptReader(a), PromptReader(b)
    assert from_a.id == from_b.id == "p" + hashlib.sha256("Café?".encode()).hexdigest()[:16]
    assert from_a.text == decomposed.strip()


def test_the_text_is_only_stripped(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"prompt": "\t a  b\r\n\n c\u00a0"})
    assert texts(PromptReader(source)) == ["a  b\r\n\n c"]


def test_metadata_is_all_other_columns(tmp_path: Path) -> None:
    row = {"prompt": "a", "id": 7, "kind": "x", "more": {"list": [1, None, True]}}
    source = write_jsonl(tmp_path / "p.jsonl", row)
    rest: dict[str, JsonValue] = {"kind": "x", "more": {"list": [1, None, True]}}
    assert list(PromptReader(source, id_column="id")) == [Prompt("7", "a", rest)]
    assert next(PromptReader(source)).metadata == {"id": 7, **rest}


@pytest.mark.parametrize("bad", [None, "", "  ", True, [1], {"a": 1}])
def test_an_id_must_be_a_string_or_number(bad: object, tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "p.jsonl", {"prompt": "a", "id": "x"}, {"prompt": "b", "id": bad}
    )
    with pytest.raises(InputError, match=r"p\.jsonl:2: the id in column 'id' is"):
        list(PromptReader(source, id_column="id"))


# Left out -----------------------------------------------------------------------------------------


def test_empty_prompts_are_left_out_counted_and_named(tmp_path: Path) -> None:
    rows = [{"prompt": value, "n": n} for n, value in enumerate([None, "a", " ", "e", math.nan])]
    reader = PromptReader(write_jsonl(tmp_path / "p.jsonl", *rows))
    prompts = list(reader)
    assert [(prompt.text, prompt.metadata["n"], prompt.row) for prompt in prompts] == [
        ("a", 1, 2),
        ("e", 3, 4),
    ]
    assert (reader.read, reader.empty) == (5, 3)
    assert reader.left_out == [LeftOut(row, "empty prompt") for row in (1, 3, 5)]


def test_only_the_first_few_rows_left_out_are_named(tmp_path: Path) -> None:
    rows = [{"prompt": " "}] * 99
    reader = PromptReader(write_jsonl(tmp_path / "p.jsonl", *rows, {"prompt": "a"}))
    assert texts(reader) == ["a"]
    assert reader.empty == 99
    assert [row.row for row in reader.left_out] == list(range(1, 11))


def test_a_prompt_that_comes_twice_is_handed_out_twice(tmp_path: Path) -> None:
    """The reader remembers nothing: which prompts there are already, the journal knows."""
    nfc, nfd = (unicodedata.normalize(form, "\u00e9") for form in ("NFC", "NFD"))
    first, second = PromptReader(write(tmp_path / "p.txt", f"{nfc}\n{nfd}\n"))
    assert first.text != second.text
    assert (first.id, first.digest) == (second.id, second.digest)


# Streaming and closing ----------------------------------------------------------------------------


def test_rows_are_read_one_by_one(pipe: Callable[[str], None]) -> None:
    pipe("".join(f"prompt {i}\n" for i in range(1000)))
    reader = PromptReader("-")
    assert reader.read == 1
    next(reader)
    next(reader)
    assert reader.read == 2


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    real = files.open_file

    def remember(source: str) -> Any:
        found.append(real(source))
        return found[-1]

    monkeypatch.setattr(sources, "open_file", remember)
    return found


@pytest.mark.parametrize("end", ["exhausted", "closed", "context", "error", "bad column"])
@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_the_file_is_closed_however_it_ends(
    kind: str, end: str, tmp_path: Path, opened: list[Any]
) -> None:
    path = tmp_path / f"p.{kind}"
    rows = {"prompt": ["a", "b", "c"], "id": ["1", "2", None]}
    if kind == "parquet":
        pq.write_table(pa.table(rows), path)
    elif kind == "csv":
        write(path, "prompt,id\na,1\nb,2\nc,\n")
    else:
        lines = [{"prompt": p, "id": i} for p, i in zip(*rows.values(), strict=True)]
        raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
        write(path, gzip.compress(raw) if kind.endswith("gz") else raw)

    if end == "exhausted":
        assert texts(PromptReader(str(path))) == ["a", "b", "c"]
    elif end == "closed":
        reader = PromptReader(str(path))
        assert not opened[0].closed
        reader.close()
        reader.close()
        assert list(reader) == []
    elif end == "context":
        with PromptReader(str(path)) as reader:
            assert next(reader).text == "a"
        assert list(reader) == []
    elif end == "error":
        with pytest.raises(InputError):
            list(PromptReader(str(path), id_column="id"))
    else:
        with pytest.raises(InputError):
            PromptReader(str(path), column="none")
    assert [file.closed for file in opened] == [True]


def test_standard_input_is_not_closed(pipe: Callable[[str], None]) -> None:
    pipe("a\n")
    assert texts(PromptReader("-")) == ["a"]
    assert not sys.stdin.closed


# The demo prompts ---------------------------------------------------------------------------------


def test_the_demo_prompts_cover_every_kind_early() -> None:
    source = importlib.resources.files("orchestration.prompts") / "demo.jsonl"
    prompts = list(PromptReader(str(source), id_column="id"))
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
