"""What `aidsafe salvage` reads out of broken pages and logs: all that was not damaged."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.salvage import salvage
from tests.orchestration.damaged import (
    CALLS_EACH,
    PAGE,
    PROMPTS,
    Rows,
    chat,
    damage,
    fill,
    lost,
    make,
    overwritten,
    record_of,
    rows_of,
    salvaged,
    saved,
    spoilt,
    truth,
    whole,
)

HALF = 16
NEW_FRAMES = 50  # so many, and more, are in the log of a run that was killed
WAL_NAME = f"{FILE_NAME}-wal"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "saved" / "run"


def pages_of_kind(kind: int) -> list[int]:
    """The file's pages by their first byte: 5 and 2 are interior, 13 and 10 leaves."""
    return [n for n in range(2, len(whole()) // PAGE + 1) if whole()[(n - 1) * PAGE] == kind]


# Damage in the file ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_without_its_first_and_its_interior_pages_all_rows_are_there(
    run: Path, to: Path, seed: int | None
) -> None:
    to.mkdir(parents=True)  # an empty folder will do
    for page in [1, *pages_of_kind(5), *pages_of_kind(2)]:
        damage(run, overwritten(page, seed))
    done, found = saved(run, to)
    assert found == truth()
    assert done.spend
    assert done.settings
    assert {count.not_found + count.damaged for count in done.tables.values()} == {0}


@pytest.mark.parametrize("page_size", [512, 1024, 8192, 65536])
def test_the_page_size_is_found_out_where_the_header_does_not_say_it(
    run: Path, to: Path, page_size: int
) -> None:
    with closing(sqlite3.connect(run / FILE_NAME, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute(f"PRAGMA page_size = {page_size}")
        db.execute("VACUUM")
    damage(run, lambda content: content.__setitem__(slice(0, 100), bytes(100)))
    _, found = saved(run, to)
    assert found == truth()


def test_a_broken_page_costs_the_rows_on_it_and_no_other() -> None:
    times: Counter[tuple[str, Any]] = Counter()
    for page in range(1, len(whole()) // PAGE + 1):
        gone = [(table, key) for table, keys in lost_with(page).items() for key in keys]
        assert len(gone) <= PAGE // 60, "no row is so small"
        times.update(gone)
    for table, rows in truth().items():
        for key, row in rows.items():
            size = sum(len(v.encode()) if isinstance(v, str) else 16 for v in row)
            # One page that it begins on, and as many overflow pages as it is long; but a prompt
            # is there again in its record.
            most = 1 + -(-size // (PAGE - 4))
            least = 0 if table == "prompts" and key in truth()["records"] else 1
            assert least <= times[table, key] <= most, (table, key)


@pytest.mark.parametrize("seed", range(25))
def test_random_broken_pages_cost_what_was_on_them(run: Path, to: Path, seed: int) -> None:
    random = Random(seed)
    last = len(whole()) // PAGE
    pages = random.sample(range(1, last + 1), random.randint(1, last // 3))
    for page in pages:
        damage(run, overwritten(page, random.choice([None, seed])))
    _, found = saved(run, to)
    # What each page costs by itself, it costs here too; together they cost no more.
    alone: dict[str, set[Any]] = {table: set() for table in found}
    for page in pages:
        for table, keys in lost_with(page).items():
            alone[table] |= keys
    gone = lost(found)
    assert gone["calls"] == alone["calls"]
    assert gone["records"] == alone["records"]
    assert gone["prompts"] <= alone["prompts"] | gone["records"]


@cache
def lost_with(page: int) -> dict[str, set[Any]]:
    """Rows that are on a page, or whose overflow is."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        run.mkdir()
        (run / FILE_NAME).write_bytes(whole())
        damage(run, overwritten(page))
        salvage(run, Path(folder) / "to")
        return lost(rows_of(Path(folder) / "to" / FILE_NAME))


def test_a_file_that_is_cut_short_gives_what_is_left_of_it(run: Path, to: Path) -> None:
    half = len(whole()) // 2 // PAGE * PAGE + 1234
    damage(run, lambda content: content.__delitem__(slice(half, None)))
    done, found = saved(run, to)
    assert 0 < len(found["calls"]) < len(truth()["calls"])
    assert done.tables["calls"].not_found + done.tables["calls"].damaged == len(
        lost(found)["calls"]
    )


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_never_make_a_wrong_row(run: Path, to: Path, seed: int) -> None:
    random = Random(seed)

    def flip(content: bytearray) -> None:
        for _ in range(20):
            content[random.randrange(100, len(content))] ^= 1 << random.randrange(8)

    damage(run, flip)
    found = salvaged(run, to)[1]
    # Which number a reply has, and whether it is void, is not in its checksum.
    keys = {(*row[1:3], *row[4:]) for row in truth()["calls"].values()}
    assert {(*row[1:3], *row[4:]) for row in found["calls"].values()} <= keys
    for table in ("prompts", "records"):
        assert found[table].items() <= truth()[table].items()


def test_of_two_versions_of_a_row_the_right_one_is_taken(run: Path, to: Path) -> None:
    """Pages that were freed hold old versions; they are told by the freelist, or by the rows."""
    with closing(Journal(run / FILE_NAME, write=True)) as journal:
        for n in range(PROMPTS):
            asyncio.run(journal.keep_record(n, record_of(n, "2026-11-25")))
        journal.write_from_thread(lambda db: db.execute("UPDATE calls SET void = 1").rowcount)
    damage(run, overwritten(pages_of_kind(5)[0]))
    # Pages as they were before: put where no page is.
    damage(run, lambda content: content.extend(whole()[PAGE:]))
    for name in ("with its freelist", "without"):
        _, found = salvaged(run, to / name)
        assert len(found["calls"]) == PROMPTS * CALLS_EACH
        with closing(Journal(to / name / FILE_NAME)) as journal:
            assert {r.provenance.finished_at for r in journal.records()} == {"2026-11-25"}
            assert not any(journal.answers(chat(n)) for n in range(PROMPTS)), "void stays void"
        damage(run, overwritten(1))


# The write-ahead log -----------------------------------------------------------------------------


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A run whose process was killed: part of the rows is in the file, the rest in the log.

    The log was begun anew for them; behind its end stand frames that were valid once.
    """
    work, folder = tmp_path / "work", tmp_path / "run"
    work.mkdir()
    with closing(Journal(work / FILE_NAME, write=True)) as journal:
        asyncio.run(fill(journal, range(HALF)))
        with closing(sqlite3.connect(work / FILE_NAME)) as db:
            assert db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0] == 0
        asyncio.run(fill(journal, range(HALF, PROMPTS)))
        folder.mkdir()
        for name in (FILE_NAME, WAL_NAME):  # as they are on disk now
            shutil.copy(work / name, folder / name)
    return folder


def replies(rows: Rows) -> set[tuple[Any, ...]]:
    return {row[1:] for row in rows["calls"].values()}


def test_rows_that_are_only_in_the_log_are_brought_out(killed: Path, to: Path) -> None:
    assert salvage(killed, to) is None, "it was only not closed"
    for page in (1, 2):
        damage(killed, overwritten(page))
    _, found = salvaged(killed, to)
    assert replies(found) == replies(truth())
    assert found["prompts"] == truth()["prompts"]
    assert {*found["records"]} == {*range(PROMPTS)} - {HALF - 1, PROMPTS - 1}
    (killed / FILE_NAME).unlink()  # the log alone gives what is in it
    assert {*range(HALF, PROMPTS)} <= {*salvaged(killed, to / "2")[1]["prompts"]}


def test_a_log_that_is_cut_counts_up_to_its_last_commit(killed: Path, to: Path) -> None:
    end = 32 + NEW_FRAMES // 2 * (PAGE + 24) + 777
    damage(killed, lambda content: content.__delitem__(slice(end, None)), WAL_NAME)
    copy = to.parent.parent / "copy"
    shutil.copytree(killed, copy)
    expected = rows_of(copy / FILE_NAME)  # as SQLite itself says
    damage(killed, spoilt("Reply 2 to 3."))
    _, found = salvaged(killed, to)
    assert replies(found) == {row for row in replies(expected) if "Reply 2 to 3." not in row[4]}
    assert found["records"] == expected["records"]
    assert HALF * CALLS_EACH <= len(found["calls"]) < PROMPTS * CALLS_EACH


@pytest.mark.parametrize("part", [4, 12, 20, 24 + 1000])  # commit mark, salt, checksum, page
@pytest.mark.parametrize("seed", range(4))
def test_a_broken_frame_costs_no_rows_but_its_own(
    killed: Path, to: Path, part: int, seed: int
) -> None:
    """SQLite would pass over all that was committed after it, and say nothing."""
    at = 32 + Random(seed).randrange(NEW_FRAMES // 2) * (PAGE + 24) + part
    damage(killed, lambda content: content.__setitem__(at, content[at] ^ 0x10), WAL_NAME)
    _, found = salvaged(killed, to)
    assert replies(found) <= replies(truth())
    assert len(found["calls"]) >= PROMPTS * CALLS_EACH - 15
    damage(killed, overwritten(1), WAL_NAME)  # its header, and its first frame
    assert len(salvaged(killed, to / "2")[1]["calls"]) >= PROMPTS * CALLS_EACH - 30
