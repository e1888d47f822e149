"""`Transaction`: what can be changed in a journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import NamedTuple, TypeAlias, TypeVar

from orchestration.journal.schema import (
    COLUMNS,
    ModelSpend,
    Value,
    chat_of,
    checksum,
    verify,
)
from orchestration.journal.tally import Tally, begin_tally, read_identity

T = TypeVar("T")
_KEY_BYTES = 16

Changes: TypeAlias = tuple[tuple[str, str], ...]
"""Columns and SQL expressions for them."""

PENDING: Changes = (("outcome", "NULL"), ("ending", "NULL"))
_MORE_SPEND: Changes = tuple(
    (column, f"{column} + ?{place}") for place, column in enumerate(COLUMNS["spend"][2:], 3)
)


class KnownSource(NamedTuple):
    """A source as the journal has it."""

    source: int
    """Its number."""
    counts: str | None
    """As `finish_source` stored them; None if the source must be read."""


class IdTakenError(Exception):
    """Another prompt of the run has the id."""


def update(db: sqlite3.Connection, table: str, changes: Changes, where: str, *values: Value) -> int:
    """Updates rows and their checksums.

    Args:
        db: A connection on which `add_checksum_function` was called.
        table: The table.
        changes: Columns and SQL expressions.
        where: Which rows; `?1` is the first value, in the expressions too.
        values: The values.

    Returns:
        How many rows.
    """
    return db.execute(_update_query(table, changes, where), values).rowcount


@cache
def _update_query(table: str, changes: Changes, where: str) -> str:
    new = dict(changes)
    after = ", ".join(new.get(column, column) for column in COLUMNS[table])
    new["checksum"] = f"checksum('{table}', {after})"
    changed = ", ".join(f"{column} = {expression}" for column, expression in new.items())
    return f"UPDATE {table} SET {changed} WHERE {where}"  # noqa: S608 - no user's text in it


def insert(db: sqlite3.Connection, table: str, *values: Value, verb: str = "INSERT") -> None:
    """Inserts a row with its checksum.

    Args:
        db: A connection.
        table: The table.
        values: The row, without its checksum.
        verb: Or `REPLACE`, or `INSERT OR IGNORE`.
    """
    marks = "?, " * len(values)
    db.execute(f"{verb} INTO {table} VALUES ({marks}?)", (*values, checksum(table, *values)))


def add_checksum_function(db: sqlite3.Connection) -> None:
    """Makes `checksum` known to SQL."""
    db.create_function("checksum", -1, checksum, deterministic=True)


class Transaction:
    """Changes that are committed together.

    Args:
        db: The writer's connection, which begins and commits.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._last_call: int | None = None
        self.tally: Tally | None = None
        """What the journal holds, with this transaction; None before the first."""
        add_checksum_function(db)

    # Of the writer

    def begin(self) -> None:
        """Begins a transaction."""
        if self.tally is None:
            self.tally = read_identity(self._db)[1] or begin_tally(self._db)

    def end(self) -> None:
        """Enters this transaction in the tally."""
        if self.tally is not None:
            self.tally = self.tally._replace(commits=self.tally.commits + 1)
            changes = (("value", "?1"),)
            update(self._db, "meta", changes, "key = 'tally'", self.tally.dump())

    # The run as a whole

    def set_meta(self, key: str, value: str) -> None:
        """Sets a property of the run."""
        insert(self._db, "meta", key, value, verb="REPLACE")

    def reopen(self, outcome: str | None = None) -> None:
        """Makes prompts pending again.

        Args:
            outcome: Only those of this outcome; all if left out.
        """
        if outcome is None:
            update(self._db, "progress", PENDING, "outcome IS NOT NULL")
        else:
            update(self._db, "progress", PENDING, "outcome = ?", outcome)

    def requeue(self, outcomes: Collection[str], void_in: Collection[str]) -> int:
        """Makes prompts pending again, to be retried.

        Args:
            outcomes: Prompts of these outcomes.
            void_in: Outcomes that follow from what the model said in the last turn: its replies
                stay in the journal, but are not used again.

        Returns:
            How many prompts.
        """
        voided = [outcome for outcome in outcomes if outcome in void_in]
        found = self._db.execute(
            "SELECT prompts.*, results.* FROM progress JOIN prompts USING (number)"  # noqa: S608 - marks
            f" JOIN results USING (number) WHERE outcome IN ({_marks(voided)})",
            voided,
        )
        prompt_columns = len(COLUMNS["prompts"]) + 1
        for row in found:
            prompt, result = row[:prompt_columns], row[prompt_columns:]
            verify("prompts", prompt)
            verify("results", result)
            chat, keys = chat_of(prompt[2]), result[2]
            for start in range(0, len(keys), _KEY_BYTES):
                key = keys[start : start + _KEY_BYTES]
                update(self._db, "calls", (("void", "1"),), "chat = ? AND key = ?", chat, key)
        changes = (*PENDING, ("tries", "tries + 1"))
        return update(self._db, "progress", changes, f"outcome IN ({_marks(outcomes)})", *outcomes)

    # Replies and results

    def store_reply(
        self, chat: int, key: bytes, model: str, price: str, reply: str, tokens: tuple[int, ...]
    ) -> None:
        """Stores a model's reply.

        Args:
            chat: `chat_of` the prompt.
            key: Hash of everything that shaped the reply.
            model: Name of the model.
            price: What the model's tokens cost; empty if unknown.
            reply: The reply.
            tokens: Prompt, completion, cached and estimated tokens of the call.
        """
        if self._last_call is None:
            query = "SELECT ifnull(max(call), 0) FROM calls"
            self._last_call = int(self._db.execute(query).fetchone()[0])
        self._last_call += 1
        call = self._last_call
        insert(self._db, "calls", call, chat, key, 0, model, price, *tokens[:3], reply)
        if self.tally is not None:
            self.tally = self.tally.plus(chat)
        self.add_spend(ModelSpend(model, price, 1, *tokens))

    def add_spend(self, spend: ModelSpend) -> None:
        """Adds to what was spent on a model at a price."""
        if not update(self._db, "spend", _MORE_SPEND, "model = ?1 AND price = ?2", *spend):
            insert(self._db, "spend", *spend)

    def store_result(
        self, number: int, outcome: str, ending: str, result: str, last_turn: Iterable[bytes] = ()
    ) -> None:
        """Stores what a run made of a prompt; replaces an earlier result.

        Args:
            number: Number of the prompt.
            outcome: Its outcome.
            ending: How the chat ended; results of the same ending are counted together.
            result: The result.
            last_turn: Keys of the replies of the last turn, which a retry may void.
        """
        insert(self._db, "results", number, result, b"".join(last_turn), verb="REPLACE")
        changes = (("outcome", "?2"), ("ending", "?3"))
        update(self._db, "progress", changes, "number = ?1", number, outcome, ending)

    # Sources and their prompts

    def register_source(self, spec: str, fingerprint: str | None, counts: str) -> KnownSource:
        """The number of a source.

        Args:
            spec: What it is.
            fingerprint: Changes with the source; None if unknown.
            counts: Those of a source of which nothing was read yet.

        Returns:
            The source; with counts if it is unchanged and need not be read again.
        """
        # Only the last one: a later source may have adopted some of an earlier one's prompts.
        found = self._db.execute("SELECT * FROM sources ORDER BY source DESC LIMIT 1").fetchone()
        if found:
            verify("sources", found)
            if fingerprint is not None and found[1:4] == (spec, fingerprint, 1):
                return KnownSource(found[0], found[4])
        source = found[0] + 1 if found else 1
        insert(self._db, "sources", source, spec, fingerprint, 0, counts)
        return KnownSource(source, None)

    def finish_source(self, source: int, fingerprint: str | None, counts: str) -> None:
        """A source was read to its end."""
        changes = (("complete", "1"), ("fingerprint", "?2"), ("counts", "?3"))
        update(self._db, "sources", changes, "source = ?1", source, fingerprint, counts)

    def next_number(self) -> int:
        """The number of the next new prompt."""
        # A note may be all that is left of a prompt: its number is not given to another one.
        query = "SELECT max(number) FROM {}"
        found = [
            self._db.execute(query.format(table)).fetchone()[0] for table in ("prompts", "notes")
        ]
        return max((number + 1 for number in found if number is not None), default=0)

    def insert_prompt(
        self, number: int, prompt_id: str, digest: bytes, text: str, metadata: str, source: int
    ) -> tuple[int, bool] | None:
        """Inserts a prompt. One that an earlier source named is adopted by this one.

        Returns:
            Number of the prompt, and whether it is pending; None if this source has it already.

        Raises:
            IdTakenError: Another prompt has the id.
        """
        query = "SELECT progress.* FROM prompts JOIN progress USING (number) WHERE digest = ?"
        found = self._db.execute(query, (digest,)).fetchone()
        if found is None:
            try:
                insert(self._db, "prompts", number, prompt_id, digest, text, metadata)
            except sqlite3.IntegrityError:
                raise IdTakenError from None
            insert(self._db, "progress", number, source, None, None, 0)
            return number, True
        verify("progress", found)
        if found[1] == source:
            return None
        update(self._db, "progress", (("source", "?2"),), "number = ?1", found[0], source)
        return found[0], found[2] is None

    def source_of(self, prompt_id: str) -> int | None:
        """The source that named a prompt last; None if the id is unknown."""
        query = "SELECT source FROM prompts JOIN progress USING (number) WHERE id = ?"
        found = self._db.execute(query, (prompt_id,)).fetchone()
        return None if found is None else int(found[0])

    # What else a kind of run stores

    def add_note(self, topic: str, scope: str, number: int, data: str) -> None:
        """Adds a note of a prompt, after all others of its topic.

        Args:
            topic: What it is about.
            scope: Under which settings it was made.
            number: The prompt's number.
            data: The note.
        """
        query = "SELECT ifnull(max(note), 0) + 1 FROM notes WHERE topic = ?"
        note = self._db.execute(query, (topic,)).fetchone()[0]
        insert(self._db, "notes", topic, note, scope, number, data)

    def add_to_buckets(self, number: int, buckets: Iterable[int]) -> None:
        """Adds a result to the index of near-duplicates."""
        rows = [(bucket, number) for bucket in buckets]
        self._db.executemany("INSERT OR IGNORE INTO buckets VALUES (?, ?)", rows)

    def clear_buckets(self) -> None:
        """Empties the index of near-duplicates."""
        self._db.execute("DELETE FROM buckets")


Change: TypeAlias = Callable[[Transaction], T]
"""Changes a journal; called in the writer's thread."""


def _marks(values: Collection[str]) -> str:
    return ", ".join("?" * len(values))
