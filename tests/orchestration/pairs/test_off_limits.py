"""What is off limits: no bad answer is made about it, and none is kept or learnt from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.deliberation.replies import DraftReply
from agents.deliberation.state import RemovedThought
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.recipe import PAIR_RECIPES, PairCast, cited_in, load_pair_recipe
from policies import InputError, load_policy_set
from tests.orchestration.pairs.chats import pair_cast
from tests.orchestration.pairs.pair_runs import (
    a_record,
    lessons_of,
    pairs_of,
    prefer,
    records_run,
    thought,
)
from tests.orchestration.pairs.scripts import answer, belief, judgement, rated, words
from tests.orchestration.records import record as chat_record
from tests.scripted import scripted


@pytest.mark.parametrize(
    "cited",
    [thought("No.", "illegal_activity", rules=("IA3",)), thought("No.", "indiscriminate_weapons")],
)
async def test_no_bad_answer_is_made_about_what_is_off_limits(cited: Any, folder: Path) -> None:
    await records_run(folder, 1, lambda made: made.model_copy(update={"thoughts": [cited]}))
    cast, client = pair_cast(rated(9))
    summary = await prefer(folder, cast)
    assert client.requests == []
    [pair] = pairs_of(folder)
    assert (pair.outcome, pair.set_aside, pair.rejected) == ("completed", "off_limits", None)
    assert summary.tallies["audit"] == {"off_limits": 1}
    assert lessons_of(folder) == []


async def test_what_was_dropped_or_rewritten_during_the_deliberation_counts_too(
    folder: Path,
) -> None:
    cited = thought("This is about a weapon.", "illegal_activity", rules=("IA3",))
    removed = RemovedThought(thought=cited, reason="redundant", why="", by="refiner", round=1)
    more = {"removed_thoughts": [removed]}
    await records_run(folder, 1, lambda made: made.model_copy(update=more))
    cast, client = pair_cast(rated(9))
    await prefer(folder, cast)
    assert client.requests == []
    assert pairs_of(folder)[0].set_aside == "off_limits"


def test_any_turn_that_cites_it_counts() -> None:
    record = chat_record()
    cited = cited_in(record)
    assert "IA3" not in cited
    (turn,) = [turn for turn in record.turns if turn.role == "drafter"]
    assert isinstance(turn.reply, DraftReply)
    first, *others = turn.reply.thoughts
    thoughts = [first.model_copy(update={"rules": ["IA3"]}), *others]
    reply = turn.reply.model_copy(update={"thoughts": thoughts})
    changed = turn.model_copy(update={"reply": reply})
    turns = [changed if each is turn else each for each in record.turns]
    assert cited_in(record.model_copy(update={"turns": turns})) == cited | {"IA3"}


async def test_a_rejected_side_that_violates_what_is_off_limits_is_not_kept(folder: Path) -> None:
    await records_run(folder, 1)
    cast, _ = pair_cast(rated(9), off_limits=("IA1",))
    await prefer(folder, cast)
    assert pairs_of(folder)[0].set_aside == "off_limits"


async def test_what_is_off_limits_is_not_learnt_from(folder: Path) -> None:
    await records_run(folder, 2)
    cast, _ = pair_cast(rated(9), off_limits=("IA1",))
    await prefer(folder, cast)
    assert [pair.set_aside for pair in pairs_of(folder)] == ["off_limits"] * 2
    assert lessons_of(folder) == []


async def test_a_low_score_is_enough_whatever_the_threshold(folder: Path) -> None:
    await records_run(folder, 1)
    cast, _ = pair_cast(rated(3), off_limits=("IA1",), threshold=0.2)
    await prefer(folder, cast)
    assert pairs_of(folder)[0].set_aside == "off_limits"


async def test_a_policy_can_be_off_limits_by_its_score(folder: Path) -> None:
    await records_run(folder, 1, lambda made: a_record(made.id, policy="physical_harm"))
    cast, _ = pair_cast(rated(9), off_limits=("illegal_activity",))
    await prefer(folder, cast)
    assert pairs_of(folder)[0].set_aside == "off_limits"
    assert lessons_of(folder) == []


async def test_an_earlier_attempt_that_is_off_limits_counts_too(folder: Path) -> None:
    await records_run(folder, 1)
    first = [belief("One."), answer(words("1")), judgement(fraud_deception=5)]
    second = [belief("Two."), answer(words("2")), judgement(illegal_activity=9)]
    cast, _ = pair_cast([judgement(), *first, *second], off_limits=("fraud_deception",))
    await prefer(folder, cast)
    [pair] = pairs_of(folder)
    assert (pair.stop_reason, pair.set_aside) == ("violation", "off_limits")


@pytest.mark.parametrize("recipe", PAIR_RECIPES.by_name())
@pytest.mark.parametrize(
    ("policies", "cited"),
    [
        ("aidsafe", "IA3"),
        ("aidsafe", "PH2"),
        ("mlcommons", "child_sexual_exploitation"),
        ("mlcommons", "indiscriminate_weapons"),
    ],
)
def test_no_shipped_recipe_makes_pairs_about_the_worst_harms(
    recipe: str, policies: str, cited: str
) -> None:
    made, client = load_pair_recipe(recipe), scripted([])[0]
    policy_set = load_policy_set(policies)
    models = {"default": client, "shieldgemma": client}
    cast = PairCast(made, policy_set, models, load_seeds(made.seeds))
    is_rule = cited in policy_set.rule_ids
    policy = policy_set.owners[cited] if is_rule else cited
    record = a_record("p", thoughts=[thought("So.", policy, rules=(cited,) if is_rule else ())])
    assert cast.target(record) is None


def test_a_misspelt_name_is_rejected() -> None:
    with pytest.raises(InputError, match="names 'indiscriminate_weapon', which") as caught:
        pair_cast([], off_limits=("indiscriminate_weapon",))
    assert caught.value.remedy == "Did you mean 'indiscriminate_weapons'?"


async def test_a_policy_that_is_off_limits_is_no_target(folder: Path) -> None:
    await records_run(folder, 1, lambda made: made.model_copy(update={"thoughts": []}))
    cast, _ = pair_cast(rated(9), off_limits=("hate_harassment_violence",))
    await prefer(folder, cast)
    assert pairs_of(folder)[0].target == "fraud_deception"
