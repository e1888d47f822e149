"""Pair runs for tests: a run of ready-made records, and sessions that make their pairs."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agents.deliberation.replies import Intent
from agents.deliberation.state import Thought
from agents.models.config import EndpointConfig, ModelConfig
from agents.models.model import Model
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, Journal, Transaction
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.job import PAIRS, PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import PairCast, PairRecipe
from orchestration.prompts.reader import Prompt
from orchestration.runs import Run
from orchestration.runs.reader import RunReader
from orchestration.runs.status import Summary
from policies import load_policy_set
from tests.endpoint import Endpoint
from tests.orchestration.journals import store_result, take_in
from tests.orchestration.pairs.scripts import words
from tests.orchestration.records import record

Change = Callable[[CoTRecord], CoTRecord]
_RECORD = record()  # made now, while no event loop runs


def thought(text: str, *policies: str, rules: tuple[str, ...] = ()) -> Thought:
    return Thought(
        id=1, text=text, policies=list(policies), rules=list(rules), author="drafter", round=0
    )


def a_record(
    prompt_id: str,
    nature: Literal["benign", "harmful"] = "harmful",
    policy: str = "illegal_activity",
    **changes: Any,
) -> CoTRecord:
    """A completed record with a distinct text."""
    given: dict[str, Any] = {
        "prompt": f"What of {prompt_id}?",
        "intents": [Intent(text="To know.", kind="explicit", nature=nature)],
        "thoughts": [
            thought(f"Think {words(prompt_id + '1', 12)}.", policy),
            thought(f"Then {words(prompt_id + '2', 12)}.", policy),
        ],
        "response": f"Say {words(prompt_id, 24)}.",
    }
    return _RECORD.model_copy(update={"id": prompt_id, **given, **changes}, deep=True)


async def records_run(folder: Path, number: int = 6, change: Change = lambda made: made) -> Path:
    """A finished run of that many records; every third prompt is harmless."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    made = [change(a_record(f"p{n}", "benign" if n % 3 == 2 else "harmful")) for n in range(number)]
    with closing(Journal(folder / FILE_NAME, write=True)) as journal:
        await take_in(journal, (Prompt(r.id, r.prompt) for r in made))
        for place, each in enumerate(made):
            await store_result(journal, place, each)
        for key, value in (("kind", RECORDS.name), ("settings", "{}")):
            await journal.write(partial(Transaction.set_meta, key=key, value=value))
    return folder


def cast_at(endpoint: Endpoint | str, baseline: bool = False, **recipe: Any) -> PairCast:
    """A pair cast at an endpoint, without retries of calls."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    config = EndpointConfig(base_url=url, model="m", max_retries=0, timeout=20)
    made = PairRecipe(**{"name": "test", "description": "For tests.", **recipe})
    return PairCast(
        made,
        load_policy_set("aidsafe"),
        {"default": Model("default", ModelConfig(endpoint=config))},
        load_seeds(made.seeds),
        baseline=baseline,
    )


@asynccontextmanager
async def opened(records: Path, cast: PairCast, folder: Path) -> AsyncIterator[Run]:
    """A pair run; closed afterwards."""
    job = PairJob(cast, records)
    run = Run(folder, job, job.source())
    try:
        yield run
    finally:
        run.close()
        job.close()
        for model in cast.models_in_use:
            await model.close()


async def prefer(
    records: Path, cast: PairCast, concurrency: int = 1, folder: Path | None = None, **options: Any
) -> Summary:
    """A session that makes the pairs of a run."""
    async with opened(records, cast, folder or records / "pairs") as run:
        job = run.job
        assert isinstance(job, PairJob)
        return await run.execute(job.prompts(), concurrency, **options)


def pairs_of(records: Path, folder: Path | None = None) -> list[PreferencePair]:
    with closing(Journal((folder or records / "pairs") / FILE_NAME)) as journal:
        return list(RunReader(journal, PAIRS))


def lessons_of(records: Path, folder: Path | None = None) -> list[tuple[Any, ...]]:
    """The lessons of a pair run, in their order: position, settings, prompt number, exemplar."""
    return rows_of(
        (folder or records / "pairs"),
        "SELECT note, scope, number, data FROM notes WHERE topic = 'lessons' ORDER BY note",
    )


def kept(summary: Summary) -> int:
    """How many pairs a session's run has kept."""
    return summary.tallies["audit"].get("kept", 0)


def set_aside(summary: Summary) -> dict[str, int]:
    """How many pairs were set aside, by reason."""
    return {k: n for k, n in summary.tallies["audit"].items() if k != "kept"}


async def reopen(folder: Path) -> None:
    """Makes all prompts of a run pending again."""
    with closing(Journal(folder / FILE_NAME, write=True)) as journal:
        await journal.write(lambda tx: tx.reopen())


def rows_of(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a run's journal."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as db:
        return db.execute(query).fetchall()


def said(pair: PreferencePair) -> dict[str, Any]:
    """A pair without its times, latencies and token counts."""
    data = pair.model_dump(mode="json")
    for name in ("started_at", "finished_at"):
        del data["provenance"][name]
    del data["latency"], data["usage"]
    for turn in data["turns"]:
        for call in (turn, *turn["discarded"]):
            del call["latency"], call["usage"]
    text = json.dumps(data)
    return dict(json.loads(text))


def ids(number: int) -> Iterator[str]:
    return (f"p{n}" for n in range(number))
