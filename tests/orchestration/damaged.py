"""A journal to be damaged, ways to damage it, and what a salvage makes of it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from agents.models.model import Answer
from agents.turns import Usage
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.restore import Salvaged
from orchestration.journal.salvage import salvage
from orchestration.journal.schema import chat_of, checksum
from orchestration.prompts import Prompt
from orchestration.record import CoTRecord
from tests.orchestration.records import record

PROMPTS, CALLS_EACH = 24, 4
PAGE = 4096
SETTINGS = json.dumps({"policies": {"one": "0a1b"}})
PRICE = '{"prompt":1.0}'
record()  # made once, outside of any event loop, since it takes a chat

Rows = dict[str, dict[Any, tuple[Any, ...]]]
Damage = Callable[[bytearray], None]


def text_of(number: int) -> str:
    """A prompt; every fifth is too long for a page, and none is plain ASCII."""
    return f"Prompt {number}: ĝis?" + f" {number} and more…" * (400 if number % 5 == 0 else 3)


def chat(number: int) -> int:
    """What a prompt's replies are filed under."""
    return chat_of(Prompt("", text_of(number)).digest)


def record_of(number: int, finished: str = "2026-11-24", recipe: str = "0") -> CoTRecord:
    """A record; every third is too long for a page."""
    long = "x" * (5_000 if number % 3 == 0 else 10)
    outcome = "failed" if number % 7 == 0 else "completed"
    text, row = text_of(number), {"row": number}
    made = record(f"p{number}", prompt=text, metadata=row, outcome=outcome, problem=long, turns=[])
    origin = {"finished_at": finished, "recipe_hash": recipe}
    return made.model_copy(update={"provenance": made.provenance.model_copy(update=origin)})


def answer_of(number: int, call: int) -> Answer:
    """A reply; some take several pages."""
    long = 900 if (number + call) % 6 == 0 else 20
    usage = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=number)
    return Answer(f"Reply {call} to {number}. " + "naïve " * long, "stop", usage, 0.25)


async def fill(journal: Journal, numbers: range) -> None:
    """Prompts, four replies to each, and records of all but the last of them."""

    def change(db: sqlite3.Connection) -> None:
        spec = json.dumps(["prompts.jsonl", None, None, None])
        db.execute("REPLACE INTO sources VALUES (1, ?, '9:9', 1, '[24, 0, 0, []]')", (spec,))
        db.execute("INSERT OR IGNORE INTO meta VALUES ('settings', ?)", (SETTINGS,))
        for n in numbers:
            text, metadata = text_of(n), json.dumps({"row": n})
            told = (n, f"p{n}", Prompt("", text).digest, text, metadata)
            db.execute(
                "INSERT INTO prompts (number, id, digest, text, metadata, checksum, source, tries)"
                " VALUES (?, ?, ?, ?, ?, ?, 1, 0)",
                (*told, checksum(*told)),
            )

    await journal.write(change)
    for c in range(CALLS_EACH):
        keys = [bytes([n, c]) * 8 for n in numbers]
        kept = zip(numbers, keys, strict=True)
        await asyncio.gather(
            *(journal.keep_call(chat(n), key, "m", PRICE, answer_of(n, c)) for n, key in kept)
        )
    await asyncio.gather(*(journal.keep_record(n, record_of(n)) for n in numbers[:-1]))


def rows_of(file: Path) -> Rows:
    """All that is in a journal, by table and key, without what only the old one may say."""
    prompts = "number, id, digest, text, metadata, checksum"
    columns = {"prompts": prompts, "calls": "*", "records": "*"}
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return {
            t: {r[0]: r for r in db.execute(f"SELECT {c} FROM {t}")} for t, c in columns.items()
        }


@cache
def made() -> tuple[bytes, Rows]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        with closing(Journal(path, write=True)) as journal:
            asyncio.run(fill(journal, range(PROMPTS)))
        return path.read_bytes(), rows_of(path)


def whole() -> bytes:  # the file of a journal that was closed in good order
    return made()[0]


def truth() -> Rows:  # what is in it
    return made()[1]


def make(folder: Path) -> Path:
    """A run whose journal is `whole`."""
    folder.mkdir()
    (folder / "run.yaml").write_text("prompts: {}\n")
    (folder / "summary.json").write_text("{}\n")
    (folder / FILE_NAME).write_bytes(whole())
    return folder


def damage(run: Path, how: Damage, name: str = FILE_NAME) -> None:
    content = bytearray((run / name).read_bytes())
    how(content)
    (run / name).write_bytes(content)


def overwritten(page: int, seed: int | None = None) -> Damage:
    """A page that holds zeros now, or garbage."""
    new = bytes(PAGE) if seed is None else Random(seed).randbytes(PAGE)
    return lambda content: content.__setitem__(slice((page - 1) * PAGE, page * PAGE), new)


def spoilt(text: str) -> Damage:
    """One byte is another, wherever this text stands."""

    def how(content: bytearray) -> None:
        assert text.encode() in content
        content[:] = content.replace(text.encode(), b"\0" + text.encode()[1:])

    return how


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def salvaged(run: Path, to: Path) -> tuple[Salvaged, Rows]:
    """What a salvage says, and what is in the new journal, which must be sound."""
    before = snapshot(run)
    done = salvage(run, to)
    assert done is not None, "taken for sound"
    assert snapshot(run) == before, "the damaged run was changed"
    with closing(sqlite3.connect(f"file:{to / FILE_NAME}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        bare = "SELECT count(*) FROM prompts WHERE outcome IS NOT NULL AND number NOT IN "
        assert db.execute(bare + "(SELECT number FROM records)").fetchone() == (0,)
    found = rows_of(to / FILE_NAME)
    assert {t: len(rows) for t, rows in found.items()} == {
        t: count.brought_out for t, count in done.tables.items()
    }
    return done, found


def saved(run: Path, to: Path) -> tuple[Salvaged, Rows]:
    """Same; every row must be as it was in `whole`."""
    done, found = salvaged(run, to)
    assert all(rows.items() <= truth()[table].items() for table, rows in found.items())
    return done, found


def lost(found: Rows) -> dict[str, set[Any]]:
    return {table: truth()[table].keys() - found[table].keys() for table in found}
