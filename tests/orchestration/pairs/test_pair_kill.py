"""Promises of a pair run that is killed repeatedly: the same pairs and the same lessons."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal
from tests.endpoint import Endpoint
from tests.orchestration.pairs.pair_runs import (
    cast_at,
    lessons_of,
    pairs_of,
    prefer,
    records_run,
    said,
)
from tests.orchestration.pairs.scripts import whisper

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL as POSIX has it")

RECORDS, KILLS = 500, 12
RECIPE: dict[str, Any] = {
    "attempts": 2,
    "strategy": "scoring_diverse",
    "audit": {"length_ratio": None},
}


def session(records: str, folder: str, url: str, concurrency: int) -> None:
    """One session of the pair run, in a process of its own."""
    asyncio.run(prefer(Path(records), cast_at(url, **RECIPE), concurrency, Path(folder)))


def stored_calls(folder: Path) -> int:
    with closing(Journal(folder / FILE_NAME)) as journal:
        return sum(row.calls for row in journal.spend())


def killed_repeatedly(records: Path, folder: Path, endpoint: Endpoint, at_once: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.orchestration.pairs.pair_runs"])
    random = Random(at_once)
    for _ in range(KILLS):
        process = context.Process(
            target=session, args=(str(records), str(folder), endpoint.base_url, at_once)
        )
        process.start()
        goal = endpoint.counts["ok"] + random.randint(1, 300)
        deadline = time.monotonic() + 30
        while endpoint.counts["ok"] < goal and process.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
        process.join()
    process = context.Process(
        target=session, args=(str(records), str(folder), endpoint.base_url, at_once)
    )
    process.start()
    process.join(120)
    assert process.exitcode == 0


async def test_500_records_killed_and_resumed_give_the_pairs_of_an_uninterrupted_run(
    tmp_path: Path,
) -> None:
    records = await records_run(tmp_path / "run", RECORDS)
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    with Endpoint(reply=whisper) as endpoint:
        await prefer(records, cast_at(endpoint, **RECIPE), 1, whole)
        calls = endpoint.counts["ok"]
    url = endpoint.base_url
    with Endpoint(reply=whisper, port=int(url.rpartition(":")[2].partition("/")[0])) as endpoint:
        await asyncio.to_thread(killed_repeatedly, records, folder, endpoint, 1)
        answered = endpoint.counts["ok"]

    assert [said(pair) for pair in pairs_of(records, folder)] == [
        said(pair) for pair in pairs_of(records, whole)
    ]
    assert lessons_of(records, folder) == lessons_of(records, whole)
    assert len(lessons_of(records, folder)) > 300
    assert stored_calls(folder) == stored_calls(whole) == calls
    assert answered - calls <= KILLS  # those in flight when it was killed


async def test_with_chats_at_once_nothing_is_lost_or_learnt_twice(tmp_path: Path) -> None:
    records = await records_run(tmp_path / "run", RECORDS)
    folder = tmp_path / "killed"
    with Endpoint(reply=whisper) as endpoint:
        await asyncio.to_thread(killed_repeatedly, records, folder, endpoint, 16)
        answered = endpoint.counts["ok"]

    found = pairs_of(records, folder)
    assert Counter(pair.outcome for pair in found) == {"completed": RECORDS}
    lessons = lessons_of(records, folder)
    assert [row[0] for row in lessons] == list(range(1, len(lessons) + 1))
    taught = [pair.id for pair in found if pair.stop_reason == "violation"]
    assert sorted(f"p{row[2]}" for row in lessons) == sorted(taught)
    # Every chat was resumed with the exemplars that it had begun with: each call was paid for once,
    # except for those in flight when it was killed.
    kept = stored_calls(folder)
    assert kept == sum(len(pair.turns) for pair in found)
    assert answered - kept <= KILLS * 16
