"""What a pair run does with each record: a pair chat, a pair, a lesson."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from autogen_agentchat.messages import TextMessage

from agents.models.model import Model
from agents.pairing import Answer, BriefMessage, PairBrief
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.schema import Waiting, make_pair_tables
from orchestration.pairs.duplicates import (
    Sketches,
    keep,
    pair_text,
    sketch,
)
from orchestration.pairs.lessons import Lessons
from orchestration.pairs.pair import KEPT, PreferencePair
from orchestration.pairs.recipe import OVER_REFUSAL, PairCast
from orchestration.pairs.serialize import PairSerializer, Task, chosen_answer, lesson_of
from orchestration.runs.intake import Source
from orchestration.runs.job import (
    BrokeOff,
    Change,
    Chat,
    Fingerprints,
    Wrap,
    fingerprint,
    fingerprints,
)
from orchestration.thread import Message

PAIRS = "pairs"
"""Kind of a run that makes pairs; also the folder of its pairs in the run of its records."""
BASELINE = "baseline"
"""The folder of pairs that were made by sampling alone."""
_PENDING = 200  # sketches in memory, before those are let go that are on disk


class PairJob:
    """Makes preference pairs of a run's completed records.

    Args:
        cast: Who makes them.
        records: The run of the records; only read.

    Raises:
        JournalError: There is no run, or its journal is damaged.
    """

    def __init__(self, cast: PairCast, records: Path) -> None:
        self.cast = cast
        self.records = Journal(records / FILE_NAME)
        self._folder = records
        self._serializer = PairSerializer(cast, self._repeats)
        self._number = 0  # whose pair is being looked at

    @property
    def name(self) -> str:
        """See `Job`."""
        return self.cast.recipe.name

    @property
    def models_in_use(self) -> list[Model]:
        """See `Job`."""
        return self.cast.models_in_use

    def source(self, limit: int | None = None) -> Source:
        """Where its prompts come from: the completed records."""
        done = self.records.outcomes()["completed"]
        mark = f"{done}:{self.records.meta('settings')}"
        return Source(f"records of {self._folder.resolve()}", limit=limit, mark=mark)

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        cast = self.cast
        return {
            "kind": PAIRS,
            "records": str(self._folder.resolve()),
            "baseline": cast.baseline,
            "policies": cast.policy_set.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "seeds": cast.seeds.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
        }

    def fingerprints(self) -> Fingerprints:
        """See `Job`."""
        settings = self.settings()
        # The audit is looked at by itself: it can be done again without a single call.
        audit = settings["recipe"].pop("audit")
        return {
            **fingerprints(settings, self.models_in_use),
            "seeds": {self.cast.seeds.name: fingerprint(settings["seeds"])},
            "records": {"the run": fingerprint(self.records.meta("settings"))},
            "audit": {"bounds": fingerprint(audit)},
        }

    def settled(self, changed: dict[str, list[str]]) -> Change:
        """Makes its tables; begins to learn anew if anything but the audit is another."""

        def change(db: sqlite3.Connection) -> None:
            make_pair_tables(db)
            db.execute("REPLACE INTO meta VALUES ('kind', ?)", (PAIRS,))
            if changed:
                db.execute("DELETE FROM sketches")
            if set(changed) - {"audit"}:
                db.execute("DELETE FROM lessons")
                db.execute("DELETE FROM begun")

        return change

    def open(self, journal: Journal) -> None:
        """See `Job`."""
        cast = self.cast
        self._journal = journal
        self.lessons = Lessons(journal, cast.recipe, cast.seeds, cast.policy_set.policy_ids)
        self._sketches = Sketches(journal.rows)
        if journal.reasons()[KEPT] and not any(journal.rows("SELECT 1 FROM sketches LIMIT 1")):
            self._sketch_anew(journal)

    def _sketch_anew(self, journal: Journal) -> None:
        """Sketches the kept pairs of a run whose sketches are lost."""
        for number, record in journal.rows(
            "SELECT number, record FROM records JOIN prompts USING (number)"
            " WHERE outcome = 'completed' AND stop_reason = ?",
            KEPT,
        ):
            rejected = PreferencePair.model_validate_json(record).rejected
            if rejected is not None:
                change = partial(keep, number=number, hashes=sketch(pair_text(rejected)))
                journal.write_from_thread(change)

    async def chat(self, waiting: Waiting, wrap: Wrap) -> Chat | None:
        """See `Job`. None while the record is being made anew."""
        record = self.records.named(waiting.id)
        if record is None or record.prompt != waiting.text:
            return None
        cast = self.cast
        target = cast.target(record)
        forbidden = cast.is_off_limits(record)
        exemplars, generation = (
            ((), 0)
            if cast.baseline or forbidden
            else await self.lessons.begin(waiting.number, target)
        )
        brief = PairBrief(
            kind="over_refusal" if target == OVER_REFUSAL else "violation",
            target=target,
            counted=cast.counted(target),
            chosen=chosen_answer(record),
            exemplars=list(exemplars),
        )
        task = Task(record, brief, generation)

        def make(
            messages: Sequence[Message],
            stop_reason: str | None,
            started: datetime,
            broke_off: BrokeOff | None,
        ) -> PreferencePair:
            self._number = waiting.number
            return self._serializer.pair(task, messages, stop_reason, started, broke_off)

        return Chat(
            None if forbidden else cast.make_chat(wrap),
            [
                TextMessage(content=record.prompt, source="user"),
                BriefMessage(content=brief, source="user"),
            ],
            make,
            lambda pair: self._keep(waiting.number, pair),
        )

    def _repeats(self, rejected: Answer) -> str | None:
        bound = self.cast.recipe.audit.duplicates
        if bound is None:
            return None
        pending = self._sketches.pending
        for number in list(pending) if len(pending) > _PENDING else ():
            if any(self._journal.rows("SELECT 1 FROM sketches WHERE number = ?", number)):
                self._sketches.committed(number)
        found = self._sketches.find(
            self._number, pair_text(rejected), bound=bound, fetch=self._rejected_text
        )
        return None if found is None else self._journal.prompt(found)[0].id

    def _rejected_text(self, number: int) -> str | None:
        pair = self._journal.record_of(PreferencePair, number)
        return pair_text(pair.rejected) if pair is not None and pair.rejected else None

    def _keep(self, number: int, pair: PreferencePair) -> Change:
        """What is committed with a pair: its lesson, and its sketch if it is kept."""
        exemplar = None if self.cast.baseline else lesson_of(pair)
        learn = self.lessons.learn(number, pair.attempts, exemplar) if exemplar else None
        text = pair_text(pair.rejected) if pair.is_kept and pair.rejected else None
        hashes = self._sketches.add_pending(number, text) if text is not None else ()

        def change(db: sqlite3.Connection) -> None:
            if learn is not None:
                learn(db)
            keep(db, number, hashes)

        return change

    def close(self) -> None:
        """Closes the journal of the records."""
        self.records.close()
