"""What is in a journal: its tables, and the rows as the rest of the program sees them.

Every row of prompts, replies and records carries a checksum, so that a byte that a disk has changed
is noticed before it is used. `aidsafe salvage` tells the tables' rows apart by their number of
columns and their types: no two tables may have the same (but for sketches, which are made anew).
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from typing import Any, NamedTuple

from agents.models.model import Answer
from agents.turns import Usage
from orchestration.journal.errors import DamageError

FILE_NAME = "journal.sqlite"
SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Where prompts came from. A source that was read to its end, and has not changed since, is not
-- read again.
CREATE TABLE sources (
    source INTEGER PRIMARY KEY,
    spec TEXT NOT NULL,            -- file, columns and limit, as JSON
    fingerprint TEXT,              -- size and time of a file; NULL where nothing tells
    complete INTEGER NOT NULL,     -- whether it was read to its end
    counts TEXT NOT NULL           -- rows read and left out, as JSON
);

CREATE TABLE prompts (
    number INTEGER PRIMARY KEY,    -- place among those handed out, from 0
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL UNIQUE,   -- of the text, so that none is run twice
    source INTEGER NOT NULL,       -- the last source that named it
    outcome TEXT,                  -- NULL while it waits, or is taken up again
    stop_reason TEXT,
    rounds INTEGER,
    tries INTEGER NOT NULL,        -- how often it was taken up again by `retry`
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,        -- the other columns of its row, as JSON
    checksum INTEGER NOT NULL      -- over number, id, digest, text and metadata
);
CREATE INDEX prompts_waiting ON prompts (source, number) WHERE outcome IS NULL;
CREATE INDEX prompts_by_outcome ON prompts (outcome, stop_reason, rounds)
    WHERE outcome IS NOT NULL;

-- Every reply of a model, written before anyone reads it.
CREATE TABLE calls (
    call INTEGER PRIMARY KEY,      -- in the order in which they were kept
    prompt INTEGER NOT NULL,       -- `chat_of` the prompt: its replies are found without its row
    key BLOB NOT NULL,             -- hash of everything that shaped the reply
    void INTEGER NOT NULL,         -- 1 once `retry` asks anew instead of using it
    model TEXT NOT NULL,
    answer TEXT NOT NULL,          -- the reply, as JSON
    checksum INTEGER NOT NULL      -- over prompt, key, model and answer
);
CREATE INDEX calls_by_prompt ON calls (prompt);

CREATE TABLE records (
    number INTEGER PRIMARY KEY,    -- the prompt's number
    record TEXT NOT NULL,          -- the CoT record as JSON, whatever the outcome
    checksum INTEGER NOT NULL      -- over number and record
);

-- What was paid for, summed up: counting a million calls would take seconds.
CREATE TABLE spend (
    model TEXT NOT NULL,
    price TEXT NOT NULL,           -- as JSON, as it was configured then; empty if none was
    calls INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    PRIMARY KEY (model, price)
) WITHOUT ROWID;

INSERT INTO meta VALUES ('schema', '2');
-- Tells it from another that is made at the same place later.
INSERT INTO meta VALUES ('run', lower(hex(randomblob(8))));
"""


PAIR_SCHEMA = """
-- What a run that makes pairs has beside that: beliefs that worked, in the order in which exemplars
-- were updated with them.
CREATE TABLE IF NOT EXISTS lessons (
    lesson INTEGER PRIMARY KEY,    -- from 1
    settings TEXT NOT NULL,        -- hash of those that it was learnt under
    number INTEGER NOT NULL,       -- the prompt's
    attempt INTEGER NOT NULL,      -- which of its chat's, from 1
    policy TEXT NOT NULL,          -- whose exemplars it changed
    belief TEXT NOT NULL,
    led_to TEXT NOT NULL,
    score TEXT NOT NULL,           -- as Python writes it
    checksum INTEGER NOT NULL      -- over all of these
);
CREATE UNIQUE INDEX IF NOT EXISTS lessons_by_number ON lessons (settings, number);

-- What a chat was given when it began.
CREATE TABLE IF NOT EXISTS begun (
    begun INTEGER PRIMARY KEY,
    settings TEXT NOT NULL,        -- hash of those that it began under
    number INTEGER NOT NULL,       -- the prompt's
    lesson INTEGER NOT NULL,       -- the last one that was known then
    generation INTEGER NOT NULL,   -- lessons of its target among them
    checksum INTEGER NOT NULL      -- over all of these but the first
);
CREATE UNIQUE INDEX IF NOT EXISTS begun_by_number ON begun (settings, number);

-- Of the rejected sides of kept pairs, to find those that repeat an earlier one. Made anew from the
-- pairs if it is lost.
CREATE TABLE IF NOT EXISTS sketches (
    hash INTEGER NOT NULL,
    number INTEGER NOT NULL,       -- the prompt's
    PRIMARY KEY (hash, number)
) WITHOUT ROWID;
"""


def make_pair_tables(db: sqlite3.Connection) -> None:
    """Makes the tables of `PAIR_SCHEMA`, if they are not there; the caller commits."""
    for statement in PAIR_SCHEMA.split(";"):
        db.execute(statement)


class Waiting(NamedTuple):
    """A prompt that has no outcome yet."""

    number: int
    id: str
    text: str
    metadata: dict[str, Any]
    tries: int
    chat: int
    """What its calls are filed under."""


class Spent(NamedTuple):
    """What was spent on one model at one price."""

    model: str
    price: str
    calls: int
    usage: Usage


def checksum(*parts: bytes | str | int) -> int:
    """A checksum over the parts of a row, in their order."""
    total = 0
    for part in parts:
        total = zlib.crc32(part if isinstance(part, bytes) else str(part).encode(), total)
    return total


def checked(found: int, *parts: bytes | str | int) -> None:
    """Passes if a row's checksum is right.

    Raises:
        DamageError: It is not.
    """
    if any(not isinstance(part, bytes | str | int) for part in parts) or checksum(*parts) != found:
        raise DamageError("a row is not as it was written")


def chat_of(digest: bytes) -> int:
    """What a prompt's calls are filed under: the first 8 bytes of its digest, as SQLite's integer.

    Not the prompt's number: if its row is lost and the prompt is read anew, it gets another.
    """
    return int.from_bytes(digest[:8], "big", signed=True)


def dump_answer(answer: Answer) -> str:
    """A reply as the journal keeps it: what is as usual is left out."""
    usage = answer.usage
    data = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "tokens": [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens],
        "latency": round(answer.latency, 4),
        "refusal": answer.refusal,
        "served_model": answer.served_model,
        "json_as": answer.json_as,
        "attempts": answer.attempts,
        "first_token": answer.first_token,
    }
    data = {k: v for k, v in data.items() if v is not None}
    text = json.dumps(data, ensure_ascii=False)
    # Half of a surrogate pair, which a model may well write, is no text that SQLite takes.
    return text if _is_utf8(text) else json.dumps(data)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_answer(text: str) -> Answer:
    """The reply that `dump_answer` dumped."""
    data = json.loads(text)
    prompt, completion, cached = data["tokens"]
    return Answer(
        text=data["text"],
        finish_reason=data["finish_reason"],
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached),
        latency=data["latency"],
        refusal=data.get("refusal"),
        served_model=data.get("served_model"),
        json_as=data.get("json_as"),
        attempts=data.get("attempts", 1),
        first_token=data.get("first_token"),
    )
