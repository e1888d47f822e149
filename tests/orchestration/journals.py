"""Journals for tests: with prompts taken in, and replies and records to keep."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from agents.models.model import Answer
from agents.turns import Usage
from orchestration.journal import Journal
from orchestration.journal.schema import Waiting
from orchestration.prompts import Prompt, read_prompts
from orchestration.runs.intake import Intake, Source
from tests.orchestration.records import record

SOURCE = Source("test")


def named(*ids: str) -> Iterator[Prompt]:
    """A prompt of each id."""
    return (Prompt(name, f"What of {name}?") for name in ids)


async def take_in(
    journal: Journal, prompts: Iterator[Prompt], source: Source | None = SOURCE
) -> Intake:
    """Reads prompts into a journal to their end."""
    intake = Intake(journal, source, prompts, journal.path.parent)
    await intake.all_read()
    return intake


@asynccontextmanager
async def reading_from(journal: Journal, prompts: Iterator[Prompt]) -> AsyncIterator[Intake]:
    """An intake that is closed in the end."""
    intake = Intake(journal, SOURCE, prompts, journal.path.parent)
    try:
        yield intake
    finally:
        intake.close()


async def take_file(journal: Journal, file: str, **options: Any) -> Intake:
    """Takes a file in, as `aidsafe run` does."""
    columns = {key: options[key] for key in options if key != "limit"}
    with read_prompts(file, **columns) as reader:
        return await take_in(journal, reader, Source(file, **options))


async def handed_out(intake: Intake) -> list[Waiting]:
    """All that an intake hands out."""
    found = []
    while (waiting := await intake.next()) is not None:
        found.append(waiting)
    return found


def kept(journal: Journal) -> list[str]:
    """The ids of all prompts in the journal, in order."""
    return [waiting.id for waiting, _ in journal.prompts()]


@asynccontextmanager
async def opened(path: Path, *ids: str) -> AsyncIterator[Journal]:
    """A journal that is being written, with a prompt of each id."""
    with closing(Journal(path, write=True)) as journal:
        if ids:
            await take_in(journal, named(*ids))
        yield journal


def fill(path: Path, *ids: str) -> None:
    """A journal with a completed prompt of each id, each with one reply."""

    async def fill_it() -> None:
        async with opened(path, *ids) as journal:
            for number, name in enumerate(ids):
                await journal.keep_call(number, b"key", "m", "", answer(f"Of {name}."))
                await journal.keep_record(number, record(name))

    asyncio.run(fill_it())


def answers(path: Path, number: int = 0) -> dict[bytes, Answer]:
    """The replies that a prompt's chat has had."""
    with closing(Journal(path)) as journal:
        waiting, _ = journal.prompt(number)
        return journal.answers(waiting.chat)


def ids(path: Path) -> list[str]:
    """The ids of the records in a journal."""
    with closing(Journal(path)) as journal:
        return [each.id for each in journal.records()]


def answer(text: str = "Yes.", prompt: int = 100, completion: int = 10, cached: int = 40) -> Answer:
    """A reply."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
    return Answer(text=text, finish_reason="stop", usage=usage, latency=0.25)


def tamper(path: Path, statement: str) -> None:
    """Changes a closed journal behind its back."""
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()
