"""What a run promises when its process is killed, again and again: nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from orchestration.journal import FILE_NAME, Journal
from tests.endpoint import Endpoint
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    agree,
    cast_at,
    execute,
    prompts,
    records,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL as POSIX has it")

PROMPTS, CONCURRENCY, KILLS = 300, 16, 24


def session(folder: str, url: str) -> None:
    """One session of the run, in a process of its own."""
    asyncio.run(execute(Path(folder), cast_at(url), prompts(PROMPTS), CONCURRENCY))


def kept_calls(folder: Path) -> int:
    journal = Journal(folder / FILE_NAME)
    found = sum(row.calls for row in journal.spend())
    journal.close()
    return found


def test_a_run_that_is_killed_again_and_again_loses_nothing_and_pays_for_nothing_twice(
    folder: Path,
) -> None:
    # A process is started in milliseconds, from a server that has imported everything.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.orchestration.runs"])
    random = Random(3)
    in_flight = kills = 0
    with Endpoint(reply=agree, latency=(0.005, 0.05)) as endpoint:
        while True:
            process = context.Process(target=session, args=(str(folder), endpoint.base_url))
            process.start()
            seen = endpoint.counts["ok"]
            if kills < KILLS:
                # Once it is at work: anywhere from its first reply to some dozens later.
                goal = seen + random.randint(1, 60)
                deadline = time.monotonic() + 20
                while endpoint.counts["ok"] < goal:
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                assert process.is_alive(), "it is killed in the middle of its work"
                process.kill()
                process.join()
                kills += 1
                in_flight += CONCURRENCY  # every chat had a call under way, or its reply to keep
                while endpoint.in_flight:  # the server finds out, or has just answered
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
            else:
                process.join(60)
                break
        assert process.exitcode == 0

    found = records(folder)
    assert Counter(record.outcome for record in found) == {"completed": PROMPTS}
    assert [record.id for record in found] == [f"p{n}" for n in range(PROMPTS)]

    answered = endpoint.counts["ok"]
    kept = kept_calls(folder)
    assert kept == PROMPTS * CALLS_PER_CHAT
    assert 0 <= answered - kept <= in_flight
    bodies = Counter(json.dumps(call.body, sort_keys=True) for call in endpoint.calls)
    served = [call for call in endpoint.calls if call.answered]
    again = Counter(json.dumps(call.body, sort_keys=True) for call in served)
    # What was answered twice was in flight at a kill, and nothing else was.
    assert sum(n - 1 for n in again.values()) == answered - kept
    assert len(bodies) == PROMPTS * CALLS_PER_CHAT
    assert kills >= 20
