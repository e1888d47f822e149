"""The run's id, and the tally that every transaction updates: see `journal/checks.py`."""

from __future__ import annotations

import re
import sqlite3
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple, Self

from orchestration.journal.errors import DamageError
from orchestration.journal.schema import SCHEMA_VERSION, checksum, verify

_MASK = 0xFFFFFFFF
_RUN_ID = re.compile(rb"^run: '?([0-9a-f]{16})'?\s*$", re.MULTILINE)


class Tally(NamedTuple):
    """How much a journal has stored."""

    run: str
    """The run's id."""
    commits: int
    """Transactions."""
    calls: int
    """Rows of `calls`."""
    chats: int
    """Sum of their chats' last 32 bits, modulo 2**32."""

    def plus(self, chat: int) -> Self:
        """With another call of a chat."""
        chats = (self.chats + (chat & _MASK)) & _MASK
        return self._replace(calls=self.calls + 1, chats=chats)

    def dump(self) -> str:
        """As the journal stores it."""
        return " ".join(map(str, self))

    @classmethod
    def load(cls, text: str) -> Self:
        """What `dump` dumped."""
        try:
            run, *counts = text.split(" ")
            return cls(run, *map(int, counts))
        except (ValueError, TypeError):
            raise DamageError("the tally is malformed") from None


def count_calls(db: sqlite3.Connection) -> tuple[int, int]:
    """Calls and chats of a tally, as the index of the calls has them."""
    query = "SELECT count(*), ifnull(sum(chat & ?), 0) FROM calls INDEXED BY calls_by_chat"
    calls, chats = db.execute(query, (_MASK,)).fetchone()
    return calls, chats & _MASK


def read_identity(db: sqlite3.Connection) -> tuple[str | None, Tally | None]:
    """The run's id and the tally; None for what is not there.

    Raises:
        DamageError, sqlite3.Error: They cannot be read.
    """
    found = {}
    for row in db.execute("SELECT * FROM meta WHERE key IN ('run', 'tally')").fetchall():
        verify("meta", row)
        found[row[0]] = row[1]
    return found.get("run"), Tally.load(found["tally"]) if "tally" in found else None


def begin_tally(db: sqlite3.Connection) -> Tally:
    """Stores the tally of what there is, instead of one that there may be."""
    db.execute("DELETE FROM meta WHERE key = 'tally'")
    tally = Tally(read_identity(db)[0] or "", 0, *count_calls(db))
    row = ("tally", tally.dump())
    db.execute("INSERT INTO meta VALUES (?, ?, ?)", (*row, checksum("meta", *row)))
    return tally


def find_run_id(settings: Path) -> str | None:
    """The run's id as its `run.yaml` has it; None if it has none, as in older runs."""
    with suppress(OSError):  # not by YAML, which takes a while: every command asks
        found = _RUN_ID.search(settings.read_bytes())
        return found[1].decode() if found else None
    return None


def identify(db: sqlite3.Connection, run: str | None = None) -> None:
    """Stores the version of the schema and the run's own id, if they are missing.

    Args:
        db: A connection.
        run: The id; a new one if left out.
    """
    # The id tells the run from another one that is created at the same place later.
    for key, value in (("schema", str(SCHEMA_VERSION)), ("run", run or token_hex(8))):
        db.execute(
            "INSERT OR IGNORE INTO meta VALUES (?, ?, ?)",
            (key, value, checksum("meta", key, value)),
        )
