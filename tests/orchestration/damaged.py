"""A journal to be damaged, ways to damage it, and what a salvage makes of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from orchestration.journal import FILE_NAME, Journal, Transaction
from orchestration.journal.salvage import Salvaged, salvage
from orchestration.journal.schema import COLUMNS, chat_of, verify
from orchestration.prompts.reader import Prompt
from tests.orchestration.journals import change

PROMPTS, CALLS_EACH = 48, 4
PAGE = 4096
PRICE = '{"prompt":1.0}'
SETTINGS = '{"policies": {"one": "0a1b"}}'
WAL_NAME = f"{FILE_NAME}-wal"

Rows = dict[str, dict[Any, tuple[Any, ...]]]
Damage = Callable[[bytearray], None]


def text_of(number: int) -> str:
    """A prompt; every fifth is too long for a page, and none is plain ASCII."""
    return f"Prompt {number}: ĝis?" + f" {number} and more…" * (400 if number % 5 == 0 else 3)


def chat(number: int) -> int:
    """What a prompt's replies are filed under."""
    return chat_of(Prompt("", text_of(number)).digest)


def reply_of(number: int, call: int) -> str:
    """A reply; some take several pages."""
    long = 900 if (number + call) % 6 == 0 else 20
    return json.dumps({"text": f"Reply {call} to {number}. " + "naïve " * long})


def result_of(number: int) -> str:
    """A result; every third is too long for a page."""
    return json.dumps({"id": f"p{number}", "text": "x" * (5_000 if number % 3 == 0 else 10)})


def write_all(tx: Transaction, numbers: range) -> None:
    """Prompts, a note and four replies for each, and results of all but the run's last."""
    source = tx.register_source("prompts.jsonl", "9:9", "[0]").source
    tx.set_meta("settings", SETTINGS)
    for n in numbers:
        text = text_of(n)
        digest = Prompt("", text).digest
        tx.insert_prompt(n, f"p{n}", digest, text, json.dumps({"row": n}), source)
        tx.add_note("lessons", "scope", n, f"Lesson {n}.")
        for c in range(CALLS_EACH):
            tx.store_reply(chat(n), bytes([n, c]) * 8, "m", PRICE, reply_of(n, c), (100, 10, n))
        if n < PROMPTS - 1:
            outcome = "failed" if n % 7 == 0 else "completed"
            tx.store_result(n, outcome, "consensus/1", result_of(n), [bytes([n, 3]) * 8])
    tx.finish_source(source, "9:9", "[48]")


def rows_of(file: Path) -> Rows:
    """All rows of a journal with their checksums, by table and key."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        return {
            table: {row[0] if table != "notes" else row[1]: row for row in db.execute(query)}
            for table in COLUMNS
            for query in [f"SELECT * FROM {table}"]
        }


@cache
def made() -> tuple[bytes, Rows]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAME
        with closing(Journal(path, write=True)) as journal:
            for start in range(0, PROMPTS, 4):  # in parts, so that tables grow in turns
                journal.submit(change(write_all, range(start, start + 4))).result()
        return path.read_bytes(), rows_of(path)


def whole() -> bytes:
    """The file of a journal that was closed."""
    return made()[0]


def truth() -> Rows:
    """What is in it."""
    return made()[1]


def make(folder: Path) -> Path:
    """A run whose journal is `whole`."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text("prompts: {}\n")
    (folder / "summary.json").write_text("{}\n")
    (folder / FILE_NAME).write_bytes(whole())
    return folder


def killed(folder: Path, numbers: range) -> Path:
    """A run whose process was killed: its last rows are in the write-ahead log."""
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / FILE_NAME
        path.write_bytes(whole())
        with closing(Journal(path, write=True)) as journal:
            journal.submit(lambda tx: tx.reopen()).result()
            for n in numbers:
                journal.submit(
                    change(Transaction.store_result, n, "completed", "new/1", '{"id": "new"}')
                ).result()
            for name in (FILE_NAME, WAL_NAME):  # as they are on disk now
                shutil.copy(path.with_name(name), folder / name)
    return folder


def pages(kind: int | None = None) -> list[int]:
    """The file's pages, from 1; only those whose first byte is this.

    5 and 2 are inner pages of tables and indexes, 13 and 10 their leaves.
    """
    return [
        n
        for n in range(1, len(whole()) // PAGE + 1)
        if kind is None or (n > 1 and whole()[(n - 1) * PAGE] == kind)
    ]


@cache
def root_of(table: str) -> int:
    """The page on which a table begins."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / FILE_NAME).write_bytes(whole())
        with closing(sqlite3.connect(path)) as db:
            query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
            return int(db.execute(query, (table,)).fetchone()[0])


def damage(run: Path, how: Damage, name: str = FILE_NAME) -> None:
    content = bytearray((run / name).read_bytes())
    how(content)
    (run / name).write_bytes(content)


def overwritten(page: int, seed: int | None = None) -> Damage:
    """A page is zeros, or random bytes."""
    new = bytes(PAGE) if seed is None else Random(seed).randbytes(PAGE)
    return lambda content: content.__setitem__(slice((page - 1) * PAGE, page * PAGE), new)


def spoilt(text: str, byte: bytes = b"\0") -> Damage:
    """The first byte of a text is another, wherever it stands."""

    def how(content: bytearray) -> None:
        assert text.encode() in content
        content[:] = content.replace(text.encode(), byte + text.encode()[1:])

    return how


def flipped(seed: int, bits: int) -> Damage:
    """Random bits are others."""

    def how(content: bytearray) -> None:
        random = Random(seed)
        for _ in range(bits):
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)

    return how


def snapshot(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def salvaged(run: Path, to: Path) -> tuple[Salvaged, Rows]:
    """What a salvage says, and what is in the new journal, which must be sound."""
    before = snapshot(run)
    done = salvage(run, to)
    assert done is not None, "taken for sound"
    assert snapshot(run) == before, "the damaged run was changed"
    check_sound(to / FILE_NAME)
    found = rows_of(to / FILE_NAME)
    for table, count in done.tables.items():
        assert count.recovered == len(found[table])
        assert min(count.damaged, count.not_found) >= 0
    return done, found


def check_sound(file: Path) -> None:
    """Checks what must hold in any journal."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for table in COLUMNS:
            for row in db.execute(f"SELECT * FROM {table}"):
                verify(table, row)
        without = "SELECT count(*) FROM progress WHERE {} NOT IN (SELECT {} FROM {})"
        for where, key, table in (
            ("number", "number", "prompts"),
            ("source", "source", "sources"),
            ("outcome IS NOT NULL AND number", "number", "results"),
        ):
            assert db.execute(without.format(where, key, table)).fetchone() == (0,)
        counts = {
            db.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in ("prompts", "progress")
        }
        assert len(counts) == 1


def saved(run: Path, to: Path) -> tuple[Salvaged, Rows]:
    """Same; and every row must be as it was in `whole`, or say that a prompt is pending."""
    done, found = salvaged(run, to)
    for table in ("prompts", "calls", "results", "notes"):
        assert found[table].items() <= truth()[table].items(), f"a wrong row of {table}"
    for number, row in found["progress"].items():
        assert row == truth()["progress"][number] or row[2] is None
    return done, found


def lost(found: Rows, *tables: str) -> dict[str, set[Any]]:
    """Keys of the rows that are not there, of tables that lost any."""
    tables = tables or ("prompts", "calls", "results", "notes")
    gone = {table: truth()[table].keys() - found[table].keys() for table in tables}
    return {table: keys for table, keys in gone.items() if keys}
