"""What the journal promises: nothing that it took is lost, and what it gives is what it took."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.turns import Usage
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.schema import Spent
from orchestration.journal.writer import Writer
from orchestration.prompts import Prompt
from orchestration.record import CoTRecord
from tests.orchestration.journals import answer, fill, ids, opened, take_in
from tests.orchestration.records import failed, record

record()  # made once, outside of any event loop, since it takes a chat


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


# Durability --------------------------------------------------------------------------------------


async def test_a_reply_and_a_record_are_on_disk_once_they_are_kept(path: Path) -> None:
    async with opened(path, "a") as journal:
        for keep in (
            journal.keep_call(0, b"key", "m", "", answer()),
            journal.keep_record(0, record("a")),
        ):
            await keep
            with closing(Journal(path)) as other:
                calls, records = len(other.answers(0)), len(list(other.records()))
    assert (calls, records) == (1, 1)


def test_nothing_that_was_kept_is_lost_when_the_process_is_killed(path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, signal
        from pathlib import Path
        from tests.orchestration.journals import answer, opened
        from tests.orchestration.records import record
        record()
        async def main():
            names = [f"p{{n}}" for n in range(20)]
            async with opened(Path({str(path)!r}), *names) as journal:
                for number, name in enumerate(names):
                    await journal.keep_call(number, b"key", "m", "", answer(name))
                await asyncio.gather(
                    *(journal.keep_record(n, record(name)) for n, name in enumerate(names))
                )
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    died = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert ids(path) == [f"p{n}" for n in range(20)]
    with closing(Journal(path)) as journal:
        assert [journal.answers(n)[b"key"].text for n in range(20)] == ids(path)
        assert journal.spend()[0].calls == 20


def test_the_journal_syncs_to_disk_with_every_commit(path: Path) -> None:
    journal = Journal(path, write=True)
    connection = journal._connect_to_write()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    journal.close()


async def test_what_waits_together_is_committed_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    real = Writer._commit

    def count(self: Writer, changes: list[Any]) -> None:
        batches.append(len(changes))
        real(self, changes)

    async with opened(path, "a") as journal:
        monkeypatch.setattr(Writer, "_commit", count)
        await asyncio.gather(
            *(journal.keep_call(0, b"%d" % n, "m", "", answer()) for n in range(200))
        )
        assert sum(batches) == 200
        assert len(batches) < 100
        assert len(journal.answers(0)) == 200


async def test_what_a_cancelled_caller_was_waiting_for_is_kept_all_the_same(path: Path) -> None:
    async with opened(path, "a") as journal:
        keeping = asyncio.create_task(journal.keep_record(0, record("a")))
        await asyncio.sleep(0)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
    assert ids(path) == ["a"]


async def test_a_change_that_fails_rolls_back_alone(path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        db.execute("UPDATE prompts SET outcome = 'failed' WHERE number = 0")
        raise ZeroDivisionError

    async with opened(path, "a", "b", "c") as journal:
        results = await asyncio.gather(
            journal.keep_record(1, record("b")),
            journal.write(half),
            journal.keep_record(2, record("c")),
            return_exceptions=True,
        )
        assert [type(each) for each in results] == [type(None), ZeroDivisionError, type(None)]
        assert journal.outcomes() == {"completed": 2}


async def test_a_change_gives_back_what_it_found(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        found = await journal.write(lambda db: db.execute("SELECT id FROM prompts").fetchall())
        assert found == [("a",), ("b",)]


# Replies -----------------------------------------------------------------------------------------


async def test_a_reply_is_given_back_as_it_was(path: Path) -> None:
    odd = 'Zeile\u2028 "quotes" \\ \x00 \N{PILE OF POO} \ud83d half a character'
    given = replace(
        answer(odd, prompt=70, completion=7, cached=50),
        finish_reason="content_filter",
        refusal="No.",
        served_model="m-2025",
        json_as="json_object",
        attempts=3,
    )
    async with opened(path, "a", "b") as journal:
        await journal.keep_call(0, b"one", "m", "", given)
        await journal.keep_call(0, b"two", "m", "", answer("plain"))
        await journal.keep_call(1, b"one", "m", "", answer("of another prompt"))
        assert journal.answers(0) == {b"one": given, b"two": answer("plain")}
        assert journal.answers(2) == {}


async def test_what_was_spent_is_summed_up_by_model_and_price(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        for prompt in (0, 1):
            await journal.keep_call(prompt, b"1", "m", "cheap", answer(prompt=100, completion=10))
        await journal.keep_call(0, b"2", "m", "dear", answer(prompt=7, completion=1, cached=0))
        await journal.keep_call(0, b"3", "n", "cheap", answer(prompt=5, completion=2, cached=1))
        usages = [(200, 20, 80), (7, 1, 0), (5, 2, 1)]
        assert journal.spend() == [
            Spent(model, price, calls, Usage(prompt_tokens=p, completion_tokens=c, cached_tokens=x))
            for (model, price, calls), (p, c, x) in zip(
                [("m", "cheap", 2), ("m", "dear", 1), ("n", "cheap", 1)], usages, strict=True
            )
        ]


# Prompts -----------------------------------------------------------------------------------------


async def test_prompts_wait_in_their_order_until_they_have_an_outcome(path: Path) -> None:
    async with opened(path) as journal:
        given = [Prompt("x", "First?", {"n": 1}), Prompt("a", "Second?"), Prompt("m", "Third?")]
        intake = await take_in(journal, iter(given))
        waiting = journal.waiting(intake.number, -1, 2)
        assert [(w.number, w.id, w.text, w.metadata, w.tries) for w in waiting] == [
            (0, "x", "First?", {"n": 1}, 0),
            (1, "a", "Second?", {}, 0),
        ]
        await journal.keep_record(1, record("a"))
        assert [w.id for w in journal.waiting(intake.number, -1, 9)] == ["x", "m"]
        assert [w.id for w in journal.waiting(intake.number, 0, 9)] == ["m"]
        assert journal.waiting(intake.number + 1, -1, 9) == []
        assert (journal.count_prompts(), journal.count_waiting()) == (3, 2)
        assert [(w.id, outcome) for w, outcome in journal.prompts()] == [
            ("x", None),
            ("a", "completed"),
            ("m", None),
        ]


# Records -----------------------------------------------------------------------------------------


async def test_others_read_while_it_is_written(path: Path) -> None:
    async with opened(path, "a", "b", "c") as writing:
        await writing.keep_record(0, record("a"))
        with closing(Journal(path)) as reading:
            records = reading.records()
            await writing.keep_record(1, record("b"))
            await writing.keep_record(2, failed("c"))
            assert next(records).id == "a"
            records.close()  # type: ignore[attr-defined]
            assert reading.outcomes() == {"completed": 2, "failed": 1}


async def test_records_come_in_the_order_of_their_prompts_not_of_their_end(path: Path) -> None:
    async with opened(path, "p0", "p1", "p2", "p3") as journal:
        for number in (2, 0, 3, 1):
            await journal.keep_record(number, record(f"p{number}"))
        assert [each.id for each in journal.records()] == ["p0", "p1", "p2", "p3"]


async def test_records_can_be_had_by_outcome_number_and_id_as_they_were(path: Path) -> None:
    async with opened(path, "a", "b", "c") as journal:
        await journal.keep_record(0, record("a"))
        await journal.keep_record(1, failed("b"))
        assert [each.id for each in journal.records("failed")] == ["b"]
        assert journal.record(0) == record("a")
        assert journal.record(2) is None
        assert journal.find(CoTRecord, "a", 9) == [record("a")]
        assert journal.reasons() == {"consensus": 1}
        assert journal.ways_to("consensus") == {1: 1}


async def test_a_record_is_found_by_its_id_or_the_start_of_it(path: Path) -> None:
    names = ["ab", "abc", "abd", "ac", "a%", "a\U0010ffff", "b"]
    async with opened(path, *names) as journal:
        for number, name in enumerate(names):
            await journal.keep_record(number, record(name))

        def found(start: str, limit: int = 9) -> list[str]:
            return [each.id for each in journal.find(CoTRecord, start, limit)]

        assert found("ab") == ["ab"], "the whole id counts before the start of another"
        assert found("abc") == ["abc"]
        assert found("a%") == ["a%"]
        assert found("a", 3) == ["ab", "abc", "abd"]
        assert found("a\U0010ffff") == ["a\U0010ffff"]
        assert found("%") == found("") == found("x") == []


@pytest.mark.parametrize("odd", ["a b/c", "'; DROP TABLE records; --", "-x", "\x1b[31m", "ä%_"])
def test_any_text_can_be_an_id(odd: str, path: Path) -> None:
    fill(path, odd)
    assert ids(path) == [odd]


async def test_a_record_takes_the_place_of_an_earlier_one_of_its_prompt(path: Path) -> None:
    async with opened(path, "a") as journal:
        await journal.keep_record(0, failed("a"))
        await journal.keep_record(0, record("a"))
        assert [each.outcome for each in journal.records()] == ["completed"]
        assert journal.outcomes() == {"completed": 1}


async def test_the_record_of_a_prompt_that_is_taken_up_again_does_not_count(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        await journal.keep_record(0, record("a"))
        await journal.keep_record(1, record("b"))
        await journal.write(
            lambda db: db.execute("UPDATE prompts SET outcome = NULL WHERE id = 'a'")
        )
        assert [each.id for each in journal.records()] == ["b"]
        assert journal.record(0) is None
        assert journal.find(CoTRecord, "a", 9) == []
