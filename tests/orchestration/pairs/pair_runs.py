"""Pair runs for tests: a run of records that nobody had to deliberate on, and sessions over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal

from agents.deliberation import Thought
from agents.models.endpoint import EndpointConfig
from agents.models.model import Model, ModelConfig
from agents.replies import Intent
from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs.exemplars import load_seeds
from orchestration.pairs.job import PairJob
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import PairCast, PairRecipe
from orchestration.prompts import Prompt
from orchestration.record import CoTRecord
from orchestration.runs import Run
from orchestration.runs.state import Summary
from policies import load_policy_set
from tests.endpoint import Endpoint
from tests.orchestration.journals import take_in
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
    """A completed record with a text of its own."""
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
    """A finished run of so many records; every third one's prompt is harmless."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    made = [change(a_record(f"p{n}", "benign" if n % 3 == 2 else "harmful")) for n in range(number)]
    with closing(Journal(folder / FILE_NAME, write=True)) as journal:
        await take_in(journal, (Prompt(r.id, r.prompt) for r in made))
        for place, each in enumerate(made):
            await journal.keep_record(place, each)
        await journal.write(lambda db: db.execute("REPLACE INTO meta VALUES ('settings', '{}')"))
    return folder


def cast_at(endpoint: Endpoint | str, baseline: bool = False, **recipe: Any) -> PairCast:
    """A pair cast at an endpoint that is asked once a call."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    config = EndpointConfig(base_url=url, model="m", max_retries=0, timeout=20)
    made = PairRecipe(**{"name": "test", "description": "For tests.", **recipe})
    return PairCast.load(
        made,
        load_policy_set("aidsafe"),
        {"default": Model("default", ModelConfig(endpoint=config))},
        load_seeds(made.seeds),
        baseline=baseline,
    )


@asynccontextmanager
async def opened(records: Path, cast: PairCast, folder: Path) -> AsyncIterator[Run]:
    """A pair run that is closed in the end."""
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
        return await run.execute(job.records.finished(), concurrency, **options)


def pairs_of(records: Path, folder: Path | None = None) -> list[PreferencePair]:
    with closing(Journal((folder or records / "pairs") / FILE_NAME)) as journal:
        return list(journal.records_of(PreferencePair))


def lessons_of(records: Path, folder: Path | None = None) -> list[tuple[Any, ...]]:
    """The lessons of a pair run, in their order."""
    with closing(Journal((folder or records / "pairs") / FILE_NAME)) as journal:
        return list(journal.rows("SELECT * FROM lessons ORDER BY lesson"))


def said(pair: PreferencePair) -> dict[str, Any]:
    """All of a pair but when it was made, how long that took, and what was cached."""
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
