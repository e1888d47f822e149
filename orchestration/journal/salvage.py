"""Recovers what is intact in a damaged run, into a new one.

SQLite itself reads a copy of the damaged journal, as far as it can; a row counts only if its
checksum is right. Prompts whose result is lost are pending again, and use their replies again.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestration.journal.errors import DamageError, JournalError
from orchestration.journal.lock import is_locked
from orchestration.journal.recovery import UNREADABLE, Row, is_whole, read_pages, read_tables
from orchestration.journal.schema import (
    COLUMNS,
    FILE_NAME,
    check_version,
    checksum,
    create_tables,
)
from orchestration.journal.tally import (
    begin_tally,
    count_calls,
    find_run_id,
    identify,
    read_identity,
)
from orchestration.journal.transaction import PENDING, add_checksum_function, update
from policies import InputError

COPIED = ("run.yaml", "summary.json")
"""Files beside the journal that are copied as they are."""

_CACHE_KIB = 65_536  # of the new journal: its indexes are filled in no order


@dataclass
class Count:
    """What became of a table's rows."""

    recovered: int = 0
    damaged: int = 0
    """Found, but not as they were written; left out."""
    not_found: int = 0
    """At least so many more were there once."""


@dataclass
class Salvaged:
    """What was recovered."""

    tables: dict[str, Count] = field(default_factory=dict)
    """Counts of `prompts`, `calls` (replies), `results` and `notes`."""
    spend: bool = True
    """Whether the sums of what was spent are intact; else they are those of the replies left."""


def salvage(folder: Path, to: Path) -> Salvaged | None:
    """Recovers what is intact in a damaged run into a new folder; changes nothing in the old one.

    Args:
        folder: The damaged run.
        to: The new folder; it appears only once it is complete.

    Returns:
        What was recovered; None if the journal is sound, and nothing was written.

    Raises:
        InputError: There is no journal, or the new folder cannot be used.
        JournalError: Nothing could be recovered, the journal is of another version, or another
            process writes to the run.
    """
    journal = folder / FILE_NAME
    if not journal.is_file():
        raise InputError(
            f"There is no journal in {folder}.", "Name the folder that `aidsafe run` created."
        )
    if is_locked(folder):
        raise JournalError(
            f"Another process is writing to the run in {folder}.",
            "Wait until it has ended, or stop it.",
        )
    try:
        with TemporaryDirectory(prefix=".salvage-", dir=_check_target(folder, to)) as name:
            aside, made = Path(name), Path(name) / "made"
            made.mkdir()
            for file in (FILE_NAME, f"{FILE_NAME}-wal"):
                if (folder / file).exists():
                    shutil.copyfile(folder / file, aside / file)
            done = _recover(journal, aside, made / FILE_NAME)
            if done is not None:
                for file in COPIED:
                    with suppress(OSError):
                        shutil.copyfile(folder / file, made / file)
                to.parent.mkdir(parents=True, exist_ok=True)
                if to.exists():
                    to.rmdir()  # Windows does not replace it, although it is empty
                made.rename(to)
            return done
    except (OSError, sqlite3.Error) as error:
        raise JournalError(
            f"The run in {folder} could not be recovered into {to} ({error}).",
            "Check that the one can be read and the other written, and that the disk has room for "
            "twice the journal.",
        ) from None


def _check_target(folder: Path, to: Path) -> Path:
    """The first existing folder above the target."""
    above = next(path for path in to.absolute().parents if path.exists())
    problem = None
    try:
        exists = to.exists()
    except OSError as error:
        cause = f"The folder {to} cannot be created ({error.strerror})."
        raise InputError(cause, "Name a new folder with --out.") from None
    if to.resolve().is_relative_to(folder.resolve()) and to.resolve() != folder.resolve():
        problem = "is inside the damaged run, which is not changed"
    elif exists and (not to.is_dir() or any(to.iterdir())):
        problem = "exists, and is not an empty folder"
    elif not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        problem = f"cannot be created, since {above} is not a writable folder"
    if problem is not None:
        raise InputError(f"The folder {to} {problem}.", "Name a new folder with --out.")
    return above


def _recover(origin: Path, aside: Path, made: Path) -> Salvaged | None:
    """Writes all intact rows into a new journal; None if the old one is sound.

    Args:
        origin: The damaged journal, for messages.
        aside: A folder with a copy of it, which may be changed.
        made: The new journal.
    """
    copy = aside / FILE_NAME
    with suppress(DamageError, *UNREADABLE), closing(sqlite3.connect(copy)) as old:
        check_version(origin, old)
    done = Salvaged()
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        add_checksum_function(db)
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute("BEGIN")
        create_tables(db)
        db.execute("CREATE TEMP TABLE damaged (owner TEXT, row INTEGER, UNIQUE (owner, row))")
        whole = is_whole(copy)
        _insert_intact(db, read_tables(copy))
        if whole and not db.execute("SELECT 1 FROM temp.damaged").fetchone() and _is_complete(db):
            return None
        if not whole:  # what is behind something broken is only found page by page
            _insert_intact(db, read_pages(copy))
        identify(db, find_run_id(origin.with_name("run.yaml")))
        begin_tally(db)
        _reconcile(db, done)
        db.execute("COMMIT")
    if not any(count.recovered for count in done.tables.values()):
        raise JournalError(
            f"Nothing could be recovered from {origin}: no row in it is intact.",
            "Restore it from a backup.",
        )
    return done


def _insert_intact(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Inserts the intact ones of some rows, and notes the others."""
    for tables, rowid, row in rows:
        for table in tables:
            if checksum(table, *row[:-1]) == row[-1]:
                marks = ", ".join("?" * len(row))
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)  # noqa: S608
                break
        else:
            if len(tables) == 1:
                db.execute("INSERT OR IGNORE INTO temp.damaged VALUES (?, ?)", (*tables, rowid))


def _is_complete(db: sqlite3.Connection) -> bool:
    """Whether every prompt has its progress, and every outcome its prompt and result."""
    missing = (
        "SELECT number FROM progress WHERE number NOT IN (SELECT number FROM prompts)",
        "SELECT number FROM prompts WHERE number NOT IN (SELECT number FROM progress)",
        "SELECT number FROM progress WHERE outcome IS NOT NULL"
        " AND number NOT IN (SELECT number FROM results)",
    )
    with suppress(DamageError):
        _, tally = read_identity(db)
        if tally is not None and count_calls(db) != (tally.calls, tally.chats):
            return False
    return not any(db.execute(f"{query} LIMIT 1").fetchone() for query in missing)


def _reconcile(db: sqlite3.Connection, done: Salvaged) -> None:
    """Makes the rows agree with each other, and counts them."""

    def count(query: str) -> int:
        return int(db.execute(query).fetchone()[0] or 0)

    highest = [
        count(f"SELECT max(number) + 1 FROM {table}")  # noqa: S608
        for table in ("prompts", "progress", "results", "notes")
    ]
    once = {"prompts": max(highest), "notes": 0}
    pending = "SELECT number FROM progress WHERE outcome IS NULL"
    once["results"] = count(f"SELECT count(*) FROM results WHERE number NOT IN ({pending})")  # noqa: S608
    once["results"] += _reconcile_progress(db)
    intact = count("SELECT sum(calls) FROM spend")
    _reconcile_spend(db)
    once["calls"] = count("SELECT sum(calls) FROM spend")
    done.spend = once["calls"] == intact
    # Notes do not keep their rowids, so a row that was found later on counts as damaged.
    for table, key in (
        ("prompts", "number"),
        ("calls", "call"),
        ("results", "number"),
        ("notes", "-1"),
    ):
        found = count(f"SELECT count(*) FROM {table}")  # noqa: S608
        damaged = count(
            f"SELECT count(*) FROM temp.damaged WHERE owner = '{table}'"  # noqa: S608
            f" AND row NOT IN (SELECT {key} FROM {table})"
        )
        done.tables[table] = Count(found, damaged, max(0, once[table] - found - damaged))


def _reconcile_progress(db: sqlite3.Connection) -> int:
    """Makes prompts pending whose result is lost; returns how many results were not found."""
    db.execute("DELETE FROM progress WHERE number NOT IN (SELECT number FROM prompts)")
    sources = "SELECT source FROM sources UNION ALL SELECT source FROM progress"
    db.execute(
        "INSERT OR IGNORE INTO progress SELECT number, source, NULL, NULL, 0,"  # noqa: S608
        " checksum('progress', number, source, NULL, NULL, 0)"
        f" FROM prompts, (SELECT ifnull(max(source), 1) AS source FROM ({sources}))"
    )
    # No source is complete: prompts that are lost come back when theirs is read again. And none may
    # get the number of one that is lost: its prompts would pass for duplicates.
    update(db, "sources", (("complete", "0"),), "1")
    db.execute(
        "INSERT OR IGNORE INTO sources SELECT DISTINCT source, '', NULL, 0, '',"
        " checksum('sources', source, '', NULL, 0, '') FROM progress"
    )
    without = "outcome IS NOT NULL AND number NOT IN (SELECT number FROM results)"
    reopened = update(db, "progress", PENDING, without)
    finished = "SELECT number FROM progress WHERE outcome IS NOT NULL"
    db.execute(f"DELETE FROM results WHERE number NOT IN ({finished})")  # noqa: S608
    return reopened


def _reconcile_spend(db: sqlite3.Connection) -> None:
    """Makes the sums of what was spent no less than the replies say."""
    sums = COLUMNS["spend"][2:]
    highest = ", ".join(f"{column} = max({column}, excluded.{column})" for column in sums)
    db.execute(
        "INSERT INTO spend SELECT model, price, count(*), sum(prompt_tokens),"  # noqa: S608
        " sum(completion_tokens), sum(cached_tokens), 0, 0, 0, 0 FROM calls WHERE 1"
        " GROUP BY model, price"
        f" ON CONFLICT DO UPDATE SET {highest}"
    )
    update(db, "spend", (), "1")
