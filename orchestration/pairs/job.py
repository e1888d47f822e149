"""What a pair run does with each record: a pair chat, a pair, a lesson."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console

from agents.models.model import Model
from agents.pairs.agents import PairAgent
from agents.pairs.state import CandidateAnswer, PairBrief
from agents.persona import Persona
from agents.prompt_texts import read_prompts
from orchestration.chat.thread import Message
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, Change, Journal, PendingPrompt, Transaction
from orchestration.pairs.duplicates import DuplicateIndex
from orchestration.pairs.exemplars import Seeds
from orchestration.pairs.export import export_pairs
from orchestration.pairs.lessons import Lessons
from orchestration.pairs.pair import KEPT, SET_ASIDE, PreferencePair
from orchestration.pairs.recipe import PairCast, PairRecipe
from orchestration.pairs.serialize import PairSerializer, lesson_of
from orchestration.pairs.view import pair_row, print_pair
from orchestration.prompts.reader import Prompt
from orchestration.runs.export import ExportOptions
from orchestration.runs.intake import Source
from orchestration.runs.job import (
    ChatTask,
    Fingerprints,
    Job,
    Kind,
    Tallies,
    WrapModel,
    fingerprint,
    fingerprints,
)
from orchestration.runs.result import Interruption, split_ending
from orchestration.runs.results import RunResults
from policies import PolicySet

BASELINE = "baseline"
"""The folder of pairs that were made by sampling alone."""
_MAX_CHOSEN = "audit.max_chosen"


class PairTask(ChatTask[PreferencePair]):
    """The chat that makes a pair of one record."""

    def __init__(
        self, job: PairJob, number: int, record: CoTRecord, brief: PairBrief, wrap: WrapModel
    ) -> None:
        self._job, self._number, self._record, self._brief = job, number, record, brief
        self.team = job.cast.make_chat(wrap) if brief.target else None
        self.task = brief.task(record.prompt)

    def result(
        self,
        messages: Sequence[Message],
        stop_reason: str | None,
        started: datetime,
        interruption: Interruption | None = None,
    ) -> PreferencePair:
        """See `ChatTask`."""
        job, number = self._job, self._number
        chat = (messages, stop_reason, started, interruption)
        find = partial(job.find_repeated, number)
        pair = job.serializer.pair(self._record, self._brief, *chat, find)
        # The lesson comes last, after everything that can fail: this is called again after an
        # error, and a lesson must be learnt once. The run then queues the result at once, so that
        # lessons are stored in the order in which they are learnt.
        self._changes = (job.index(number, pair), job.learn(number, pair))
        return pair

    def store_with(self, result: PreferencePair, transaction: Transaction) -> None:
        """Stores the pair's bands in the index of near-duplicates, and its lesson."""
        for change in filter(None, self._changes):
            change(transaction)


class PairJob(Job):
    """Makes preference pairs of a run's completed records.

    Raises:
        JournalError: There is no run of records, or its journal is damaged.
    """

    def __init__(self, cast: PairCast, records: Path) -> None:
        self.kind = PAIRS
        self.cast: PairCast = cast
        self.serializer = PairSerializer(cast)
        self.records = Journal(records / FILE_NAME)
        """The journal of the records."""
        self._results = RunResults(self.records, RECORDS)
        self._bound = cast.recipe.audit.duplicates
        self._folder = records

    def source(self, limit: int | None = None) -> Source:
        """Where its prompts come from: the completed records."""
        # Records may have been added or removed.
        mark = f"{self.records.completed_fingerprint()}:{self._origin()}"
        return Source(f"records of {self._folder.resolve()}", limit=limit, mark=mark)

    def _origin(self) -> list[str | None]:
        """Which run the records are of, and what they were made with."""
        return [self.records.meta("run"), self.records.meta("settings")]

    def prompts(self) -> Iterator[Prompt]:
        """The prompts of the completed records."""
        return (Prompt(p.id, p.text, p.metadata) for p in self.records.completed())

    def settings(self) -> dict[str, Any]:
        """See `Job`."""
        cast = self.cast
        return {
            "records": str(self._folder.resolve()),
            "baseline": cast.baseline,
            "policies": cast.own_policies.model_dump(mode="json"),
            "prompt_texts": cast.prompts.model_dump(mode="json"),
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
        # Another name changes nothing; the content of seeds and prompts counts, not their path.
        del recipe["name"], recipe["description"], recipe["seeds"], recipe["prompts"]
        # The audit can be repeated without a call, except for the bound that ends chats.
        audit = dict(recipe.pop("audit"))
        recipe[_MAX_CHOSEN] = audit.pop("max_chosen")
        return {
            **fingerprints(
                settings | {"policies": scored}, self.cast.models_in_use, PairAgent.section
            ),
            "recipe": {name: fingerprint(value) for name, value in recipe.items()},
            "seeds": {self.cast.seeds.name: fingerprint(settings["seeds"])},
            "records": {"the run": fingerprint(self._origin())},
            "audit": {name: fingerprint(value) for name, value in audit.items()},
        }

    def prepare(self, changed: Mapping[str, list[str]], transaction: Transaction) -> None:
        """Empties the index of near-duplicates if settings have changed."""
        if changed:
            transaction.clear_buckets()

    async def open(self, journal: Journal) -> None:
        """See `Job`."""
        # The audit concerns finished chats, and other records leave a record's chat as it was.
        learning = self.fingerprints()
        del learning["audit"], learning["records"], learning["recipe"][_MAX_CHOSEN]
        self._lessons = Lessons(journal, fingerprint(learning), self.cast)
        self._pairs = RunResults(journal, PAIRS)
        self._index = DuplicateIndex(journal, self._kept_text)
        if self._bound is not None:
            endings = journal.unindexed()
            await self._index.restore([n for n, e in endings if split_ending(e)[0] == KEPT])

    async def chat(self, prompt: PendingPrompt, wrap: WrapModel) -> PairTask | None:
        """See `Job`. None while the record is being made again."""
        record = self._results.completed(Prompt("", prompt.text).digest)
        if record is None:
            return None
        brief = self.cast.brief(record)
        if brief.target and not self.cast.baseline:
            await self._lessons.begin(prompt.number, brief)
        return PairTask(self, prompt.number, record, brief, wrap)

    def find_repeated(self, number: int, rejected: CandidateAnswer) -> str | None:
        """Id of an earlier kept pair that a rejected side nearly repeats; None if there is none."""
        bound = self._bound
        found = None if bound is None else self._index.find(number, rejected.text, bound)
        return None if found is None else self._pairs.journal.prompt(found)[0].id

    def _kept_text(self, number: int) -> str | None:
        pair = self._pairs.get(number)
        return None if pair is None else pair.kept_text

    def index(self, number: int, pair: PreferencePair) -> Change[None] | None:
        """Adds a kept pair to the index of near-duplicates; returns what to commit with it."""
        if self._bound is None or pair.kept_text is None:
            return None
        bands = self._index.add(number, pair.kept_text)
        return lambda tx: tx.add_to_buckets(number, bands)

    def learn(self, number: int, pair: PreferencePair) -> Change[None] | None:
        """Learns from a pair; returns what to commit with it, if there is a lesson."""
        exemplar = lesson_of(pair)
        return None if exemplar is None else self._lessons.learn(number, exemplar)

    def close(self) -> None:
        """Closes the journal of the records."""
        self.records.close()


class PairKind(Kind[PreferencePair]):
    """Runs that make preference pairs of another run's records."""

    name = "pairs"
    columns = ("outcome", "pair", "target", "score", "margin", "attempts")
    formats: ClassVar[Mapping[str, str]] = {
        "pairs": "whole pairs that passed the audit",
        "dpo": "prompt, chosen and rejected as chat messages",
    }
    subfolder = name
    command = "aidsafe prefer"
    changes_note = (
        ". None are if only the audit changed, except for max_chosen, which ends chats; otherwise "
        "the ear-whisperer learns from the beginning."
    )
    unsafe_text = "beliefs, rejected sides, transcripts"
    export_warning = "do not train on their rejected sides"

    def read(self, text: str) -> PreferencePair:
        """See `Kind`."""
        return PreferencePair.model_validate_json(text)

    def tallies(self, endings: Mapping[str, int]) -> Tallies:
        """See `Kind`: what the audit decided, and in which attempt kept pairs were made."""
        audit: Counter[str] = Counter()
        attempts: Counter[int] = Counter()
        for ending, count in endings.items():
            reason, number = split_ending(ending)
            audit[reason] += count
            if reason == KEPT:
                attempts[number] += count
        return {
            "audit": {reason: audit[reason] for reason in (KEPT, *SET_ASIDE) if audit[reason]},
            "kept_in_attempt": {str(n): attempts[n] for n in sorted(attempts)},
        }

    def lines(
        self, read: Callable[[], Iterable[PreferencePair]], form: str, options: ExportOptions
    ) -> Iterator[str]:
        """See `Kind`."""
        return export_pairs(read, form, options)

    def load_job(self, folder: Path, settings: dict[str, Any], models: Mapping[str, Model]) -> Job:
        """See `Kind`."""
        cast = PairCast(
            PairRecipe.model_validate(settings["recipe"]),
            PolicySet.model_validate(settings["policies"]),
            {n: Persona.model_validate(p) for n, p in settings["personas"].items()},
            models,
            Seeds.model_validate(settings["seeds"]),
            bool(settings["baseline"]),
            read_prompts(settings["prompt_texts"]),
        )
        return PairJob(cast, records_of(folder, settings))

    def next_steps(self, folder: str, tallies: Tallies) -> list[tuple[str, str]]:
        """See `Kind`."""
        steps = [("Report", f"aidsafe pairs {folder}")]
        if tallies["audit"].get(KEPT):
            steps.append(("Export", f"aidsafe export {folder} --format dpo --out dpo.jsonl"))
        return steps

    def cells(self, result: PreferencePair) -> list[str]:
        """See `Kind`."""
        score = result.rejected.score if result.rejected is not None else None
        figures = ("" if each is None else f"{each:.2f}" for each in (score, result.margin))
        reason = result.reason if result.outcome == "completed" else ""
        return [result.outcome, reason, result.target, *figures, str(result.attempts)]

    def row(self, result: PreferencePair, unsafe: bool) -> dict[str, Any]:
        """See `Kind`."""
        return pair_row(result, unsafe)

    def show(
        self, console: Console, result: PreferencePair, *, instructions: bool, show_unsafe: bool
    ) -> None:
        """See `Kind`."""
        print_pair(console, result, show_unsafe, instructions)


PAIRS = PairKind()


def records_of(folder: Path, settings: dict[str, Any]) -> Path:
    """The run whose records the pairs of a folder with such settings are made of."""
    path = folder.resolve()
    # Inside the run of its records, where it moved with that.
    inside = path.name in (PAIRS.name, BASELINE) and (path.parent / FILE_NAME).exists()
    return path.parent if inside else Path(settings["records"])
