"""What the intake promises: every prompt once, in the journal and in order, whatever the source."""

from __future__ import annotations

import json
import os
import threading
import types
import unicodedata
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import Journal, Transaction
from orchestration.prompts.reader import Prompt, PromptReader
from orchestration.runs.intake import Intake, Source
from policies import InputError
from tests.orchestration.journals import (
    change,
    handed_out,
    kept,
    named,
    store_result,
    take_file,
    take_in,
)
from tests.orchestration.prompt_files import write, write_jsonl
from tests.orchestration.records import record
from tests.orchestration.run_helpers import until

record()  # made once, outside of any event loop, since it takes a chat


# Every prompt once -------------------------------------------------------------------------------


async def test_prompts_are_handed_out_as_they_were_read(journal: Journal, tmp_path: Path) -> None:
    rows = [{"prompt": f"Number {n}?", "id": f"i{n}", "kind": "x"} for n in range(3)]
    file = write_jsonl(tmp_path / "p.jsonl", *rows)
    intake = await take_file(journal, file, id_column="id")
    found = await handed_out(intake)
    assert [(w.number, w.id, w.text, w.metadata) for w in found] == [
        (n, f"i{n}", f"Number {n}?", {"kind": "x"}) for n in range(3)
    ]
    assert intake.counts.taken == intake.new_pending == 3


async def test_what_is_left_out_is_counted_and_named_in_the_order_of_its_rows(
    journal: Journal, tmp_path: Path
) -> None:
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    values = [None, nfc, " ", nfd, f" {nfc}\n", "e", ""]
    rows = [{"prompt": value, "n": n} for n, value in enumerate(values)]
    intake = await take_file(journal, write_jsonl(tmp_path / "p.jsonl", *rows))
    assert [(w.text, w.metadata["n"]) for w in await handed_out(intake)] == [(nfc, 1), ("e", 5)]
    counts = intake.counts
    assert (counts.taken, counts.duplicates, counts.empty) == (2, 2, 3)
    same = "same text as an earlier prompt"
    assert counts.left_out == [
        (1, "empty prompt"),
        (3, "empty prompt"),
        (4, same),
        (5, same),
        (7, "empty prompt"),
    ]


async def test_only_the_first_few_rows_left_out_are_named(journal: Journal, tmp_path: Path) -> None:
    rows = [{"prompt": "a"}] + [{"prompt": "a"}, {"prompt": ""}] * 50
    intake = await take_file(journal, write_jsonl(tmp_path / "p.jsonl", *rows))
    assert (intake.counts.duplicates, intake.counts.empty) == (50, 50)
    assert [row for row, _ in intake.counts.left_out] == list(range(2, 12))


async def test_one_id_with_the_same_text_is_a_duplicate(journal: Journal, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", *[{"prompt": "a", "id": "x"}] * 2)
    intake = await take_file(journal, file, id_column="id")
    assert (kept(journal), intake.counts.duplicates) == (["x"], 1)


async def test_two_prompts_with_one_id_are_an_error_that_names_the_row(
    journal: Journal, tmp_path: Path
) -> None:
    rows = [{"prompt": text, "id": name} for text, name in ("ax", "by", "cx", "dz")]
    file = write_jsonl(tmp_path / "p.jsonl", *rows)
    with pytest.raises(InputError, match=r"p\.jsonl:3: the id 'x' .* too.*--id-column"):
        await take_file(journal, file, id_column="id")
    assert kept(journal) == ["x", "y"], "what came before is kept"


async def test_made_ids_that_collide_are_an_error(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weak(data: bytes) -> Any:
        return types.SimpleNamespace(digest=lambda: bytes(8) + data.ljust(24))

    monkeypatch.setattr("orchestration.prompts.reader.hashlib.sha256", weak)
    with pytest.raises(
        InputError, match=r"p\.txt:2: the id 'p0000000000000000' is that of another"
    ):
        await take_file(journal, write(tmp_path / "p.txt", "a\nb\n"))


async def test_an_id_of_the_run_may_not_come_back_with_another_text(journal: Journal) -> None:
    await take_in(journal, named("a", "b"))
    with pytest.raises(InputError, match="'b' has another text than in the run") as caught:
        await take_in(journal, iter([Prompt("c", "New?"), Prompt("b", "Another?")]), Source("2"))
    assert "a new id, or name another folder with --out" in caught.value.remedy
    assert kept(journal) == ["a", "b", "c"]


async def test_a_prompt_in_another_unicode_form_is_the_same_prompt(journal: Journal) -> None:
    await take_in(journal, iter([Prompt("p", "Un caf\u00e9?")]))
    again = await take_in(journal, iter([Prompt("p", "Un cafe\u0301?")]), Source("2"))
    assert [waiting.text for waiting in await handed_out(again)] == ["Un caf\u00e9?"]


async def test_metadata_goes_through_the_journal_as_it_was(journal: Journal) -> None:
    odd = {"é": [1, None, {"x": "\u2028\x00"}], "n": 1.5}
    intake = await take_in(journal, iter([Prompt("a", "A?", json.loads(json.dumps(odd)))]))
    [waiting] = await handed_out(intake)
    assert waiting.metadata == odd


# The limit ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 99])
async def test_the_limit_counts_prompts_taken(limit: int, journal: Journal, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "p.jsonl", *[{"prompt": text} for text in ("a", "a", "", *"bcd")])
    intake = await take_file(journal, file, limit=limit)
    expected = ["a", "b", "c", "d"][:limit]
    assert [w.text for w in await handed_out(intake)] == expected
    assert intake.counts.taken == journal.count_prompts() == len(expected)


async def test_a_row_that_is_broken_beyond_the_limit_hurts_nobody(
    journal: Journal, tmp_path: Path
) -> None:
    file = write(tmp_path / "p.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\nbroken\n')
    for limit in (1, 2):
        intake = await take_file(journal, file, limit=limit)
        assert len(await handed_out(intake)) == limit


async def test_a_higher_limit_adds_what_it_lets_in_and_a_lower_one_hands_out_less(
    journal: Journal, tmp_path: Path
) -> None:
    file = write(tmp_path / "p.txt", "a\nb\nc\nd\n")
    for limit in (2, 3, 1):
        intake = await take_file(journal, file, limit=limit)
        assert [w.number for w in await handed_out(intake)] == list(range(limit))
        assert intake.counts.taken == limit
    assert journal.count_prompts() == 3


# Reading once, reading again ---------------------------------------------------------------------


def untouched() -> Iterator[Prompt]:
    raise AssertionError("it was read again")
    yield


async def test_an_unchanged_source_is_read_once(journal: Journal, tmp_path: Path) -> None:
    file = write(tmp_path / "p.txt", "a\na\nb\n")
    first = await take_file(journal, file)
    again = await take_in(journal, untouched(), Source(file))
    assert again.counts == first.counts
    assert again.number == first.number
    assert len(await handed_out(again)) == 2


async def test_prompts_that_have_an_outcome_are_not_handed_out(
    journal: Journal, tmp_path: Path
) -> None:
    file = write(tmp_path / "p.txt", "a\nb\nc\n")
    await take_file(journal, file)
    await store_result(journal, 1, record(kept(journal)[1]))
    again = await take_in(journal, untouched(), Source(file))
    assert [w.text for w in await handed_out(again)] == ["a", "c"]


@pytest.mark.parametrize("what", ["size", "time", "column", "limit"])
async def test_a_source_that_may_have_changed_is_read_again_for_what_is_new(
    what: str, journal: Journal, tmp_path: Path
) -> None:
    file = write(tmp_path / "p.jsonl", '{"prompt": "a", "x": "b"}\n')
    await take_file(journal, file)
    options: dict[str, Any] = {}
    if what == "size":
        write(tmp_path / "p.jsonl", '{"prompt": "new"}\n{"prompt": "a", "x": "b"}\n')
        expected = ["a", "new"]
    elif what == "time":
        write(tmp_path / "p.jsonl", '{"prompt": "b", "x": "b"}\n')
        os.utime(file, (1, 1))
        expected = ["b"]
    elif what == "column":
        options, expected = {"column": "x"}, ["b"]
    else:
        options, expected = {"limit": 5}, ["a"]
    again = await take_file(journal, file, **options)
    assert sorted(w.text for w in await handed_out(again)) == expected
    assert again.counts.taken == len(expected)
    assert journal.count_prompts() == len({"a", *expected})


async def test_a_source_that_was_not_read_to_its_end_is_read_again(journal: Journal) -> None:
    def broken_off() -> Iterator[Prompt]:
        yield from named("a", "b")
        raise InputError("The pipe broke.", "Mend it.")

    with pytest.raises(InputError, match="The pipe broke"):
        await take_in(journal, broken_off())
    assert kept(journal) == ["a", "b"]
    again = await take_in(journal, named("a", "b", "c"))
    assert (again.counts.taken, again.counts.duplicates) == (3, 0)
    assert [waiting.id for waiting in await handed_out(again)] == ["a", "b", "c"]


async def test_a_file_of_which_only_the_beginning_is_known_is_read_again(
    journal: Journal, tmp_path: Path
) -> None:
    file = write(tmp_path / "p.txt", "a\nb\nc\n")
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from islice(PromptReader(file), 2)
        more.wait(10)

    intake = Intake(journal, Source(file), slow(), tmp_path)
    await until(lambda: journal.count_prompts() == 2)
    intake.close()
    more.set()
    again = await take_file(journal, file)
    assert [waiting.text for waiting in await handed_out(again)] == ["a", "b", "c"]


async def test_two_sources_join_one_run(journal: Journal) -> None:
    await take_in(journal, named("a", "b", "c"), Source("first"))
    second = await take_in(journal, named("x", "b", "y"), Source("second"))
    assert kept(journal) == ["a", "b", "c", "x", "y"]
    assert (second.counts.taken, second.counts.duplicates) == (3, 0)
    # What only the first one names is not this session's business.
    assert [waiting.id for waiting in await handed_out(second)] == ["b", "x", "y"]
    first = await take_in(journal, named("a", "b", "c"), Source("first"))
    assert [waiting.id for waiting in await handed_out(first)] == ["a", "b", "c"]


async def test_without_a_source_those_of_all_sources_that_are_to_be_retried_are_handed_out(
    journal: Journal,
) -> None:
    await take_in(journal, named("a", "b"), Source("first"))
    await take_in(journal, named("c", "d"), Source("second"))
    for number, outcome in enumerate(("failed", "refused", "failed")):
        await journal.write(change(Transaction.store_result, number, outcome, "", "{}"))
    await journal.write(lambda tx: tx.requeue(["failed"], []))
    again = await take_in(journal, untouched(), None)
    assert [waiting.id for waiting in await handed_out(again)] == ["a", "c"]
    assert (again.complete, again.known, again.counts.taken) == (True, True, 4)
