"""What a run promises once policies, personas, recipe or models have changed.

Only what must be is asked anew; and `--dry-run` says beforehand how much that is.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from agents.models.config import Price
from orchestration.deliberation.job import DeliberationJob
from orchestration.runs import Run
from orchestration.runs.dry_run import DryRun, dry_run
from orchestration.runs.folder import SETTINGS_NAME
from tests.endpoint import Endpoint
from tests.orchestration.changes import changed, disagree, kinds
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    SOURCE,
    Held,
    agree,
    cast_at,
    execute,
    opened,
    prompts,
    records,
    until,
)
from tests.scripted import cast

# What is asked anew ------------------------------------------------------------------------------

CHANGES: dict[str, tuple[str, str, list[str]]] = {
    # What changes; and what is asked anew of (i)ntents, (d)raft, (d)eliberation, (r)efinement.
    "nothing": ("", "", []),
    "the recipe's description": ("recipe", "test", []),
    "the refiner": ("personas", "refiner", ["r"]),
    "what a refiner is told": ("prompt_texts", "deliberation", ["r"]),
    "the last deliberator": ("personas", "risk_analyst", ["d", "r"]),
    "the first deliberator": ("personas", "policy_auditor", ["d", "d", "d", "r"]),
    "the drafter": ("personas", "drafter", ["d", "d", "d", "d", "r"]),
    "the intent analyst": ("personas", "intent_analyst", ["i", "d", "d", "d", "d", "r"]),
    "a policy": ("policies", "respect_helpfulness", ["i", "d", "d", "d", "d", "r"]),
    "the model's sampling": ("models", "default", ["i", "d", "d", "d", "d", "r"]),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_only_what_follows_from_the_change_is_asked_anew(what: str, folder: Path) -> None:
    kind, name, asked = CHANGES[what]
    await execute(folder, cast()[0], prompts(2))
    made, client = changed(kind, name)

    async with opened(folder, made) as run:
        assert run.folder.changed == ({kind: [name]} if kind else {})
        predicted = await dry_run(folder, DeliberationJob(made))
        assert client.requests == []
        summary = await run.execute(prompts(2), 1)

    assert kinds(client) == asked * 2
    assert summary.outcomes == {"completed": 2}
    assert predicted == DryRun(
        prompts=2,
        unchanged=0 if asked else 2,
        changed=2 if asked else 0,
        replies_used=2 * (CALLS_PER_CHAT - len(asked)),
        replies_replaced=2 * len(asked),
    )
    if asked or kind:
        assert summary.replayed == predicted.replies_used
        assert (summary.done_before, summary.done) == (0 if kind else 2, 2 if kind else 0)


@pytest.mark.parametrize(("before", "after", "asked"), [(1, 2, "dddr"), (2, 1, "r"), (2, 2, "")])
async def test_more_or_fewer_rounds_re_ask_only_what_follows(
    before: int, after: int, asked: str, folder: Path
) -> None:
    await execute(folder, changed(script=disagree, rounds=before)[0], prompts(1))
    made, client = changed(script=disagree, rounds=after)
    async with opened(folder, made) as run:
        assert run.folder.changed == ({"recipe": ["test"]} if before != after else {})
        await run.execute(prompts(1), 1)
    assert kinds(client) == list(asked)
    [record] = records(folder)
    assert (record.outcome, record.rounds) == ("completed", after)


async def test_another_circle_re_asks_from_where_it_differs(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(1))
    made, client = changed(circle=("policy_auditor", "risk_analyst", "helpfulness_advocate"))
    await execute(folder, made, prompts(1))
    assert kinds(client) == ["d", "d", "r"]


async def test_changing_back_asks_nothing(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(2))
    first = records(folder)
    await execute(folder, changed("personas", "drafter")[0], prompts(2))
    assert records(folder) != first
    for made, client in (changed(), changed("personas", "drafter"), changed()):
        await execute(folder, made, prompts(2))
        assert client.requests == []
    assert [record.thoughts for record in records(folder)] == [record.thoughts for record in first]


async def test_prompts_of_every_outcome_are_taken_up_again(folder: Path) -> None:
    made, _ = cast(lambda *_: "I'm sorry, but I can't help with that.")
    await execute(folder, made, prompts(2))
    assert [record.outcome for record in records(folder)] == ["refused"] * 2
    summary = await execute(folder, changed("personas", "intent_analyst")[0], prompts(2))
    assert summary.outcomes == {"completed": 2}


async def test_what_it_was_is_kept_as_paid_for(folder: Path) -> None:
    first = await execute(folder, cast()[0], prompts(1))
    summary = await execute(folder, changed("personas", "refiner")[0], prompts(1))
    assert summary.calls == first.calls + 1


# Meanwhile ---------------------------------------------------------------------------------------


async def test_records_made_under_other_settings_are_not_listed_meanwhile(
    folder: Path, no_hang: None
) -> None:
    await execute(folder, cast()[0], prompts(3))
    made, client = changed("personas", "refiner")
    held = Held(client, lambda messages: "Prompt 1?" in str(messages[1].content))
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(3), 3))
        await until(lambda: held.calls == 1 and run.summary.done == 2)
        assert [record.id for record in records(folder)] == ["p0", "p2"]
        assert (run.summary.outcomes, run.summary.pending) == ({"completed": 2}, 1)
        held.let_go()
        await running
    assert [record.id for record in records(folder)] == ["p0", "p1", "p2"]


async def test_opening_a_run_with_other_settings_changes_nothing_yet(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(1))
    settings = (folder / SETTINGS_NAME).read_text()
    run = Run(folder, DeliberationJob(changed("personas", "refiner")[0]), SOURCE)
    run.close()
    assert len(records(folder)) == 1
    assert (folder / SETTINGS_NAME).read_text() == settings


async def test_the_folder_holds_the_settings_that_it_was_last_started_with(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(1))
    await execute(folder, changed("personas", "refiner")[0], prompts(1))
    found = yaml.safe_load((folder / SETTINGS_NAME).read_text())
    assert found["personas"]["refiner"]["instructions"] == "Else."


# What may change freely --------------------------------------------------------------------------


async def test_how_the_endpoint_is_reached_and_what_it_costs_may_change_freely(
    folder: Path,
) -> None:
    transport = {
        "timeout": 99,
        "max_retries": 7,
        "retry_seconds": 5,
        "max_concurrency": 3,
        "min_concurrency": 2,
        "json_fallback": False,
        "api_key_env": "MY_KEY",
    }
    with Endpoint(reply=agree) as endpoint:
        await execute(folder, cast_at(endpoint), prompts(1))
        made = cast_at(endpoint, **transport)
        model = made.models["default"]
        price = Price(prompt=1, completion=2)
        model.config = model.config.model_copy(update={"price": price})
        async with opened(folder, made) as run:
            assert run.folder.changed == {}
            summary = await run.execute(prompts(2), 2)
    assert summary.done_before == 1
    assert endpoint.counts == {"ok": 2 * CALLS_PER_CHAT}


@pytest.mark.parametrize("what", ["base_url", "model"])
async def test_another_endpoint_or_model_is_a_change(what: str, folder: Path) -> None:
    with Endpoint(reply=agree) as endpoint, Endpoint(reply=agree) as other:
        await execute(folder, cast_at(endpoint), prompts(1))
        made = cast_at(other) if what == "base_url" else cast_at(endpoint, model="n")
        async with opened(folder, made) as run:
            assert run.folder.changed == {"models": ["default"]}
            await run.execute(prompts(1), 1)
    assert endpoint.counts["ok"] + other.counts["ok"] == 2 * CALLS_PER_CHAT
