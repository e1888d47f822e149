"""Reads the rows of a damaged journal, as far as SQLite can.

Whether a row is as it was written is not decided here: that is what its checksum is for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

from orchestration.journal.schema import COLUMNS

Row: TypeAlias = tuple[list[str], int, list[Any]]
"""The tables of which it may be, its rowid, and its columns with the checksum."""

UNREADABLE = (sqlite3.Error, ValueError)
"""Errors of reading what is damaged: names in the schema may be no UTF-8."""

_LEAF = b"\x0d"
"""First byte of a page that holds rows of a table (https://sqlite.org/fileformat2.html, 1.6)."""


def is_whole(path: Path) -> bool:
    """Whether all tables are there, and SQLite finds nothing wrong with pages and indexes."""
    with suppress(*UNREADABLE), closing(_connect(path)) as db:
        found = db.execute("PRAGMA integrity_check(1)").fetchone()
        return bool(found == ("ok",) and _tables(db) == list(COLUMNS))
    return False


def read_tables(path: Path) -> Iterator[Row]:
    """Rows of the journal's tables; of each table up to the first error."""
    with suppress(*UNREADABLE), closing(_connect(path)) as db:
        for table in _tables(db):
            with suppress(*UNREADABLE):
                for rowid, *row in db.execute(f"SELECT rowid, * FROM {table}"):  # noqa: S608
                    yield [table], rowid, row


def read_pages(path: Path) -> Iterator[Row]:
    """Rows of all pages, whatever is broken around them.

    SQLite reads each page as if it were a table of its own. Nothing else of the file is needed: not
    its header, nor the schema, nor the pages by which SQLite would find this one.

    Args:
        path: The file, which is changed; others are put beside it.
    """
    new = path.with_name("new")
    with closing(_connect(new)) as db:
        most = max(len(columns) for columns in COLUMNS.values()) + 1
        db.execute(f"CREATE TABLE page ({', '.join(f'c{n}' for n in range(most))})")
        (size,) = db.execute("PRAGMA page_size").fetchone()
    first = bytearray(new.read_bytes()[:size])
    first[28:32] = bytes(4)  # number of pages: unknown, so SQLite takes it from the file's size
    for _ in range(2):  # a log that was left may replace the first page once more
        with path.open("r+b") as file:
            file.write(first)
        with suppress(*UNREADABLE), closing(_connect(path)) as db:
            db.execute("PRAGMA journal_mode = DELETE")  # and no log any more
    with suppress(*UNREADABLE), closing(_connect(path)) as db, path.open("rb") as file:
        db.execute("PRAGMA journal_mode = MEMORY")
        db.execute("PRAGMA synchronous = OFF")
        for page in range(2, path.stat().st_size // size + 1):
            file.seek((page - 1) * size)
            if file.read(1) == _LEAF:
                with suppress(*UNREADABLE):
                    yield from _read_page(db, page)


def _read_page(db: sqlite3.Connection, page: int) -> Iterator[Row]:
    db.execute("PRAGMA writable_schema = ON")
    db.execute("UPDATE sqlite_schema SET rootpage = ?", (page,))
    db.execute("PRAGMA writable_schema = RESET")  # and reads the schema again
    query = "SELECT rowid, * FROM page"
    try:
        rows = db.execute(query).fetchall()
    except UNREADABLE:  # some row goes on elsewhere, and that is broken
        rows = []
        for one in db.execute("SELECT rowid FROM page").fetchall():
            with suppress(*UNREADABLE):
                rows += db.execute(f"{query} WHERE rowid = ?", one)
    for rowid, *row in rows:
        while row and row[-1] is None:  # the last column of every table is its checksum
            row.pop()
        if row and row[0] is None:  # another name of the rowid, which is not stored twice
            row[0] = rowid
        yield [name for name in COLUMNS if len(COLUMNS[name]) + 1 == len(row)], rowid, row


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    db.text_factory = lambda data: data.decode(errors="replace")
    return db


def _tables(db: sqlite3.Connection) -> list[str]:
    """The journal's tables, if they have their columns."""
    return [
        table
        for table, columns in COLUMNS.items()
        if [row[1] for row in db.execute(f"PRAGMA table_info({table})")] == [*columns, "checksum"]
    ]
