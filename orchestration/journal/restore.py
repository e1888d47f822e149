"""Writing the rows that were brought out of a damaged journal into a new one.

The new one holds no promise that the rows do not keep: a prompt without its record waits again, and
its chat is replayed from its replies; a source that may have lost prompts is read again.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from agents.models.model import Answer
from orchestration.journal.schema import checksum, make_pair_tables
from orchestration.kept import read_kept
from orchestration.pairs.pair import PreferencePair
from orchestration.prompts import Prompt
from orchestration.record import Kept

_NO_COUNTS = "[0, 0, 0, []]"  # of a source of which nothing is known
_TEMPORARY = """
CREATE TEMP TABLE damaged (kind TEXT, number INTEGER, PRIMARY KEY (kind, number)) WITHOUT ROWID;
CREATE TEMP TABLE kept (
    number INTEGER PRIMARY KEY, digest BLOB, outcome TEXT, stop_reason TEXT, rounds INTEGER,
    finished TEXT, made_of TEXT
);
"""


@dataclass
class Count:
    """What became of a table's rows."""

    brought_out: int = 0
    damaged: int = 0
    """Found, but not as they were written; left out."""
    not_found: int = 0
    """At least so many more were there once."""


@dataclass
class Salvaged:
    """What was brought out."""

    tables: dict[str, Count] = field(default_factory=dict)
    """Prompts, replies (`calls`) and records."""
    replayed: int = 0
    """Prompts whose record is lost, and is made again from their replies."""
    rebuilt: int = 0
    """Prompts that were lost themselves, and were brought back from their records."""
    settings: bool = False
    """Whether it is still known which settings the run had."""
    spend: bool = False
    """Whether the accounts are still there; else they were added up anew, without prices."""


@dataclass
class Found:
    """A row whose checksum and form are right."""

    table: str
    number: int
    values: list[Any]
    old: bool
    """Whether it is from a page that may hold an earlier version of it."""
    answer: Answer | None = None
    record: Kept | None = None


Damaged: TypeAlias = tuple[str, int]
"""Table and number of a row that is there, but not as it was written."""


class Restore:
    """Writes rows into a new journal, then makes them agree with each other.

    Its methods are changes for the journal's writer.

    Args:
        most: Numbers are given without gaps: a higher one is itself damaged.
    """

    def __init__(self, most: int) -> None:
        self.done = Salvaged()
        self._most = most
        self._spend: dict[tuple[str, str], list[int]] = {}
        self._used: dict[str, Counter[str]] = {}

    def begin(self, db: sqlite3.Connection) -> None:
        """Makes room for what is needed only now; goes with the connection."""
        for statement in _TEMPORARY.split(";"):
            db.execute(statement)

    def write(self, db: sqlite3.Connection, batch: Iterable[Found | Damaged]) -> None:
        """Writes rows, those of the present before those of the past."""
        for found in batch:
            if isinstance(found, tuple):
                db.execute("INSERT OR IGNORE INTO temp.damaged VALUES (?, ?)", found)
            else:
                getattr(self, f"_write_{found.table}")(db, found)

    def _write_calls(self, db: sqlite3.Connection, found: Found) -> None:
        _, prompt, key, void, model, text, total = found.values
        row = (prompt, key, void, model, text, total)
        place = found.number if 0 < found.number <= self._most else None
        insert = "INSERT OR IGNORE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)"
        if place is None or not db.execute(insert, (place, *row)).rowcount:
            # The same again: what was set aside stays aside. Or else two replies have one number:
            # one of the numbers is damaged, but both replies are paid for.
            again = db.execute(
                "UPDATE calls SET void = max(void, ?) WHERE prompt = ? AND key = ? AND answer = ?",
                (void, prompt, key, text),
            )
            if again.rowcount:
                return
            db.execute(insert, (None, *row))
        assert found.answer is not None  # noqa: S101 - every proven call has one
        usage = found.answer.usage
        self._used.setdefault(model, Counter()).update(
            calls=1,
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            cached=usage.cached_tokens,
        )

    def _write_records(self, db: sqlite3.Connection, found: Found) -> None:
        if found.old:
            return  # maybe of other policies; made again from its prompt's replies if need be
        record = found.record
        assert record is not None  # noqa: S101 - every proven record has one
        origin = record.made_of
        row = (
            found.number,
            Prompt("", record.prompt).digest,
            record.outcome,
            record.reason,
            record.ways,
            origin.finished_at,
            json.dumps([origin.policy_set_hash, origin.recipe_hash, origin.personas]),
        )
        other = db.execute("SELECT finished FROM temp.kept WHERE number = ?", row[:1]).fetchone()
        if other is None or other[0] < origin.finished_at:
            db.execute("REPLACE INTO temp.kept VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("REPLACE INTO records VALUES (?, ?, ?)", (found.number, *found.values[1:]))
        if isinstance(record, PreferencePair):
            db.execute("INSERT OR IGNORE INTO meta VALUES ('kind', 'pairs')")

    def _write_prompts(self, db: sqlite3.Connection, found: Found) -> None:
        row = [found.number, *found.values[1:]]
        if found.old:
            row[4:7] = [None] * 3
        insert = "INSERT INTO prompts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        if not found.old:
            # Two versions, and nothing tells which is newer: the chat is replayed, which is free;
            # to trust the older could pass a record of other policies for one of these.
            insert += (
                " ON CONFLICT (number) DO UPDATE SET outcome = NULL, stop_reason = NULL,"
                " rounds = NULL, tries = max(tries, excluded.tries),"
                " source = max(source, excluded.source)"
                " WHERE digest = excluded.digest AND (outcome, tries, source)"
                " IS NOT (excluded.outcome, excluded.tries, excluded.source)"
            )
        with suppress(sqlite3.IntegrityError):
            db.execute(insert, row)

    def _write_sources(self, db: sqlite3.Connection, found: Found) -> None:
        # Not complete: whatever prompts of it are lost come back when it is read again.
        _, spec, fingerprint, _, counts = found.values
        row = (found.number, spec, fingerprint, 0, counts)
        db.execute("INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?, ?)", row)

    def _write_meta(self, db: sqlite3.Connection, found: Found) -> None:
        self.done.settings |= not found.old and found.values[0] == "settings"
        if not found.old:
            db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", found.values)

    def _write_lessons(self, db: sqlite3.Connection, found: Found) -> None:
        if found.old:
            return  # maybe of other settings, which were learnt under anew
        make_pair_tables(db)
        row = (found.number, *found.values[1:])
        db.execute("INSERT OR IGNORE INTO lessons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _write_begun(self, db: sqlite3.Connection, found: Found) -> None:
        if found.old:
            return
        make_pair_tables(db)
        row = (found.number, *found.values[1:])
        db.execute("INSERT OR IGNORE INTO begun VALUES (?, ?, ?, ?, ?, ?)", row)

    def _write_spend(self, db: sqlite3.Connection, found: Found) -> None:
        model, price, *sums = found.values
        self._spend[model, price] = max(self._spend.get((model, price), []), sums)

    def agree(self, db: sqlite3.Connection) -> None:
        """Makes rows agree, once all are written."""
        done = self.done
        # Where a part of the log was lost before, a number may have been given a second time.
        db.execute(
            "DELETE FROM temp.kept WHERE number IN (SELECT number FROM temp.kept k"
            " JOIN prompts p USING (number) WHERE k.digest <> p.digest)"
        )
        done.rebuilt = self._rebuild(db)
        db.execute("DELETE FROM records WHERE number NOT IN (SELECT number FROM temp.kept)")
        # Outcomes are those of the records; without its record, a prompt has none.
        done.replayed = db.execute(
            "SELECT count(*) FROM prompts WHERE outcome IS NOT NULL"
            " AND number NOT IN (SELECT number FROM records)"
        ).fetchone()[0]
        db.execute(
            "UPDATE prompts SET (outcome, stop_reason, rounds) = (SELECT outcome, stop_reason,"
            " rounds FROM temp.kept k WHERE k.number = prompts.number) WHERE outcome IS NOT NULL"
        )
        # A source must not get the number of a lost one: its prompts would pass for read already.
        db.execute(
            "INSERT OR IGNORE INTO sources SELECT DISTINCT source, 'null', NULL, 0, ? FROM prompts",
            (_NO_COUNTS,),
        )
        self._settle_spend(db)
        self._count(db)

    def _rebuild(self, db: sqlite3.Connection) -> int:
        """Brings back prompts from their records."""
        source = db.execute(
            "SELECT coalesce((SELECT max(source) FROM sources), max(source), 1) FROM prompts"
        ).fetchone()[0]
        # The run's policies, recipe or personas may have changed since; then the record was to be
        # made anew, and the prompt waits.
        newest = "SELECT made_of FROM temp.kept ORDER BY finished DESC LIMIT 1"
        after, count = -1, 0
        while found := db.execute(
            f"SELECT number, record, made_of = ({newest}) FROM records"  # noqa: S608
            " JOIN temp.kept USING (number) WHERE number > ?"
            " AND number NOT IN (SELECT number FROM prompts) ORDER BY number LIMIT 100",
            (after,),
        ).fetchall():
            for after, text, current in found:
                record = read_kept(text)
                named = (record.id, Prompt("", record.prompt).digest)
                told = (record.prompt, json.dumps(record.metadata, ensure_ascii=False))
                # Stop reason and rounds follow from the outcome, below.
                outcome = record.outcome if current else None
                total = checksum(after, *named, *told)
                added = db.execute(
                    "INSERT OR IGNORE INTO prompts VALUES (?, ?, ?, ?, ?, NULL, NULL, 0, ?, ?, ?)",
                    (after, *named, source, outcome, *told, total),
                ).rowcount
                count += added
                if not added:  # its text or its id is that of a prompt under another number
                    db.execute("DELETE FROM temp.kept WHERE number = ?", (after,))
        return count

    def _settle_spend(self, db: sqlite3.Connection) -> None:
        """Takes the accounts over as far as they can be right: no less than the replies say."""
        self.done.spend = True
        for model in {*self._used, *(model for model, _ in self._spend)}:
            rows = {price: sums for (of, price), sums in self._spend.items() if of == model}
            used = self._used.get(model, Counter())
            least = [used[name] for name in ("calls", "prompt", "completion", "cached")]
            totals = [sum(column) for column in zip(*rows.values(), strict=True)] or [0] * 4
            if any(total < low for total, low in zip(totals, least, strict=True)):
                self.done.spend = False
                rows = {"": least}
            for price, sums in rows.items():
                db.execute("INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?)", (model, price, *sums))

    def _count(self, db: sqlite3.Connection) -> None:
        def one(query: str) -> int:
            return int(db.execute(query).fetchone()[0] or 0)

        once = {
            "prompts": one("SELECT max(number) + 1 FROM prompts"),
            "calls": max(one("SELECT max(call) FROM calls"), one("SELECT sum(calls) FROM spend")),
            "records": one("SELECT count(*) FROM records") + self.done.replayed,
        }
        for table, number in (("prompts", "number"), ("calls", "call"), ("records", "number")):
            there = one(f"SELECT count(*) FROM {table}")  # noqa: S608
            damaged = one(
                f"SELECT count(*) FROM temp.damaged WHERE kind = '{table}'"  # noqa: S608
                f" AND number NOT IN (SELECT {number} FROM {table})"
            )
            missing = max(0, once[table] - there - damaged)
            self.done.tables[table] = Count(there, damaged, missing)
