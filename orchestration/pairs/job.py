"""What a pair run does with each record: a pair chat, a pair, a lesson."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from agents.models.model import Model
from agents.pairs.replies import ScorerReply
from agents.pairs.state import CHOSEN_SCORER, CandidateAnswer
from agents.turns import Turn
from orchestration.chat.cast import WrapModel
from orchestration.chat.html import placeholder
from orchestration.deliberation.job import RECORDS
from orchestration.journal import Change, Journal, PendingPrompt, Transaction
from orchestration.pairs.duplicates import DuplicateIndex
from orchestration.pairs.exemplars import Seeds
from orchestration.pairs.export import as_dpo
from orchestration.pairs.lessons import Lessons
from orchestration.pairs.pair import KEPT, SET_ASIDE, PreferencePair
from orchestration.pairs.places import NAME, records_of
from orchestration.pairs.recipe import PairCast, PairRecipe
from orchestration.pairs.serialize import pair_of
from orchestration.prompts.reader import Prompt
from orchestration.runs.export import Wrapping
from orchestration.runs.folder import open_journal
from orchestration.runs.intake import Source
from orchestration.runs.job import (
    UNSAFE_HINT,
    ChatTask,
    Fingerprints,
    Job,
    Kind,
    Tallies,
    fingerprint,
    fingerprint_each,
    stored_parts,
)
from orchestration.runs.reader import RunReader
from orchestration.runs.result import ChatEnd, count_endings, split_ending

_MAX_CHOSEN = "audit.max_chosen"


class PairJob(Job):
    """Makes preference pairs of a run's completed records.

    Raises:
        JournalError: There is no run of records, or its journal is damaged.
    """

    def __init__(self, cast: PairCast, records: Path) -> None:
        self.kind = PAIRS
        self.cast: PairCast = cast
        self.records = open_journal(records)
        """The journal of the records."""
        self._results = RunReader(self.records, RECORDS)
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
        own = {"records": str(self._folder.resolve()), "baseline": cast.baseline}
        return {**own, **super().settings(), "seeds": cast.seeds.model_dump(mode="json")}

    def fingerprints(self) -> Fingerprints:
        """See `Job`."""
        recipe = self.cast.recipe.model_dump(mode="json")
        # Another name changes nothing; the content of seeds and prompts counts, not their path.
        for name in ("name", "description", "seeds", "prompts"):
            del recipe[name]
        # The audit can be repeated without a call, except for the bound that ends chats.
        audit = recipe.pop("audit")
        recipe[_MAX_CHOSEN] = audit.pop("max_chosen")
        seeds = self.cast.seeds
        return {
            **super().fingerprints(),
            "recipe": fingerprint_each(recipe),
            "seeds": {seeds.name: fingerprint(seeds.model_dump(mode="json"))},
            "records": {"the run": fingerprint(self._origin())},
            "audit": fingerprint_each(audit),
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
        self._pairs = RunReader(journal, PAIRS)
        self._index = DuplicateIndex(journal, self._kept_text)
        if self._bound is not None:
            endings = journal.unindexed()
            await self._index.restore([n for n, e in endings if split_ending(e)[0] == KEPT])

    async def chat(self, prompt: PendingPrompt, wrap: WrapModel) -> ChatTask[PreferencePair] | None:
        """See `Job`. None while the record is being made again."""
        cast, number = self.cast, prompt.number
        record = self._results.completed(Prompt("", prompt.text).digest)
        if record is None:
            return None
        brief = cast.brief(record)
        if brief.target and not cast.baseline:
            await self._lessons.begin(number, brief)
        changes: list[Change[None] | None] = []

        def result(end: ChatEnd) -> PreferencePair:
            pair = pair_of(cast, record, brief, end, partial(self._find_repeated, number))
            # The lesson comes last, after everything that can fail: this is called again after an
            # error, and a lesson must be learnt once. The run then queues the result at once, so
            # that lessons are stored in the order in which they are learnt.
            changes[:] = self._add_to_index(number, pair), self._lessons.learn(number, pair)
            return pair

        def store(transaction: Transaction) -> None:
            for change in filter(None, changes):
                change(transaction)

        team = cast.make_chat(wrap) if brief.target else None
        return ChatTask(team, brief.task(record.prompt), result, store)

    def _find_repeated(self, number: int, rejected: CandidateAnswer) -> str | None:
        """Id of an earlier kept pair that a rejected side nearly repeats; None if there is none."""
        bound = self._bound
        found = None if bound is None else self._index.find(number, rejected.text, bound)
        return None if found is None else self._pairs.journal.prompt(found)[0].id

    def _kept_text(self, number: int) -> str | None:
        pair = self._pairs.get(number)
        return None if pair is None else pair.kept_text

    def _add_to_index(self, number: int, pair: PreferencePair) -> Change[None] | None:
        """Adds a kept pair to the index of near-duplicates; returns what to commit with it."""
        if self._bound is None or pair.kept_text is None:
            return None
        bands = self._index.add(number, pair.kept_text)
        return lambda tx: tx.add_to_buckets(number, bands)

    def close(self) -> None:
        """Closes the journal of the records."""
        self.records.close()


class _PairKind(Kind[PreferencePair]):
    """Runs that make preference pairs of another run's records."""

    name = NAME
    columns: ClassVar[Mapping[str, str]] = {
        "outcome": "outcome",
        "pair": "reason",
        "target": "target",
        "score": "rejected_score",
        "margin": "margin",
        "attempts": "attempts",
    }
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
        return PreferencePair.model_validate_json(text)

    def tallies(self, endings: Mapping[str, int]) -> Tallies:
        """What the audit decided, and in which attempt kept pairs were made."""
        audit, attempts = count_endings(endings, KEPT)
        return {
            "audit": {reason: audit[reason] for reason in (KEPT, *SET_ASIDE) if audit[reason]},
            "kept_in_attempt": attempts,
        }

    def is_usable(self, result: PreferencePair) -> bool:
        return result.is_kept

    def exported(self, result: PreferencePair, form: str, wrapping: Wrapping) -> dict[str, Any]:
        return result.model_dump(mode="json") if form == "pairs" else as_dpo(result, wrapping)

    def load_job(self, folder: Path, settings: dict[str, Any], models: Mapping[str, Model]) -> Job:
        cast = PairCast(
            PairRecipe.model_validate(settings["recipe"]),
            models=models,
            seeds=Seeds.model_validate(settings["seeds"]),
            baseline=bool(settings["baseline"]),
            **stored_parts(settings),
        )
        return PairJob(cast, records_of(folder, settings))

    def next_steps(self, folder: str, tallies: Tallies) -> list[tuple[str, str]]:
        steps = [("Report", f"aidsafe pairs {folder}")]
        if tallies["audit"].get(KEPT):
            steps.append(("Export", f"aidsafe export {folder} --format dpo --out dpo.jsonl"))
        return steps

    def row(self, result: PreferencePair, unsafe: bool) -> dict[str, Any]:
        columns = "id prompt outcome kind target violated rejected_by margin attempts first_score"
        rejected, origin = result.rejected, result.provenance
        row = {
            **{name: getattr(result, name) for name in [*columns.split(), "generation"]},
            "kept": result.is_kept,
            "reason": result.reason if result.outcome == "completed" else None,
            "chosen": result.chosen.response,
            "chosen_score": result.chosen.score,
            "chosen_words": result.chosen.words,
            **{f"rejected_{n}": getattr(rejected, n, None) for n in ("label", "score", "words")},
            **{name: getattr(origin, name) for name in ("policy_set", "recipe")},
        }
        if unsafe:
            row["unsafe_rejected"] = rejected.response if rejected else None
            row["unsafe_belief"] = result.belief
        return row

    def origin(self, result: PreferencePair) -> str:
        made, scorer = result.provenance, result.scorer
        models = ", ".join(scorer.models) or "no model"
        text = f"{made.policy_set}, pair recipe {made.recipe}, {made.started_at}, "
        text += f"scored by {scorer.persona} on {models}"
        if result.exemplars:
            exemplars = f"{len(result.exemplars)} exemplars for {result.target}"
            text += f"\n{exemplars}, updated {result.generation} times before"
        return text

    def hidden(self, turn: Turn) -> str | None:
        if turn.agent == CHOSEN_SCORER:
            return None
        if not isinstance(turn.reply, ScorerReply):
            return placeholder(turn.raw, UNSAFE_HINT).plain
        violations = turn.reply.violations.items()
        scores = [f"{policy} {score:.2f}" for policy, score in violations if score]
        return f"{', '.join(scores) or 'no violation'} (quotes hidden)"


PAIRS = _PairKind()
