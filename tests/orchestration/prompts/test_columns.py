"""What the reader of prompts promises of nested columns, of chats and of ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.prompts.location import LeftOut
from orchestration.prompts.reader import PromptReader
from policies.errors import InputError
from tests.orchestration.prompt_files import texts, write, write_jsonl

# Columns with dots --------------------------------------------------------------------------------

NESTED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    # the row, the column, what is left of the row
    "in an object": ({"a": {"p": "x", "n": 1}, "m": 2}, "a.p", {"a": {"n": 1}, "m": 2}),
    "alone in an object": ({"a": {"p": "x"}, "m": 2}, "a.p", {"m": 2}),
    "deep": ({"a": {"b": {"p": "x"}, "n": 1}}, "a.b.p", {"a": {"n": 1}}),
    "the dotted name wins": ({"a.p": "x", "a": {"p": "y"}}, "a.p", {"a": {"p": "y"}}),
    "a dotted name inside": ({"a": {"b.p": "x"}}, "a.b.p", {}),
    "a dotted name outside": ({"a.b": {"p": "x"}, "a": 1}, "a.b.p", {"a": 1}),
    "the longer way": ({"a": {"c": 1}, "a.b": {"p": "x"}}, "a.b.p", {"a": {"c": 1}}),
    "a chat in an object": (
        {"a": {"chat": [{"role": "user", "content": "x"}], "n": 1}},
        "a.chat",
        {"a": {"n": 1}},
    ),
}


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_dotted_name_reaches_into_objects(kind: str, name: str, tmp_path: Path) -> None:
    row, column, left = NESTED[name]
    source = str(tmp_path / f"p.{kind}")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), source)
    else:
        write_jsonl(Path(source), row)
    [prompt] = PromptReader(source, column=column)
    assert (prompt.text, prompt.metadata) == ("x", left)


def test_prompt_and_id_may_stand_in_one_object(tmp_path: Path) -> None:
    row = {"a": {"p": "x", "id": 7, "n": 1}}
    [prompt] = PromptReader(write_jsonl(tmp_path / "p.jsonl", row), column="a.p", id_column="a.id")
    assert (prompt.id, prompt.metadata) == ("7", {"a": {"n": 1}})


def test_the_prompt_may_be_its_own_id(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"prompt": "x", "n": 1})
    [prompt] = PromptReader(source, column="prompt", id_column="prompt")
    assert (prompt.id, prompt.text, prompt.metadata) == ("x", "x", {"n": 1})


def test_a_csv_column_may_have_dots(tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", "a.id,a.prompt\n1,x\n")
    [prompt] = PromptReader(source, column="a.prompt", id_column="a.id")
    assert (prompt.id, prompt.text, prompt.metadata) == ("1", "x", {})


def test_a_null_on_the_way_is_an_empty_prompt(tmp_path: Path) -> None:
    rows = [{"a": {"p": "x"}}, {"a": None}, {"a": {"p": None}}]
    reader = PromptReader(write_jsonl(tmp_path / "p.jsonl", *rows), column="a.p")
    assert texts(reader) == ["x"]
    assert reader.left_out == [LeftOut(2, "empty prompt"), LeftOut(3, "empty prompt")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": {"q": "x"}}, "the row has no column 'a.p', only: a"),
        ({"a": "x"}, "the row has no column 'a.p', only: a"),
        ({"a": [{"p": "x"}]}, "the row has no column 'a.p', only: a"),
        ({"a": {"p": {"q": "x"}}}, "the prompt in column 'a.p' is not a string but dict"),
    ],
)
def test_a_row_without_the_nested_column_names_its_line(
    row: object, message: str, tmp_path: Path
) -> None:
    reader = PromptReader(
        write_jsonl(tmp_path / "p.jsonl", {"a": {"p": "good"}}, row), column="a.p"
    )
    with pytest.raises(InputError) as caught:
        texts(reader)
    assert f"p.jsonl:2: {message}" in caught.value.cause


def test_an_unknown_nested_column_suggests_the_nearest(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"instance": {"prompt": "x"}, "n": 1})
    with pytest.raises(InputError) as caught:
        PromptReader(source, column="instance.promt")
    assert caught.value.remedy == "Did you mean 'instance.prompt'? The columns are: instance, n."


# Chats --------------------------------------------------------------------------------------------

SYSTEM, USER, REPLY = (
    {"role": role, "content": text}
    for role, text in (("system", "Be kind."), ("user", " x "), ("assistant", "Sure."))
)
SHARED = [{"from": "human", "value": "x"}, {"from": "gpt", "value": "Sure."}]


def say(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


CHATS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    # the messages, and those that stay in the metadata
    "a user turn": ([USER], []),
    "with a system message": ([SYSTEM, USER], [SYSTEM]),
    "with a developer message": (
        [{**SYSTEM, "role": "developer"}, USER],
        [{**SYSTEM, "role": "developer"}],
    ),
    "with a reply": ([USER, REPLY], [REPLY]),
    "with both": ([SYSTEM, USER, REPLY], [SYSTEM, REPLY]),
    "with more keys": ([{**USER, "id": 1, "tool_calls": None}], []),
    "ShareGPT": (SHARED, SHARED[1:]),
    "ShareGPT with a system message": (
        [{"from": "system", "value": "s"}, *SHARED],
        [{"from": "system", "value": "s"}, *SHARED[1:]],
    ),
    "a part of text": ([say([{"type": "text", "text": "x"}])], []),
}


@pytest.mark.parametrize("column", ["prompt", "messages", "conversations", "conversation", "mine"])
@pytest.mark.parametrize("name", CHATS)
def test_a_chat_with_one_user_turn_is_a_prompt(name: str, column: str, tmp_path: Path) -> None:
    messages, others = CHATS[name]
    source = write_jsonl(tmp_path / "p.jsonl", {"kind": "k", "id": 1, column: messages})
    [prompt] = PromptReader(source, column=column if column == "mine" else None)
    left = {column: others} if others else {}
    assert (prompt.text, prompt.metadata) == ("x", {"kind": "k", "id": 1, **left})


def test_parts_of_text_are_lines(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    assert texts(PromptReader(write_jsonl(tmp_path / "p.jsonl", {"prompt": [say(parts)]}))) == [
        "a\nb"
    ]


def test_a_chat_comes_out_of_parquet(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([{"messages": [SYSTEM, USER]}, {"messages": None}])
    pq.write_table(table, tmp_path / "p.parquet")
    [prompt] = PromptReader(str(tmp_path / "p.parquet"))
    assert (prompt.text, prompt.metadata) == ("x", {"messages": [SYSTEM]})


def test_the_first_row_may_lack_its_chat(tmp_path: Path) -> None:
    rows = [{"messages": None, "n": 1}, {"messages": [USER], "n": 2}]
    assert texts(PromptReader(write_jsonl(tmp_path / "p.jsonl", *rows))) == ["x"]
    with pytest.raises(InputError, match="in column 'messages' is not a string but list"):
        PromptReader(write_jsonl(tmp_path / "p.jsonl", {"messages": [], "n": 1}))


def test_a_prompt_column_comes_before_a_chat(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"messages": [USER], "prompt": "y"})
    assert texts(PromptReader(source)) == ["y"]


@pytest.mark.parametrize(
    "row", [{"messages": [USER], "conversation": [USER]}, {"messages": "many", "n": 1}]
)
def test_a_column_that_may_not_be_meant_is_not_guessed(row: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with --column NAME"):
        PromptReader(write_jsonl(tmp_path / "p.jsonl", row))


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org"}}
BAD_CHATS: dict[str, tuple[object, str]] = {
    "several user turns": ([USER, REPLY, USER], "the chat has 2 user turns"),
    "user turns in a row": ([USER, USER], "the chat has 2 user turns"),
    "no user turn": ([SYSTEM], "the chat has no user turn"),
    "a greeting": ([REPLY, USER], "an assistant turn before that of the user"),
    "two replies": ([USER, REPLY, REPLY], "several assistant turns after"),
    "a tool": ([USER, {"role": "tool", "content": "x"}], "the chat has a message of 'tool'"),
    "no role": ([{"role": None, "content": "x"}], "the chat has a message of None"),
    "an image": ([say([{"type": "text", "text": "x"}, IMAGE])], "not text but 'image_url'"),
    "an image beside it": ([{**USER, "images": ["x"]}], "the user turn has more than text"),
    "a part without text": ([say([{"type": "text"}])], "not text but 'text'"),
    "a part that is none": ([say(["x"])], "not text but 'str'"),
    "an object": ([say({"text": "x"})], "the user turn is not text but dict"),
    "an empty chat": ([], "is not a string but list"),
    "no messages": ([{}], "is not a string but list"),
    "a list of strings": (["x"], "is not a string but list"),
    "a message alone": (USER, "is not a string but dict"),
    "a NUL": ([say("a\0b")], "holds a NUL character"),
}


@pytest.mark.parametrize("name", BAD_CHATS)
def test_any_other_chat_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    value, message = BAD_CHATS[name]
    reader = PromptReader(write_jsonl(tmp_path / "p.jsonl", {"prompt": "good"}, {"prompt": value}))
    with pytest.raises(InputError) as caught:
        texts(reader)
    assert caught.value.cause.startswith(f"{tmp_path / 'p.jsonl'}:2: ")
    assert message in caught.value.cause
    assert "'prompt'" in caught.value.cause
    assert caught.value.remedy


# Ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (" x ", "x"),
        (7, "7"),
        (0, "0"),
        (7.0, "7"),
        (-7.0, "-7"),
        (7.5, "7.5"),
        (1e16, "10000000000000000"),
        ("7.0", "7.0"),
        ("007", "007"),
    ],
)
def test_an_id_is_written_as_its_value(value: object, expected: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "p.jsonl", {"prompt": "a", "id": value})
    assert next(PromptReader(source, id_column="id")).id == expected


@pytest.mark.parametrize("text", ["7.0", "7"])
def test_a_csv_has_whole_numbers_as_pandas_writes_them(text: str, tmp_path: Path) -> None:
    source = write(tmp_path / "p.csv", f"prompt,id\na,{text}\nb,007\nc,1.10\n")
    assert [prompt.id for prompt in PromptReader(source, id_column="id")] == ["7", "007", "1.10"]


def test_a_parquet_column_of_integers_with_gaps_has_integers(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "id": np.array([7.0, float("nan")])}), path)
    reader = PromptReader(str(path), id_column="id")
    assert next(reader).id == "7"
    with pytest.raises(InputError, match=r"p\.parquet, row 2: the id in column 'id' is 'NaN'"):
        next(reader)


@pytest.mark.parametrize("written", ["NaN", "null", '""', '"nan"', '"None"', '"<NA>"', "Infinity"])
def test_a_missing_id_is_refused_with_its_row(written: str, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "a", "id": 1})
    source = write(tmp_path / "p.jsonl", f'{good}\n{{"prompt": "b", "id": {written}}}\n')
    with pytest.raises(InputError, match=r"p\.jsonl:2: the id in column 'id' is") as caught:
        list(PromptReader(source, id_column="id"))
    assert caught.value.remedy


# Two columns of one name --------------------------------------------------------------------------


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"p\.parquet: two columns are called 'prompt'\. Rename"):
        PromptReader(str(tmp_path / "p.parquet"))
