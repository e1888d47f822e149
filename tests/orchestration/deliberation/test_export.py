"""What an export promises: three forms, completed records only, whole files."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import JournalError
from orchestration.runs.export import Wrapping, write_lines
from policies import InputError
from tests.orchestration.records import failed, record

FORMATS = RECORDS.formats
AS_USUAL = Wrapping()
BARE = Wrapping(citations=False)


def test_records_are_exported_whole() -> None:
    [line] = RECORDS.lines([record()], "records", AS_USUAL)
    assert CoTRecord.model_validate_json(line) == record()


def test_the_aidsafe_form_is_prompt_thoughts_and_response() -> None:
    [line] = RECORDS.lines([record()], "aidsafe", AS_USUAL)
    assert json.loads(line) == {
        "prompt": "How are you?",
        "thoughts": "It is harmless. [respect_helpfulness, RH1]\n"
        "So help. [respect_helpfulness, RH1]",
        "response": "The first response.",
    }


def test_the_sft_form_is_messages_with_the_thoughts_inside_think() -> None:
    [line] = RECORDS.lines([record()], "sft", BARE)
    assert json.loads(line) == {
        "messages": [
            {"role": "user", "content": "How are you?"},
            {
                "role": "assistant",
                "content": "<think>\nIt is harmless.\nSo help.\n</think>\n\nThe first response.",
            },
        ]
    }


def test_citations_can_be_left_out() -> None:
    [line] = RECORDS.lines([record()], "aidsafe", BARE)
    assert json.loads(line)["thoughts"] == "It is harmless.\nSo help."


@pytest.mark.parametrize("form", FORMATS)
def test_only_completed_records_are_exported(form: str) -> None:
    others = [record(outcome=outcome) for outcome in ("refused", "malformed", "truncated")]
    assert len(list(RECORDS.lines([failed(), record(), *others], form, AS_USUAL))) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_a_record_is_one_line_whatever_is_in_it(form: str) -> None:
    odd = record(prompt="a\nb\u2028c\x85d \ud7ff ä")
    [line] = RECORDS.lines([odd], form, AS_USUAL)
    assert "\n" not in line
    assert "ä" in line


@pytest.mark.parametrize("tag", ["<think>", "</think>", "</THINK>", "< / think >", "<think\n>"])
def test_a_models_own_think_tags_neither_open_nor_close_the_block(tag: str) -> None:
    thoughts = [record().thoughts[0].model_copy(update={"text": f"So {tag} help."})]
    made = record(thoughts=thoughts, response=f"Yes {tag} no.")
    [line] = RECORDS.lines([made], "sft", BARE)
    content = json.loads(line)["messages"][1]["content"]
    assert content.startswith("<think>\nSo (")
    assert content.lower().count("<think>") == content.lower().count("</think>") == 1
    assert tag not in content.replace("<think>\n", "", 1).replace("\n</think>", "", 1)


@pytest.mark.parametrize("form", FORMATS)
def test_hugging_face_datasets_load_every_form(form: str, tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    file = tmp_path / "export.jsonl"
    write_lines(file, RECORDS.lines([record("a"), record("b")], form, AS_USUAL))
    loaded = datasets.load_dataset(
        "json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 2
    assert set(loaded.column_names) == set(json.loads(file.read_text().splitlines()[0]))


# Files -------------------------------------------------------------------------------------------


def test_a_file_is_written_whole_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("old")
    assert write_lines(file, ["a", "b"]) == 2
    assert file.read_text() == "a\nb\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_followed(tmp_path: Path) -> None:
    file, link = tmp_path / "export.jsonl", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    write_lines(link, ["a"])
    assert link.is_symlink()
    assert file.read_text() == "a\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no such files")
def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert write_lines(pipe, ["a", "b"]) == 2
    assert os.read(reader, 99) == b"a\nb\n"
    os.close(reader)
    assert pipe.is_fifo()


def test_an_export_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text("old")

    def lines() -> Iterator[str]:
        yield "new"
        raise JournalError("The journal is damaged.", "Restore it.")

    with pytest.raises(JournalError, match="is damaged"):
        write_lines(file, lines())
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/export\.jsonl cannot be written"):
        write_lines(tmp_path / "none" / "export.jsonl", ["a"])
    with pytest.raises(InputError, match="cannot be written"):
        write_lines(tmp_path, ["a"])


def test_a_full_disk_is_no_fault_of_the_name(tmp_path: Path) -> None:
    def lines() -> Iterator[str]:
        yield "new"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(JournalError, match="No space left"):
        write_lines(tmp_path / "export.jsonl", lines())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", ["<reasoning>", "[THINK]"])
def test_a_mark_of_the_wrapping_in_the_text_is_written_otherwise(mark: str) -> None:
    closing = f"{mark[0]}/{mark[1:]}"
    wrapping = Wrapping(f"{mark}{{thoughts}}{closing}{{response}}", citations=False)
    said = wrapping.message_of(
        [record().thoughts[0]], f"It ends with {closing}, and begins with {mark}."
    )
    assert said.count(mark) == said.count(closing) == 1
