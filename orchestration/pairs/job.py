"""What a pair run does with each record: a pair chat, a pair, a lesson."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from autogen_agentchat.messages import TextMessage

from agents.models.model import Model
from agents.pairing import Answer, BriefMessage, PairBrief
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.schema import Waiting, make_pair_tables
from orchestration.pairs.duplicates import (
    Sketch,
    Sketches,
    keep,
    pair_text,
    sketch,
)
from orchestration.pairs.lessons import Lessons
from orchestration.pairs.pair import KEPT, PreferencePair
from orchestration.pairs.recipe import OVER_REFUSAL, PairCast, is_benign
from orchestration.pairs.serialize import PairSerializer, Task, chosen_answer, lesson_of
from orchestration.prompts import Prompt
from orchestration.runs.intake import Source
from orchestration.runs.job import (
    BrokeOff,
    Change,
    Chat,
    Fingerprints,
    Kind,
    Wrap,
    fingerprint,
    fingerprints,
)
from orchestration.thread import Message

PAIRS = "pairs"
"""Kind of a run that makes pairs; also the folder of its pairs in the run of its records."""
BASELINE = "baseline"
"""The folder of pairs that were made by sampling alone."""
_MAX_CHOSEN = "audit.max_chosen"
_BATCH = 200  # pairs whose sketches are made anew in one transaction
_PENDING = 200  # sketches in memory, before those are let go that are on disk


class PairJob:
    """Makes preference pairs of a run's completed records.

    Args:
        cast: Who makes them.
        records: The run of the records; only read.

    Raises:
        JournalError: There is no run, or its journal is damaged.
    """

    kind: Kind = "pairs"

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
        # Which records there are, and what they were made with: some could have been added, others
        # be gone.
        [which] = self.records.rows(
            "SELECT count(*), total(number), total(number * number) FROM prompts"
            " WHERE outcome = 'completed'"
        )
        mark = f"{which}:{self._which()}"
        return Source(f"records of {self._folder.resolve()}", limit=limit, mark=mark)

    def _which(self) -> list[str | None]:
        """Which run the records are of, and what they were made with."""
        return [self.records.meta("run"), self.records.meta("settings")]

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        cast = self.cast
        return {
            "kind": PAIRS,
            "records": str(self._folder.resolve()),
            "baseline": cast.baseline,
            "policies": cast.own_policies.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "seeds": cast.seeds.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
        }

    def fingerprints(self) -> Fingerprints:
        """See `Job`."""
        settings = self.settings()
        scored = self.cast.policy_set.model_dump(mode="json")
        recipe = dict(settings["recipe"])
        # What it is called changes nothing: a copy that is edited usually gets another name.
        del recipe["name"], recipe["description"]
        del recipe["seeds"]  # its content is looked at, wherever it is
        # So is the audit by itself: it can be done again without a single call, but for the one
        # bound that ends chats, too.
        audit = dict(recipe.pop("audit"))
        recipe[_MAX_CHOSEN] = audit.pop("max_chosen")
        return {
            **fingerprints(settings | {"policies": scored}, self.models_in_use),
            "recipe": {name: fingerprint(value) for name, value in recipe.items()},
            "seeds": {self.cast.seeds.name: fingerprint(settings["seeds"])},
            "records": {"the run": fingerprint(self._which())},
            "audit": {name: fingerprint(value) for name, value in audit.items()},
        }

    def settled(self, changed: dict[str, list[str]]) -> Change:
        """Makes its tables; which pairs repeat others is found out anew."""

        def change(db: sqlite3.Connection) -> None:
            make_pair_tables(db)
            db.execute("REPLACE INTO meta VALUES ('kind', ?)", (PAIRS,))
            if changed:
                db.execute("DELETE FROM sketches")

        return change

    async def open(self, journal: Journal) -> None:
        """See `Job`."""
        cast = self.cast
        self._journal = journal
        # What was learnt under other settings is kept, for when they are changed back. The audit is
        # about what chats came to; and what records changed leaves the others' chats as they were.
        learning = self.fingerprints()
        del learning["audit"], learning["records"], learning["recipe"][_MAX_CHOSEN]
        self.lessons = Lessons(
            journal, fingerprint(learning), cast.recipe, cast.seeds, cast.policy_set.policy_ids
        )
        self._sketches = Sketches(journal.rows)
        if cast.recipe.audit.duplicates is not None:
            await self._sketch_anew(journal)

    async def _sketch_anew(self, journal: Journal) -> None:
        """Sketches kept pairs whose sketch is lost."""
        query = (
            "SELECT number, record FROM records JOIN prompts USING (number)"
            " WHERE outcome = 'completed' AND stop_reason = ?"
            " AND number > ? AND number NOT IN (SELECT number FROM sketches)"
            " ORDER BY number LIMIT ?"
        )
        after = -1
        while lost := list(journal.rows(query, KEPT, after, _BATCH)):
            after = lost[-1][0]
            found = [
                (number, sketch(pair_text(pair.rejected)))
                for number, text in lost
                if (pair := PreferencePair.model_validate_json(text)).rejected is not None
            ]

            def change(db: sqlite3.Connection, found: list[tuple[int, Sketch]] = found) -> None:
                for number, hashes in found:
                    keep(db, number, hashes)

            await journal.write(change)

    async def chat(self, waiting: Waiting, wrap: Wrap) -> Chat | None:
        """See `Job`. None while the record is being made anew."""
        record = self.records.about(Prompt("", waiting.text).digest)
        if record is None:
            return None
        cast = self.cast
        target = cast.target(record)
        exemplars, generation = (
            ((), 0)
            if cast.baseline or target is None
            else await self.lessons.begin(waiting.number, target)
        )
        brief = PairBrief(
            kind="over_refusal" if target == OVER_REFUSAL else "violation",
            target=target or "",
            counted=cast.counted(target or ""),
            benign=is_benign(record),
            chosen=chosen_answer(record),
            exemplars=list(exemplars),
            off_limits=cast.rules_off_limits,
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
            cast.make_chat(wrap) if target is not None else None,
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
        if len(self._sketches.pending) > _PENDING:
            self._sketches.let_go()
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
        looks = self.cast.recipe.audit.duplicates is not None
        text = pair_text(pair.rejected) if looks and pair.is_kept and pair.rejected else None
        hashes = self._sketches.add_pending(number, text) if text is not None else ()

        def change(db: sqlite3.Connection) -> None:
            if learn is not None:
                learn(db)
            keep(db, number, hashes)

        return change

    def close(self) -> None:
        """Closes the journal of the records."""
        self.records.close()
