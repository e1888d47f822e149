"""What `--dry-run` promises: what a run would ask anew, found out without asking."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agents.models.errors import EndpointOverloaded
from orchestration.deliberation.job import DeliberationJob
from orchestration.runs.budget import Limits
from orchestration.runs.dry_run import DryRun, dry_run
from tests.orchestration.changes import changed
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    Held,
    execute,
    files_in,
    opened,
    prompts,
    until,
)
from tests.scripted import cast, intents, result


def settled(folder: Path) -> dict[str, bytes]:
    """The files of a run; without what SQLite keeps for readers beside the journal."""
    return {
        f.name: f.read_bytes() for f in files_in(folder) if not f.name.endswith(("-shm", "-wal"))
    }


async def test_a_dry_run_calls_nothing_and_changes_nothing(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(2))
    before = settled(folder)
    made, client = changed("personas", "drafter")
    seen: list[int] = []
    await dry_run(folder, DeliberationJob(made), lambda found: seen.append(found.prompts))
    assert client.requests == []
    assert settled(folder) == before
    assert seen == [1, 2]


async def test_a_dry_run_tells_prompts_without_an_outcome_apart(folder: Path) -> None:
    made, client = cast()
    held = Held(client, lambda messages: "Prompt 1?" in str(messages[1].content))
    async with opened(folder, made) as run:
        running = asyncio.create_task(run.execute(prompts(3), 2))
        await until(lambda: held.calls == 1 and run.summary.done == 2)
        run.stop()
        held.let_go()
        await running
    found = await dry_run(folder, DeliberationJob(changed()[0]))
    assert found == DryRun(
        prompts=3, unchanged=2, unfinished=1, replies_used=2 * CALLS_PER_CHAT + 1
    )


@pytest.mark.parametrize("outcome", ["refused", "malformed"])
async def test_a_dry_run_knows_that_a_chat_without_a_record_ends_as_it_did(
    outcome: str, folder: Path
) -> None:
    said = "I'm sorry, but I can't help with that." if outcome == "refused" else "No JSON."
    made, _ = cast(lambda *_: said)
    summary = await execute(folder, made, prompts(1))
    assert summary.outcomes == {outcome: 1}
    found = await dry_run(folder, DeliberationJob(changed()[0]))
    assert (found.unchanged, found.changed, found.replies_replaced) == (1, 0, 0)


async def test_a_dry_run_knows_what_the_same_settings_leave_alone(folder: Path) -> None:
    made, _ = cast([intents("x"), EndpointOverloaded("It answered 500.", "Wait.")])
    summary = await execute(folder, made, prompts(1))
    assert summary.outcomes == {"failed": 1}
    same = await dry_run(folder, DeliberationJob(changed()[0]))
    assert (same.unchanged, same.changed) == (1, 0), "only `retry` takes it up again"
    other = await dry_run(folder, DeliberationJob(changed("personas", "refiner")[0]))
    assert (other.unchanged, other.changed, other.replies_used) == (0, 1, 1)


async def test_a_dry_run_counts_what_a_limit_cut_off_as_unfinished(folder: Path) -> None:
    limits = Limits(tokens=8_000)  # the first call is expected to take 5,000
    script = [result(json.dumps(intents("x")), prompt=5_000)]
    summary = await execute(folder, cast(script)[0], prompts(1), 1, limits=limits)
    assert summary.outcomes == {"over_budget": 1}
    same = await dry_run(folder, DeliberationJob(changed()[0]))
    assert (same.unfinished, same.changed, same.replies_replaced) == (1, 0, 0)
