"""Journals for tests, and what tests store in them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

from agents.models.model import ModelReply
from agents.models.usage import Usage
from orchestration.journal import Change, Journal, PendingPrompt
from orchestration.journal.transaction import PENDING, add_checksum_function, update
from orchestration.prompts.reader import Prompt, PromptReader
from orchestration.runs.intake import Intake, Source
from orchestration.runs.replay import dump_reply, load_reply
from orchestration.runs.result import RunResult, ending_of
from tests.orchestration.records import record

T = TypeVar("T")
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
    with PromptReader(file, **columns) as reader:
        return await take_in(journal, reader, Source(file, **options))


async def handed_out(intake: Intake) -> list[PendingPrompt]:
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
    records = [record(name) for name in ids]  # outside of an event loop, since they take a chat

    async def fill_it() -> None:
        async with opened(path, *ids) as journal:
            for number, made in enumerate(records):
                await store_reply(journal, number, b"key", answer(f"Of {made.id}."))
                await store_result(journal, number, made)

    asyncio.run(fill_it())


async def store_reply(
    journal: Journal, chat: int, key: bytes, reply: ModelReply, model: str = "m", price: str = ""
) -> None:
    """Stores a reply, as a run does."""
    usage = reply.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    row = (chat, key, model, price, dump_reply(reply), tokens)
    await journal.write(lambda tx: tx.store_reply(*row))


async def store_result(journal: Journal, number: int, result: RunResult) -> None:
    """Stores a result, as a run does."""
    row = (number, result.outcome, ending_of(result), result.model_dump_json())
    await journal.write(lambda tx: tx.store_result(*row))


def change(method: Callable[..., T], *values: Any) -> Change[T]:
    """A call of one of `Transaction`'s methods, as a change."""
    return lambda transaction: method(transaction, *values)


def answers(path: Path, number: int = 0) -> dict[bytes, ModelReply]:
    """The replies that a prompt's chat has had."""
    with closing(Journal(path)) as journal:
        prompt, _ = journal.prompt(number)
        return {key: load_reply(text) for key, text in journal.replies(prompt.chat)}


def ids(path: Path) -> list[str]:
    """The ids of the records in a journal."""
    with closing(Journal(path)) as journal:
        return [json.loads(text)["id"] for _, text in journal.results()]


def answer(
    text: str = "Yes.", prompt: int = 100, completion: int = 10, cached: int = 40
) -> ModelReply:
    """A reply."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)
    return ModelReply(text=text, finish_reason="stop", usage=usage, latency=0.25)


def tamper(path: Path, statement: str) -> None:
    """Executes an SQL statement in a closed journal; the function `checksum` is known to it."""
    with closing(sqlite3.connect(path)) as db, db:
        add_checksum_function(db)
        db.execute(statement)


def reopen(path: Path, where: str = "1") -> None:
    """Makes prompts of a closed journal pending again, as an interrupted session leaves them."""
    chosen = f"number IN (SELECT number FROM prompts WHERE {where})"
    with closing(sqlite3.connect(path)) as db, db:
        add_checksum_function(db)
        update(db, "progress", PENDING, chosen)
