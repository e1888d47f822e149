"""What the journal promises: nothing that it stored is lost, and it gives back what it stored."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal, ModelSpend, Transaction
from orchestration.journal.schema import COLUMNS, Value, checksum
from orchestration.journal.writer import Writer
from orchestration.prompts.reader import Prompt
from orchestration.runs.replay import load_reply
from tests.orchestration.journals import (
    answer,
    change,
    fill,
    ids,
    opened,
    reopen,
    store_reply,
    take_in,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


async def finish(
    journal: Journal, number: int, name: str, outcome: str = "completed", ending: str = "done/1"
) -> None:
    """Stores a result with that id."""
    text = json.dumps({"id": name})
    await journal.write(lambda tx: tx.store_result(number, outcome, ending, text))


def returning(_: Transaction, value: int) -> int:
    return value


def found(texts: Any) -> list[str]:
    return [json.loads(text)["id"] for text in texts]


def results(journal: Journal, outcome: str | None = None) -> list[str]:
    return found(text for _, text in journal.results(outcome))


# Durability --------------------------------------------------------------------------------------


async def test_a_reply_and_a_result_are_on_disk_once_they_are_stored(path: Path) -> None:
    async with opened(path, "a") as journal:
        for storing in (store_reply(journal, 0, b"key", answer()), finish(journal, 0, "a")):
            await storing
            with closing(Journal(path)) as other:
                calls, done = len(list(other.replies(0))), len(results(other))
    assert (calls, done) == (1, 1)


def test_nothing_that_was_stored_is_lost_when_the_process_is_killed(path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, signal
        from pathlib import Path
        from tests.orchestration.journal.test_journal import finish
        from tests.orchestration.journals import answer, opened, store_reply
        async def main():
            names = [f"p{{n}}" for n in range(20)]
            async with opened(Path({str(path)!r}), *names) as journal:
                for number, name in enumerate(names):
                    await store_reply(journal, number, b"key", answer(name))
                await asyncio.gather(
                    *(finish(journal, n, name) for n, name in enumerate(names))
                )
                os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    died = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert ids(path) == [f"p{n}" for n in range(20)]
    with closing(Journal(path)) as journal:
        texts = [load_reply(dict(journal.replies(n))[b"key"]).text for n in range(20)]
        assert texts == ids(path)
        assert journal.spend()[0].calls == 20
    Journal(path, write=True).close()  # the lock did not outlive the process


def test_the_journal_syncs_to_disk_with_every_commit(path: Path) -> None:
    journal = Journal(path, write=True)
    connection = journal._connect_to_write()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    journal.close()


async def test_changes_that_wait_together_are_committed_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    real = Writer._commit

    def count(self: Writer, changes: list[Any]) -> Any:
        batches.append(len(changes))
        return real(self, changes)

    async with opened(path, "a") as journal:
        monkeypatch.setattr(Writer, "_commit", count)
        await asyncio.gather(*(store_reply(journal, 0, b"%d" % n, answer()) for n in range(200)))
        assert sum(batches) == 200
        assert len(batches) < 100
        assert len(list(journal.replies(0))) == 200


async def test_a_change_is_committed_even_if_its_caller_is_cancelled(path: Path) -> None:
    async with opened(path, "a") as journal:
        storing = asyncio.create_task(finish(journal, 0, "a"))
        await asyncio.sleep(0)
        storing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await storing
    assert ids(path) == ["a"]


async def test_a_change_that_fails_rolls_back_alone(path: Path) -> None:
    def half(tx: Transaction) -> None:
        tx.store_result(0, "failed", "failed/0", "{}")
        raise ZeroDivisionError

    async with opened(path, "a", "b", "c") as journal:
        done = await asyncio.gather(
            finish(journal, 1, "b"),
            journal.write(half),
            finish(journal, 2, "c"),
            return_exceptions=True,
        )
        assert [type(each) for each in done] == [type(None), ZeroDivisionError, type(None)]
        assert journal.outcomes() == {"completed": 2}


async def test_a_change_gives_its_result_to_its_caller(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        assert await journal.write(lambda tx: tx.next_number()) == 2
        assert journal.submit(lambda tx: tx.source_of("b")).result() == 1


def test_threads_and_event_loops_write_at_the_same_time(path: Path) -> None:
    """Each gets its own result, and all is stored."""
    found: dict[int, list[int]] = {}

    async def many(thread: int, journal: Journal) -> None:
        for n in range(25):
            await store_reply(journal, thread, b"%d" % n, answer(), model=f"m{thread}")
        found[thread] = [await journal.write(change(returning, n)) for n in range(25)]

    with closing(Journal(path, write=True)) as journal:
        threads = [threading.Thread(target=asyncio.run, args=(many(n, journal),)) for n in range(6)]
        for thread in threads:
            thread.start()
        for n in range(100, 125):
            assert journal.submit(change(returning, n)).result() == n
        for thread in threads:
            thread.join()
        assert found == {n: list(range(25)) for n in range(6)}
        assert [(s.model, s.calls) for s in journal.spend()] == [(f"m{n}", 25) for n in range(6)]
        assert [len(list(journal.replies(n))) for n in range(6)] == [25] * 6


# Rows --------------------------------------------------------------------------------------------


def test_every_table_but_the_index_has_a_checksum_over_all_columns(path: Path) -> None:
    Journal(path, write=True).close()
    with closing(sqlite3.connect(path)) as db:
        tables = {
            name: tuple(row[1] for row in db.execute(f"PRAGMA table_info({name})"))
            for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        }
    assert tables.pop("buckets")
    assert tables == {name: (*columns, "checksum") for name, columns in COLUMNS.items()}


def test_a_checksum_tells_tables_columns_and_types_apart() -> None:
    rows: list[tuple[Value, ...]] = [
        (1, "23"),
        (12, "3"),
        (1, 23),
        ("1", "23"),
        (1, b"23"),
        (1, "23", ""),
        (1, None),
    ]
    rows.append((1, "None"))
    assert len({checksum("notes", *row) for row in rows} | {checksum("meta", 1, "23")}) == 9
    # As it is on disk: another value here would make every journal damaged.
    assert checksum("notes", "a", 1, b"\0", None) == 3_005_352_672


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
        await store_reply(journal, 0, b"one", given)
        await store_reply(journal, 0, b"two", answer("plain"))
        await store_reply(journal, 1, b"one", answer("of another prompt"))
        replies = {key: load_reply(text) for key, text in journal.replies(0)}
        assert replies == {b"one": given, b"two": answer("plain")}
        assert not list(journal.replies(2))


async def test_spend_is_summed_up_by_model_and_price(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        for chat in (0, 1):
            await store_reply(journal, chat, b"1", answer(prompt=100), price="cheap")
        other = answer(prompt=7, completion=1, cached=0)
        await store_reply(journal, 0, b"2", other, price="dear")
        await store_reply(journal, 0, b"3", answer(prompt=5), model="n", price="cheap")
        assert journal.spend() == [
            ModelSpend("m", "cheap", 2, 200, 20, 80),
            ModelSpend("m", "dear", 1, 7, 1, 0),
            ModelSpend("n", "cheap", 1, 5, 10, 40),
        ]


async def test_a_retry_voids_the_replies_of_the_last_turn(path: Path) -> None:
    keys = [bytes([n]) * 16 for n in range(3)]
    async with opened(path, "a", "b") as journal:
        chats = [prompt.chat for prompt, _ in journal.prompts()]
        for chat in chats:
            for key in keys:
                await store_reply(journal, chat, key, answer())
        for number, outcome in enumerate(("malformed", "failed")):
            await journal.write(
                change(Transaction.store_result, number, outcome, "", "{}", keys[1:])
            )
        retried = await journal.write(lambda tx: tx.requeue(["malformed", "failed"], ["malformed"]))
        assert retried == 2
        assert [[key for key, _ in journal.replies(chat)] for chat in chats] == [keys[:1], keys]
        assert [(p.number, p.tries) for p in journal.pending(None, -1, 9)] == [(0, 1), (1, 1)]
        assert journal.spend()[0].calls == 6, "they were paid for"


# Prompts -----------------------------------------------------------------------------------------


async def test_prompts_are_pending_in_their_order_until_they_have_an_outcome(path: Path) -> None:
    async with opened(path) as journal:
        given = [Prompt("x", "First?", {"n": 1}), Prompt("a", "Second?"), Prompt("m", "Third?")]
        source = (await take_in(journal, iter(given))).number
        pending = journal.pending(source, -1, 2)
        assert [(p.number, p.id, p.text, p.metadata, p.tries) for p in pending] == [
            (0, "x", "First?", {"n": 1}, 0),
            (1, "a", "Second?", {}, 0),
        ]
        await finish(journal, 1, "a")
        assert [p.id for p in journal.pending(source, -1, 9)] == ["x", "m"]
        assert [p.id for p in journal.pending(source, 0, 9)] == ["m"]
        assert journal.pending(source + 1, -1, 9) == []
        assert (journal.count_prompts(), journal.count_pending()) == (3, 2)
        assert [(p.id, outcome) for p, outcome in journal.prompts()] == [
            ("x", None),
            ("a", "completed"),
            ("m", None),
        ]


async def test_reopened_prompts_are_those_of_an_outcome_or_all(path: Path) -> None:
    async with opened(path, "a", "b", "c") as journal:
        for number, outcome in enumerate(("completed", "over_budget", "failed")):
            await finish(journal, number, "x", outcome)
        await journal.write(lambda tx: tx.reopen("over_budget"))
        assert journal.outcomes() == {"completed": 1, "failed": 1}
        await journal.write(lambda tx: tx.reopen())
        assert (journal.outcomes().total(), journal.count_pending(1)) == (0, 3)


# Results -----------------------------------------------------------------------------------------


async def test_others_read_while_it_is_written(path: Path) -> None:
    async with opened(path, "a", "b", "c") as writing:
        await finish(writing, 0, "a")
        with closing(Journal(path)) as reading:
            rows = reading.results()
            await finish(writing, 1, "b")
            await finish(writing, 2, "c", "failed")
            assert found([next(rows)[1]]) == ["a"]
            rows.close()  # type: ignore[attr-defined]
            assert reading.outcomes() == {"completed": 2, "failed": 1}


async def test_results_come_in_the_order_of_their_prompts(path: Path) -> None:
    async with opened(path, "p0", "p1", "p2", "p3") as journal:
        for number in (2, 0, 3, 1):
            await finish(journal, number, f"p{number}")
        assert results(journal) == ["p0", "p1", "p2", "p3"]


async def test_results_are_read_by_outcome_number_digest_and_id(path: Path) -> None:
    async with opened(path, "a", "b", "c") as journal:
        await finish(journal, 0, "a", ending="consensus/2")
        await finish(journal, 1, "b", "failed")
        assert results(journal, "failed") == ["b"]
        assert journal.result(0) == '{"id": "a"}'
        assert journal.result(2) is None
        digests = [Prompt("", f"What of {name}?").digest for name in "abc"]
        assert [journal.completed_result(each) for each in digests] == ['{"id": "a"}', None, None]
        assert found(journal.find_results("b", 9)) == ["b"]
        assert journal.endings() == {"consensus/2": 1}
        assert [prompt.id for prompt in journal.completed()] == ["a"]


async def test_a_result_is_found_by_its_id_or_the_start_of_it(path: Path) -> None:
    names = ["ab", "abc", "abd", "ac", "a%", "a\U0010ffff", "b"]
    async with opened(path, *names) as journal:
        for number, name in enumerate(names):
            await finish(journal, number, name)

        def starts(start: str, limit: int = 9) -> list[str]:
            return found(journal.find_results(start, limit))

        assert starts("ab") == ["ab"], "a whole id comes before the start of another"
        assert starts("abc") == ["abc"]
        assert starts("a%") == ["a%"]
        assert starts("a", 3) == ["ab", "abc", "abd"]
        assert starts("a\U0010ffff") == ["a\U0010ffff"]
        assert starts("%") == starts("") == starts("x") == []


@pytest.mark.parametrize("odd", ["a b/c", "'; DROP TABLE results; --", "-x", "\x1b[31m", "ä%_"])
def test_any_text_can_be_an_id(odd: str, path: Path) -> None:
    fill(path, odd)
    assert ids(path) == [odd]


async def test_a_result_replaces_an_earlier_one_of_its_prompt(path: Path) -> None:
    async with opened(path, "a") as journal:
        await finish(journal, 0, "old", "failed")
        await finish(journal, 0, "new")
        assert results(journal) == ["new"]
        assert journal.outcomes() == {"completed": 1}


def test_the_result_of_a_reopened_prompt_does_not_count(path: Path) -> None:
    fill(path, "a", "b")
    reopen(path, "id = 'a'")
    with closing(Journal(path)) as journal:
        assert results(journal) == ["b"]
        assert journal.result(0) is None
        assert journal.find_results("a", 9) == []


# Notes and the index of near-duplicates ----------------------------------------------------------


async def test_notes_are_read_by_topic_and_scope_in_their_order(path: Path) -> None:
    async with opened(path, "a", "b") as journal:
        for scope, number, data in (("s", 1, "x"), ("t", 0, "y"), ("s", 0, "z")):
            await journal.write(change(Transaction.add_note, "lessons", scope, number, data))
        await journal.write(lambda tx: tx.add_note("other", "s", 0, "w"))
        assert list(journal.notes("lessons", "s")) == ["x", "z"]
        assert list(journal.notes("other", "s")) == ["w"]
        assert list(journal.notes("none", "s")) == []
        assert journal.note_of("lessons", "s", 0) == "z"
        assert journal.note_of("lessons", "t", 0) == "y"
        assert journal.note_of("lessons", "t", 1) is None


async def test_buckets_give_the_newest_results_and_those_without_one(path: Path) -> None:
    async with opened(path, "a", "b", "c") as journal:
        for number, name in enumerate("abc"):
            await finish(journal, number, name)
        for number in (0, 1):
            await journal.write(
                change(Transaction.add_to_buckets, number, [5, 5 + number, -(2**63)])
            )
        assert list(journal.numbers_in([5, 6], newest=9)) == [1, 0, 1]
        assert list(journal.numbers_in([-(2**63)], newest=1)) == [1]
        assert [number for number, _ in journal.unindexed()] == [2]
        await journal.write(lambda tx: tx.clear_buckets())
        assert [number for number, _ in journal.unindexed()] == [0, 1, 2]
