"""The journal's tables, and the rows as the rest of the program sees them."""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from orchestration.journal.errors import DamageError, JournalError

FILE_NAME = "journal.sqlite"
SCHEMA_VERSION = 4
OLDER_VERSIONS = {"1": "0.1", "2": "0.1"}
"""Which version of aidsafe reads an older schema."""

Value: TypeAlias = int | str | bytes | None
"""What a column holds."""

_SCHEMA = """
-- Properties of the run.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);

-- Where prompts came from. A source that was read to its end, and has not changed since, is not
-- read again.
CREATE TABLE sources (
    source INTEGER PRIMARY KEY,
    spec TEXT NOT NULL,            -- what was read, and how
    fingerprint TEXT,              -- changes with the source; NULL if unknown
    complete INTEGER NOT NULL,     -- whether it was read to its end
    counts TEXT NOT NULL,          -- rows read and left out
    checksum INTEGER NOT NULL
);

-- Prompts never change; what does is in `progress`.
CREATE TABLE prompts (
    number INTEGER PRIMARY KEY,    -- position in the run, from 0
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE,   -- of the text, so that none is run twice
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,        -- the other columns of its row, as JSON
    checksum INTEGER NOT NULL
);

CREATE TABLE progress (
    number INTEGER PRIMARY KEY,    -- the prompt's number
    source INTEGER NOT NULL,       -- the last source that named the prompt
    outcome TEXT,                  -- NULL while the prompt is pending
    ending TEXT,                   -- how the chat ended, in the words of the run's kind
    tries INTEGER NOT NULL,        -- how often it was retried
    checksum INTEGER NOT NULL
);
CREATE INDEX progress_pending ON progress (source, number) WHERE outcome IS NULL;
CREATE INDEX progress_by_outcome ON progress (outcome, ending) WHERE outcome IS NOT NULL;

-- Every reply of a model, written before it is used.
CREATE TABLE calls (
    call INTEGER PRIMARY KEY,      -- in the order in which they were stored
    chat INTEGER NOT NULL,         -- `chat_of` the prompt: its replies are found without its row
    key BLOB NOT NULL,             -- hash of everything that shaped the reply
    void INTEGER NOT NULL,         -- 1 if a retry must call again instead of using it
    model TEXT NOT NULL,
    price TEXT NOT NULL,           -- as it was configured at the time; empty if it was not
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    reply TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE INDEX calls_by_chat ON calls (chat);

CREATE TABLE results (
    number INTEGER PRIMARY KEY,    -- the prompt's number
    result TEXT NOT NULL,          -- what the run made of it, whatever the outcome
    last_turn BLOB NOT NULL,       -- keys of the replies that a retry voids, 16 bytes each
    checksum INTEGER NOT NULL
);

-- What else a kind of run must remember, in an order of its own.
CREATE TABLE notes (
    topic TEXT NOT NULL,
    note INTEGER NOT NULL,         -- position among the notes of its topic, from 1
    scope TEXT NOT NULL,           -- a reader sees the notes of one scope
    number INTEGER NOT NULL,       -- the prompt's number
    data TEXT NOT NULL,
    checksum INTEGER NOT NULL
);
CREATE UNIQUE INDEX notes_by_position ON notes (topic, note);
CREATE UNIQUE INDEX notes_by_number ON notes (topic, scope, number);

-- Calls and tokens of all replies, summed up: adding up a million calls would take seconds.
CREATE TABLE spend (
    model TEXT NOT NULL,
    price TEXT NOT NULL,
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    estimated_tokens INTEGER NOT NULL, -- those among them that no endpoint has counted
    unusable INTEGER NOT NULL,     -- calls whose answer could not be used
    abandoned INTEGER NOT NULL,    -- attempts that timed out, not among the calls
    checksum INTEGER NOT NULL,
    PRIMARY KEY (model, price)
);

-- Index of results by their content, to find near-duplicates. Can be rebuilt from the results.
CREATE TABLE buckets (
    bucket INTEGER NOT NULL,
    number INTEGER NOT NULL,       -- the prompt's number
    PRIMARY KEY (bucket, number)
) WITHOUT ROWID;
"""

COLUMNS = {
    "meta": ("key", "value"),
    "sources": ("source", "spec", "fingerprint", "complete", "counts"),
    "prompts": ("number", "id", "digest", "text", "metadata"),
    "progress": ("number", "source", "outcome", "ending", "tries"),
    "calls": (
        *("call", "chat", "key", "void", "model", "price"),
        *("prompt_tokens", "completion_tokens", "cached_tokens", "reply"),
    ),
    "results": ("number", "result", "last_turn"),
    "notes": ("topic", "note", "scope", "number", "data"),
    "spend": (
        *("model", "price", "calls", "prompt_tokens", "completion_tokens", "cached_tokens"),
        *("estimated_tokens", "unusable", "abandoned"),
    ),
}
"""Columns of the tables whose rows have a checksum over all of them, as their last column."""


class PendingPrompt(NamedTuple):
    """A prompt of the run, as a chat takes it."""

    number: int
    id: str
    text: str
    metadata: dict[str, Any]
    tries: int
    """How often it was retried."""
    chat: int
    """What its calls are filed under."""


class ModelSpend(NamedTuple):
    """What was spent on one model at one price."""

    model: str
    price: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    estimated_tokens: int = 0
    unusable: int = 0
    abandoned: int = 0


def create_tables(db: sqlite3.Connection) -> None:
    """Creates all tables; inside a transaction."""
    # Without its comments the schema fits into the file's first page.
    for statement in re.sub(r"\s*--.*", "", _SCHEMA).split(";"):
        db.execute(statement)


def check_version(path: Path, db: sqlite3.Connection) -> None:
    """Checks the version of a journal's schema.

    Raises:
        JournalError: It is not the current one.
        DamageError, sqlite3.Error: It cannot be read.
    """
    row = db.execute("SELECT * FROM meta WHERE key = 'schema'").fetchone()
    if row is None:
        raise DamageError("the version of its schema is missing")
    if len(row) > 2:  # versions 1 and 2 had no checksum here
        verify("meta", row)
    if row[1] != str(SCHEMA_VERSION):
        version = OLDER_VERSIONS.get(row[1])
        raise JournalError(
            f"The journal {path} has schema version {row[1]}, "
            f"and this aidsafe reads version {SCHEMA_VERSION}.",
            f"Use aidsafe {version} to read it, or start a new run folder."
            if version
            else "Use the version of aidsafe that created it.",
        )


def checksum(table: str, *values: Value) -> int:
    """A checksum over a row, its table, and the types and lengths of its columns."""
    parts = [
        f"s{len(value)} {value}"
        if isinstance(value, str)
        else f"b{value.hex()}"
        if isinstance(value, bytes)
        else str(value)
        for value in values
    ]
    return zlib.crc32(" ".join([table, *parts]).encode())


def verify(table: str, row: Sequence[Any]) -> None:
    """Compares a row with its checksum.

    Raises:
        DamageError: They do not match.
    """
    if checksum(table, *row[:-1]) != row[-1]:
        raise DamageError("the checksum of a row does not match")


def chat_of(digest: bytes) -> int:
    """What a prompt's calls are filed under: the first 8 bytes of its digest, as SQLite's integer.

    Not the prompt's number: if its row is lost and the prompt is read again, it gets another.
    """
    return int.from_bytes(digest[:8], "big", signed=True)
