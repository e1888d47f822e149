"""What the reader of prompts promises of folders, patterns and standard input."""

from __future__ import annotations

import gzip
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from orchestration.journal import Journal
from orchestration.prompts.location import LeftOut
from orchestration.prompts.reader import PromptReader
from orchestration.runs.intake import Source
from policies.errors import InputError
from tests.orchestration.journals import handed_out, take_file
from tests.orchestration.prompt_files import GOOD, texts, write

# Folders and patterns -----------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of every kind, and others."""
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    write(folder / "a.jsonl", '{"prompt": "a"}\n')
    write(folder / "b.csv", "question,id\nb,1\n")
    write(folder / "c.txt", "\nc\n")
    write(folder / "d.json", '["d"]')
    write(folder / "e.txt.gz", gzip.compress(b"e"))
    write(folder / "f.txt.zst", zstandard.compress(b"f"))
    pq.write_table(
        pa.table({"messages": [[{"role": "user", "content": "g"}]]}), folder / "g.parquet"
    )
    write(folder / "h.jsonl", "")
    write(folder / "sub" / "i.jsonl", '{"prompt": "i"}\n')
    write(folder / ".hidden.jsonl", '{"prompt": "hidden"}\n')
    write(folder / "README.md", "# no prompts\n")
    write(folder / "x.xlsx", b"PK\0")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data", "a|c|d|e|f|g"),
        ("data/", "a|c|d|e|f|g"),
        ("data/*", "a|c|d|e|f|g"),
        ("data/*.txt*", "c|e|f"),
        ("data/[ad].json*", "a|d"),
        ("data/**/*.jsonl", "a|i"),
        ("data/s*/*", "i"),
        ("*/?.json", "d"),
    ],
)
def test_all_files_are_read_in_the_order_of_their_names(
    source: str, expected: str, data: Path
) -> None:
    (data / "b.csv").unlink()
    reader = PromptReader(source)
    assert "|".join(texts(reader)) == expected
    assert reader.read - reader.empty == len(expected.split("|"))


def test_columns_are_chosen_for_each_file(data: Path) -> None:
    write(data / "b.csv", "question\nb\n")
    assert texts(PromptReader("data/*[ab].*")) == ["a", "b"]
    with pytest.raises(InputError, match=r"data/b\.csv:2: there is no column 'prompt'"):
        texts(PromptReader("data", column="prompt"))


def test_errors_and_left_out_rows_name_the_file(data: Path) -> None:
    write(data / "c.txt", "c\n\n")
    write(data / "d.json", '["d", 3]')
    reader = PromptReader("data/[acd].*")
    with pytest.raises(InputError, match=r"^data/d\.json, row 2: not a JSON object"):
        texts(reader)
    assert reader.left_out == [LeftOut(2, "empty prompt in data/c.txt")]


def test_a_prompt_knows_its_file(data: Path) -> None:
    prompts = list(PromptReader("data/[ad].*"))
    assert [prompt.left_out("twice") for prompt in prompts] == [
        LeftOut(1, "twice in data/a.jsonl"),
        LeftOut(1, "twice in data/d.json"),
    ]
    [alone] = PromptReader("data/a.jsonl")
    assert alone.left_out("twice") == LeftOut(1, "twice")


def test_a_file_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a1.jsonl", '{"prompt": "other"}\n')
    assert texts(PromptReader(write(tmp_path / "a[1].jsonl", GOOD))) == ["good"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("data/*.none", r"no file of prompts that matches data/\*\.none\. Check the path"),
        ("data/*.md", r"that matches data/\*\.md\. .*these kinds: \.jsonl"),
        ("none/*", r"that matches none/\*\. Check the path"),
        ("empty", r"no file of prompts in the folder empty\. Check the path"),
        ("unfit", r"no file of prompts in the folder unfit\. .*these kinds: \.jsonl"),
        ("blank", r"blank: there are no prompts in it"),
        ("nul\0*", "nul"),
    ],
)
def test_nothing_to_read_is_an_error(source: str, message: str, data: Path) -> None:
    for name in ("empty", "unfit", "blank"):
        Path(name).mkdir()
    write(Path("unfit/x.md"), "x")
    write(Path("blank/x.txt"), "\n")
    with pytest.raises(InputError, match=message) as caught:
        PromptReader(source)
    assert caught.value.remedy


# Fingerprints -------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["data", "data/*.jsonl"])
@pytest.mark.parametrize("change", ["size", "time", "new", "gone", "renamed"])
def test_the_fingerprint_covers_all_files(change: str, source: str, data: Path) -> None:
    before = Source(source).fingerprint
    assert before is not None
    assert Source(source).fingerprint == before
    file = data / "h.jsonl"
    if change == "size":
        write(file, GOOD)
    elif change == "time":
        os.utime(file, (1, 1))
    elif change == "new":
        write(data / "i.jsonl", GOOD)
    elif change == "gone":
        file.unlink()
    else:
        file.rename(data / "j.jsonl")
    assert Source(source).fingerprint not in (None, before)


def test_files_that_are_not_read_do_not_count(data: Path) -> None:
    before = Source("data").fingerprint
    write(data / "README.md", "other")
    write(data / "sub" / "i.jsonl", "other")
    assert Source("data").fingerprint == before


@pytest.mark.parametrize("name", ["-", "hf:name"])
def test_a_file_called_like_another_source_is_not_taken_for_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), "x")
    assert Source(name).fingerprint is None


def test_what_does_not_exist_has_no_fingerprint(tmp_path: Path) -> None:
    for source in (tmp_path / "none", tmp_path / "*.none", tmp_path, "nul\0"):
        assert Source(str(source)).fingerprint is None


# In a run -----------------------------------------------------------------------------------------


async def test_a_folder_is_read_once_and_again_if_a_file_is_added(
    journal: Journal, data: Path
) -> None:
    first = await take_file(journal, "data/*.jsonl")
    again = await take_file(journal, "data/*.jsonl")
    assert (first.known, again.known, again.counts) == (False, True, first.counts)
    write(data / "z.jsonl", '{"prompt": "z"}\n')
    third = await take_file(journal, "data/*.jsonl")
    assert [prompt.text for prompt in await handed_out(third)] == ["a", "z"]


async def test_a_text_that_comes_twice_is_left_out_with_its_file(
    journal: Journal, data: Path
) -> None:
    write(data / "c.txt", "a\nc\n")
    intake = await take_file(journal, "data/[ac].*")
    reason = "same text as an earlier prompt in data/c.txt"
    assert intake.counts.left_out == [LeftOut(1, reason)]


async def test_an_id_in_two_files_names_the_second(journal: Journal, data: Path) -> None:
    write(data / "a.jsonl", '{"prompt": "a", "id": 1.0}\n')
    write(data / "b.csv", "prompt,id\nb,1\n")
    with pytest.raises(InputError, match=r"data/b\.csv:2: the id '1' is that of another prompt"):
        await take_file(journal, "data/[ab].*", id_column="id")


# Standard input -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (lambda: None, "Standard input is closed"),
        (closed, "Standard input is closed"),
        (Terminal, "Standard input is a terminal"),
    ],
)
def test_standard_input_that_holds_no_prompts_is_named(
    stream: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stream())
    with pytest.raises(InputError, match=message) as caught:
        PromptReader("-")
    assert caught.value.remedy


def test_a_closed_descriptor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(write(tmp_path / "p.txt", "x")) as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        os.close(stream.fileno())
        with pytest.raises(InputError, match="Standard input"):
            PromptReader("-")
        os.dup2(os.open(os.devnull, os.O_RDONLY), stream.fileno())


def test_a_pipe_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short first line is a prompt before there is more."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream, os.fdopen(writing, "wb", buffering=0) as sender:
        monkeypatch.setattr(sys, "stdin", stream)
        sender.write(b"a\n")
        reader = PromptReader("-")
        assert next(reader).text == "a"
        sender.write(b"b\n")
        assert next(reader).text == "b"
