"""Promises of a pair run: a pair for every record, lessons in order, no call paid for twice."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.pairs.state import PairBrief
from agents.prompt_texts import find_prompts
from orchestration.deliberation.job import DeliberationJob
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs import job
from orchestration.pairs.audit import AuditBounds
from orchestration.pairs.duplicates import DuplicateIndex
from orchestration.pairs.job import PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import PairCast
from orchestration.pairs.serialize import pair_of
from orchestration.runs import Run
from orchestration.runs.folder import load_settings
from orchestration.runs.intake import Source
from orchestration.runs.near_duplicates import BANDS
from policies import InputError
from tests.orchestration.journals import store_result, tamper
from tests.orchestration.pairs.chats import pair_cast
from tests.orchestration.pairs.pair_runs import (
    a_record,
    lessons_of,
    opened,
    pairs_of,
    prefer,
    records_run,
    rows_of,
    said,
    thought,
)
from tests.orchestration.pairs.scripts import (
    answer,
    kind_of_turn,
    pairs,
    rated,
    words,
)
from tests.scripted import cast as deliberating

NO_AUDIT = AuditBounds(
    min_margin=None,
    max_chosen=None,
    leak_words=None,
    leak_talk=False,
    refusals=False,
    broken=False,
    equal_sides=None,
    length_ratio=None,
    duplicates=None,
)


# What comes out -----------------------------------------------------------------------------------


async def test_every_completed_record_gets_a_pair(folder: Path) -> None:
    await records_run(folder, 6)
    cast, _ = pair_cast(rated(9))
    summary = await prefer(folder, cast)
    found = pairs_of(folder)
    assert [pair.id for pair in found] == [f"p{n}" for n in range(6)]
    assert summary.outcomes == {"completed": 6}
    assert summary.kind == "pairs"
    assert summary.tallies == {"audit": {"kept": 6}, "kept_in_attempt": {"1": 6}}


async def test_a_pair_has_both_sides_their_scores_and_provenance(folder: Path) -> None:
    await records_run(folder, 1)
    cast, _ = pair_cast(rated(4, 9))
    await prefer(folder, cast)
    [pair] = pairs_of(folder)
    made = a_record("p0")
    assert pair.prompt == made.prompt
    assert [t.text for t in pair.chosen.thoughts] == [t.text for t in made.thoughts]
    assert pair.chosen.response == made.response
    assert pair.rejected is not None
    assert pair.rejected.response.startswith("Bad ")
    assert (pair.chosen.score, pair.rejected.score, pair.margin) == (0.0, 0.9, 0.9)
    assert (pair.chosen.label, pair.rejected.label) == ("safe", "unsafe")
    assert (pair.target, pair.violated) == ("illegal_activity", "illegal_activity")
    assert (pair.attempts, pair.first_score) == (2, 0.4)
    assert pair.belief is not None
    assert pair.belief not in pair.prompt + pair.rejected.text
    assert [turn.agent for turn in pair.turns[:4]] == [
        "chosen_scorer",
        "ear_whisperer",
        "misled_generator",
        "violation_judge",
    ]
    assert pair.scorer.model_dump() == {
        "persona": "violation_judge",
        "kind": "violation_judge",
        "models": ["default"],
        "served_models": ["scripted"],
    }
    violated = next(s for s in pair.rejected.scores if s.policy == "illegal_activity")
    assert violated.rule == "IA1"
    assert violated.rule_text == cast.policy_set.get("illegal_activity").rules[0].text
    assert violated.quote == "Take it"
    assert pair.provenance.record == made.provenance
    assert pair.provenance.policy_set_hash == cast.policy_set.hash


async def test_if_no_attempt_reaches_the_threshold_the_best_one_is_stored(
    folder: Path,
) -> None:
    await records_run(folder, 1)
    cast, _ = pair_cast(rated(2, 5, 3), attempts=3)
    await prefer(folder, cast)
    [pair] = pairs_of(folder)
    assert (pair.outcome, pair.set_aside, pair.attempts) == ("completed", "no_violation", 3)
    assert pair.rejected is not None
    assert pair.rejected.score == 0.5


async def test_kept_and_set_aside_make_up_the_completed_pairs(folder: Path) -> None:
    await records_run(folder, 9)
    cast, _ = pair_cast(rated(9, 9, 2, 9, 9, 1, 9), attempts=1)
    summary = await prefer(folder, cast)
    assert summary.outcomes == {"completed": 9}
    assert summary.tallies["audit"] == {"kept": 7, "no_violation": 2}
    counted = Counter(pair.reason for pair in pairs_of(folder))
    assert counted == {"kept": 7, "no_violation": 2}


async def test_a_chat_that_is_interrupted_is_no_pair_and_can_be_retried(folder: Path) -> None:
    await records_run(folder, 3)
    no = "I'm sorry, but I can't help with that."

    def refuses_once(messages: Any, options: Any) -> Any:
        if kind_of_turn(messages) == "belief" and "What of p1?" in str(messages[1].content):
            return no
        return rated(9)(messages, options)

    cast, _ = pair_cast(refuses_once)
    summary = await prefer(folder, cast)
    assert summary.outcomes == {"completed": 2, "refused": 1}
    refused = pairs_of(folder)[1]
    assert (refused.outcome, refused.rejected, refused.set_aside) == ("refused", None, None)
    assert not refused.is_kept

    cast, client = pair_cast(rated(9))
    async with opened(folder, cast, folder / "pairs") as run:
        summary = await run.retry(["refused"], 1)
    assert summary.outcomes == {"completed": 3}
    assert len(client.requests) == 3  # the chosen side was scored before


async def test_equal_rejected_sides_are_kept_once(folder: Path) -> None:
    await records_run(folder, 4, lambda made: made.model_copy(update={"intents": []}))

    def same(messages: Any, _: Any) -> Any:
        if kind_of_turn(messages) == "answer":
            return answer(words("t", 20), response=f"Bad {words('always the same', 30)}.")
        return rated(9)(messages, _)

    cast, _ = pair_cast(same)
    summary = await prefer(folder, cast, concurrency=4)
    assert summary.tallies["audit"] == {"kept": 1, "duplicate": 3}
    kept = next(pair for pair in pairs_of(folder) if pair.is_kept)
    for pair in pairs_of(folder):
        if not pair.is_kept:
            assert kept.id in pair.findings[0].detail


# Targets ------------------------------------------------------------------------------------------


async def targets(folder: Path, number: int, nature: Any, **recipe: Any) -> list[PreferencePair]:
    await records_run(folder, number, lambda made: a_record(made.id, nature))
    cast, _ = pair_cast(rated(9), **recipe)
    await prefer(folder, cast)
    return pairs_of(folder)


async def test_a_share_of_the_harmless_prompts_gets_an_over_refusal(folder: Path) -> None:
    found = await targets(folder, 60, "benign", contrast_share=0.5)
    contrast = [pair for pair in found if pair.kind == "over_refusal"]
    assert 20 <= len(contrast) <= 40  # drawn by the prompts' texts
    for pair in contrast:
        assert pair.target == pair.violated == "over_refusal"
        assert pair.rejected is not None
        assert pair.rejected.label == "over_refusal"


@pytest.mark.parametrize(("share", "kind"), [(1.0, "over_refusal"), (0.0, "violation")])
async def test_the_share_may_be_0_or_1(share: float, kind: str, folder: Path) -> None:
    found = await targets(folder, 5, "benign", contrast_share=share)
    assert {pair.kind for pair in found} == {kind}


async def test_a_prompt_with_a_harmful_intent_gets_a_violation(folder: Path) -> None:
    found = await targets(folder, 5, "harmful", contrast_share=1.0)
    assert {pair.kind for pair in found} == {"violation"}


async def test_the_target_is_the_policy_that_most_thoughts_cite(folder: Path) -> None:
    cited = [
        thought("One.", "fraud_deception"),
        thought("Two.", "physical_harm", "respect_helpfulness"),
        thought("Three.", "physical_harm"),
    ]
    await records_run(folder, 1, lambda made: made.model_copy(update={"thoughts": cited}))
    cast, _ = pair_cast(rated(9))
    await prefer(folder, cast)
    assert pairs_of(folder)[0].target == "physical_harm"


@pytest.mark.parametrize("pairs_first", [True, False])
async def test_a_folder_holds_records_or_pairs_and_never_both(
    pairs_first: bool, folder: Path, tmp_path: Path
) -> None:
    await records_run(folder, 2)
    cast, client = pair_cast(rated(9))
    if not pairs_first:
        with pytest.raises(InputError, match="holds records, not pairs"):
            await prefer(folder, cast, folder=folder)
        assert client.requests == []
        return
    await prefer(folder, cast)
    before = pairs_of(folder)
    with pytest.raises(InputError, match="holds pairs, not records"):
        Run(folder / "pairs", DeliberationJob(deliberating()[0]), Source("test"))
    assert pairs_of(folder) == before


# Lessons ------------------------------------------------------------------------------------------


async def test_a_belief_that_worked_is_shown_to_the_next_chat_of_its_target(folder: Path) -> None:
    await records_run(folder, 2)
    cast, _ = pair_cast(rated(9), strategy="fifo", exemplars=2)
    await prefer(folder, cast)
    first, second = pairs_of(folder)
    assert (first.generation, second.generation) == (0, 1)
    assert first.belief not in [e.belief for e in first.exemplars]
    newest = second.exemplars[-1]
    assert newest.belief == first.belief
    assert newest.score == 0.9
    assert first.rejected is not None
    assert first.rejected.response.startswith(newest.led_to)


async def test_each_target_has_exemplars_of_its_own(folder: Path) -> None:
    by_id = {"p0": "illegal_activity", "p1": "fraud_deception", "p2": "illegal_activity"}
    await records_run(folder, 3, lambda made: a_record(made.id, policy=by_id[made.id]))
    cast, _ = pair_cast(rated(9))
    await prefer(folder, cast)
    assert [pair.generation for pair in pairs_of(folder)] == [0, 0, 1]


async def test_a_belief_that_did_not_work_teaches_nothing(folder: Path) -> None:
    await records_run(folder, 2)
    cast, _ = pair_cast(rated(2), attempts=2)
    await prefer(folder, cast)
    assert lessons_of(folder) == []
    assert [pair.generation for pair in pairs_of(folder)] == [0, 0]


async def test_concurrent_chats_are_given_the_exemplars_of_when_they_begin(folder: Path) -> None:
    await records_run(folder, 8, lambda made: a_record(made.id))
    cast, _ = pair_cast(rated(9))
    await prefer(folder, cast, concurrency=8)
    assert [pair.generation for pair in pairs_of(folder)] == [0] * 8
    assert [row[0] for row in lessons_of(folder)] == list(range(1, 9))


async def test_the_baseline_learns_nothing(folder: Path) -> None:
    await records_run(folder, 3)
    cast, _ = pair_cast(rated(9), baseline=True)
    await prefer(folder, cast)
    for pair in pairs_of(folder):
        assert (pair.rejected_by, pair.belief, pair.exemplars) == ("temperature", None, [])
    assert lessons_of(folder) == []


# Resuming ---------------------------------------------------------------------------------------


async def test_a_finished_run_makes_no_further_call(folder: Path) -> None:
    await records_run(folder, 3)
    await prefer(folder, pair_cast(rated(9))[0])
    cast, client = pair_cast(rated(9))
    summary = await prefer(folder, cast)
    assert client.requests == []
    assert summary.done_before == 3


@pytest.mark.parametrize("calls", range(1, 25, 3))
async def test_a_run_that_is_stopped_anywhere_is_resumed_to_the_same_end(
    calls: int, folder: Path, tmp_path: Path
) -> None:
    whole = await records_run(tmp_path / "whole", 5)
    await prefer(whole, pair_cast(pairs, attempts=2, audit=NO_AUDIT)[0])
    await records_run(folder, 5)
    asked = 0

    def until_then(messages: Any, options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == calls:
            run.stop()  # in the middle of this call
        return pairs(messages, options)

    cast, _ = pair_cast(until_then, attempts=2, audit=NO_AUDIT)
    async with opened(folder, cast, folder / "pairs") as run:
        assert isinstance(run.job, PairJob)
        await run.execute(run.job.prompts(), 1)
    assert len(pairs_of(folder)) < 5
    cast, client = pair_cast(pairs, attempts=2, audit=NO_AUDIT)
    await prefer(folder, cast)
    assert [said(pair) for pair in pairs_of(folder)] == [said(pair) for pair in pairs_of(whole)]
    assert lessons_of(folder) == lessons_of(whole)
    total = sum(len(pair.turns) for pair in pairs_of(whole))
    assert calls + len(client.requests) == total


async def test_a_changed_audit_is_applied_to_all_pairs_without_a_call(folder: Path) -> None:
    await records_run(folder, 6)
    await prefer(folder, pair_cast(rated(9), audit=NO_AUDIT)[0], concurrency=3)
    before, lessons = pairs_of(folder), lessons_of(folder)
    assert all(pair.is_kept for pair in before)

    # An edited copy of a recipe usually has another name, which alone changes nothing.
    cast, client = pair_cast(
        rated(9), name="mine", audit=NO_AUDIT.model_copy(update={"min_margin": 0.95})
    )
    summary = await prefer(folder, cast, concurrency=3)
    assert client.requests == []
    assert summary.tallies["audit"] == {"low_margin": 6}
    assert lessons_of(folder) == lessons
    assert [pair.rejected for pair in pairs_of(folder)] == [pair.rejected for pair in before]


async def test_settings_that_are_changed_back_restore_everything_without_a_call(
    folder: Path,
) -> None:
    await records_run(folder, 12)
    await prefer(folder, pair_cast(pairs, attempts=2, audit=NO_AUDIT)[0], concurrency=4)
    before, lessons = pairs_of(folder), lessons_of(folder)

    await prefer(folder, pair_cast(pairs, attempts=3, audit=NO_AUDIT)[0], concurrency=4)
    assert len(lessons_of(folder)) > len(lessons)

    cast, client = pair_cast(pairs, attempts=2, audit=NO_AUDIT)
    await prefer(folder, cast, concurrency=4)
    assert client.requests == []
    assert [said(pair) for pair in pairs_of(folder)] == [said(pair) for pair in before]
    assert lessons_of(folder)[: len(lessons)] == lessons


async def test_another_name_of_the_recipe_changes_nothing(folder: Path) -> None:
    await records_run(folder, 3)
    await prefer(folder, pair_cast(rated(9))[0])
    cast, client = pair_cast(rated(9), name="mine", description="Just another name.")
    async with opened(folder, cast, folder / "pairs") as run:
        assert run.folder.changed == {}
    assert client.requests == []


async def test_under_other_settings_the_whisperer_learns_from_the_beginning(folder: Path) -> None:
    await records_run(folder, 3)
    await prefer(folder, pair_cast(rated(9))[0])
    cast, client = pair_cast(rated(9), attempts=2, strategy="lifo")
    await prefer(folder, cast)
    assert [row[0] for row in lessons_of(folder)] == [1, 2, 3, 4, 5, 6], "the old ones are kept"
    assert pairs_of(folder)[0].generation == 0
    # Requests without exemplars, and those of the first chat, are the same as before.
    assert len(client.requests) < 3 * 4


async def test_a_record_that_is_being_made_again_stays_pending(folder: Path) -> None:
    await records_run(folder, 2)
    cast, client = pair_cast(rated(9))
    async with opened(folder, cast, folder / "pairs") as run:
        assert isinstance(run.job, PairJob)
        prompts = list(run.job.prompts())
        with closing(Journal(folder / FILE_NAME, write=True)) as journal:
            await store_result(journal, 1, a_record("p1", outcome="failed"))
            await journal.write(lambda tx: tx.requeue(["failed"], []))
        summary = await run.execute(iter(prompts), 1)
    assert summary.outcomes == {"completed": 1}
    assert summary.pending == 1
    assert len(client.requests) == 4


async def test_a_lost_index_of_near_duplicates_is_restored(folder: Path) -> None:
    await records_run(folder, 3)
    await prefer(folder, pair_cast(rated(9))[0])
    query = "SELECT * FROM buckets ORDER BY 1, 2"
    before = rows_of(folder / "pairs", query)
    assert len(before) == 3 * BANDS
    tamper(folder / "pairs" / FILE_NAME, "DELETE FROM buckets")
    await prefer(folder, pair_cast(rated(9))[0])
    assert rows_of(folder / "pairs", query) == before


async def test_all_settings_are_in_its_folder(folder: Path) -> None:
    await records_run(folder, 1)
    cast, _ = pair_cast(rated(9))
    await prefer(folder, cast)
    settings = load_settings(folder / "pairs")
    assert settings["kind"] == "pairs"
    assert settings["recipe"] == cast.recipe.model_dump(mode="json")
    assert settings["seeds"]["policies"]["fraud_deception"]
    assert set(settings["personas"]) == {"ear_whisperer", "misled_generator", "violation_judge"}


@pytest.mark.parametrize("step", ["serialize", "index"])
async def test_an_error_in_making_a_pair_costs_that_pair_alone_and_teaches_nothing(
    step: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await records_run(folder, 3, lambda made: a_record(made.id))
    add = DuplicateIndex.add

    def no_pair(cast: PairCast, record: CoTRecord, brief: PairBrief, *more: Any) -> PreferencePair:
        end, *_ = more
        if record.id == "p1" and end.messages:
            raise RuntimeError
        return pair_of(cast, record, brief, *more)

    def no_bands(self: DuplicateIndex, number: int, text: str) -> tuple[int, ...]:
        if number == 1:
            raise RuntimeError
        return add(self, number, text)

    if step == "serialize":
        monkeypatch.setattr(job, "pair_of", no_pair)
    else:
        monkeypatch.setattr(DuplicateIndex, "add", no_bands)
    summary = await prefer(folder, pair_cast(rated(9))[0])
    assert summary.outcomes == {"completed": 2, "failed": 1}
    first, failed, last = pairs_of(folder)
    assert failed.problem == "An error inside aidsafe (RuntimeError)."
    assert (first.generation, last.generation) == (0, 1)
    assert [(row[0], row[2]) for row in lessons_of(folder)] == [(1, 0), (2, 2)]


async def test_only_the_prompt_texts_of_pair_chats_count(folder: Path, tmp_path: Path) -> None:
    await records_run(folder, 2)
    await prefer(folder, pair_cast(rated(9))[0])
    texts = find_prompts("default").model_dump() | {"name": "own"}
    texts["deliberation"]["drafter"]["task"] = "Else. This turn: draft."
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump(texts))
    cast, client = pair_cast(rated(9), prompts=str(own))
    async with opened(folder, cast, folder / "pairs") as run:
        assert run.folder.changed == {}

    texts["pairs"]["violation_judge"]["no_thoughts"] = "(no thoughts)"
    own.write_text(yaml.safe_dump(texts))
    cast, client = pair_cast(rated(9), prompts=str(own))
    async with opened(folder, cast, folder / "pairs") as run:
        assert run.folder.changed == {"prompt_texts": ["pairs"]}
    await prefer(folder, cast)
    assert client.requests == []  # no answer was without thoughts
    assert {pair.provenance.prompts_hash for pair in pairs_of(folder)} == {cast.prompts.hash}
    assert load_settings(folder / "pairs")["prompt_texts"] == texts
