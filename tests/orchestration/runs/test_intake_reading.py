"""What the intake promises while a source is read: nobody waits for it, and memory is bounded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal, JournalError, Transaction
from orchestration.prompts.reader import Prompt
from orchestration.runs import intake as module
from orchestration.runs.intake import Intake
from policies import InputError
from tests.orchestration.journals import (
    handed_out,
    kept,
    named,
    opened,
    reading_from,
    store_result,
    take_file,
)
from tests.orchestration.prompt_files import write
from tests.orchestration.records import record

record()  # made once, outside of any event loop, since it takes a chat


# While it is read --------------------------------------------------------------------------------


async def test_a_source_that_blocks_blocks_nobody_else(journal: Journal, no_hang: None) -> None:
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from named("a")
        more.wait(10)
        yield from named("b")

    async with reading_from(journal, slow()) as intake:
        first = await intake.next()
        assert first is not None
        assert first.id == "a"
        second = asyncio.create_task(intake.next())
        await store_result(journal, 0, record("a"))
        assert not second.done()
        assert not intake.complete
        more.set()
        assert (await second or first).id == "b"
        assert await intake.next() is None
        assert intake.complete


async def test_a_prompt_of_an_earlier_source_is_handed_out_however_late_it_is_read(
    journal: Journal, no_hang: None
) -> None:
    async with reading_from(journal, named("old", "older")) as intake:
        await intake.all_read()
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from named("new")
        more.wait(10)
        yield from named("older", "old", "newer")

    async with reading_from(journal, slow()) as intake:
        first = await intake.next()
        assert first is not None
        assert first.id == "new", "its number is the highest so far"
        more.set()
        assert {each.id for each in await handed_out(intake)} == {"old", "older", "newer"}


@pytest.mark.parametrize("waiter", ["next", "all_read"])
async def test_closing_ends_the_wait_for_a_source_that_blocks(
    waiter: str, journal: Journal, no_hang: None
) -> None:
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        more.wait(10)
        yield from named("a")

    async with reading_from(journal, slow()) as intake:
        waiting = asyncio.create_task(getattr(intake, waiter)())
        await asyncio.sleep(0)
        intake.close()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(waiting, 0.3)
        assert not waiting.cancelled(), "it returned by itself"
    more.set()


async def test_the_journal_can_be_closed_while_a_source_blocks(
    tmp_path: Path, no_hang: None
) -> None:
    more = threading.Event()
    ended = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from named("a")
        more.wait(10)
        ended.set()
        yield from named("b")

    async with (
        opened(tmp_path / FILE_NAME) as journal,
        reading_from(journal, slow()) as intake,
    ):
        assert await intake.next() is not None
    more.set()
    assert await asyncio.to_thread(ended.wait, 5)
    async with opened(tmp_path / FILE_NAME) as journal:
        assert kept(journal) == ["a"]


async def test_what_came_before_a_broken_row_is_kept(journal: Journal, tmp_path: Path) -> None:
    file = write(
        tmp_path / "p.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\nbroken\n{"prompt": "c"}\n'
    )
    with pytest.raises(InputError, match=r"p\.jsonl:3: not JSON"):
        await take_file(journal, file)
    assert [waiting.text for waiting, _ in journal.prompts()] == ["a", "b"]


async def test_what_is_read_ahead_of_the_disk_is_bounded(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, no_hang: None
) -> None:
    monkeypatch.setattr(module, "_QUEUED", 50)
    read: list[int] = []
    busy, bound, free = threading.Event(), threading.Event(), threading.Event()

    def wait(_: Transaction) -> None:
        busy.set()
        free.wait(10)

    def source() -> Iterator[Prompt]:
        busy.wait(10)
        for number in range(500):
            read.append(number)
            if number == 50:
                bound.set()
            yield Prompt(f"p{number}", f"{number}?")

    async with reading_from(journal, source()) as intake:
        slow = asyncio.create_task(journal.write(wait))  # the disk is slow
        assert await asyncio.to_thread(bound.wait, 5)
        await asyncio.sleep(0.1)
        assert len(read) <= 50 + 1, "those that are queued, and the one in hand"
        free.set()
        await slow
        await intake.all_read()
        assert intake.counts.taken == 500
    assert kept(journal) == [f"p{n}" for n in range(500)]


async def test_a_source_far_ahead_of_the_chats_is_read_without_haste(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AHEAD", 10)
    pauses: list[float] = []
    sleep = time.sleep

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        sleep(0)  # lets the event loop take what was read

    monkeypatch.setattr("orchestration.runs.intake.time.sleep", pause)
    ended = threading.Event()

    def source() -> Iterator[Prompt]:
        yield from (Prompt(f"p{n}", f"{n}?") for n in range(2000))
        ended.set()

    async with reading_from(journal, source()) as intake:
        assert await asyncio.to_thread(ended.wait, 60)
        assert pauses
        assert len(await handed_out(intake)) == 2000


async def test_a_journal_that_cannot_be_written_is_told_of_where_prompts_are_asked_for(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise JournalError("The journal cannot be written: disk is full.", "Make room.")

    monkeypatch.setattr(Intake, "_insert", full)
    async with reading_from(journal, named("a")) as intake:
        with pytest.raises(JournalError, match="disk is full"):
            await intake.next()
