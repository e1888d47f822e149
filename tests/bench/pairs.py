"""CPU an agent turn of a pair chat costs the client, everything included, beside stock AutoGen.

The pair run has it all: exemplars, scores, audit, lessons, the search for repetitions. Stock
AutoGen has no pair chat: it is given the deliberation of `efficiency`, in turns with ours.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from orchestration.record import CoTRecord
from tests.bench import ours, stock
from tests.bench.efficiency import (
    AT_ONCE,
    LATENCY,
    MILLISECONDS_TARGET,
    PROMPTS_STOCK,
    SHARE_TARGET,
    cpu,
)
from tests.bench.processes import Served, served
from tests.bench.replies import PAIR_CALLS
from tests.bench.table import BenchError, Row
from tests.orchestration.pairs.pair_runs import cast_at, pairs_of, prefer, records_run
from tests.orchestration.pairs.scripts import words

RECORDS, BATCHES = 600, 5  # as many turns as `efficiency` has


def measure(quick: bool) -> list[Row]:
    batches, number = (2, 40) if quick else (BATCHES, RECORDS)
    spent: dict[str, list[float]] = {reply: [] for reply in PAIR_CALLS}
    autogen: list[float] = []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoints = {reply: stack.enter_context(served(reply, LATENCY)) for reply in PAIR_CALLS}
        agreeing = stack.enter_context(served("agree", LATENCY))
        records = asyncio.run(records_run(home / "run", number, _as_long_as_real_ones))
        team = ours.make_cast(agreeing.base_url)
        for batch in range(batches + 1):
            for reply, endpoint in endpoints.items():
                used = _pairs(endpoint, reply, records, home / f"{reply}{batch}", number)
                spent[reply] += [used] if batch else []  # the first is for warming up
            beside = cpu(
                agreeing,
                PROMPTS_STOCK // (10 if quick else 1),
                lambda prompts: stock.run(team, agreeing.base_url, prompts, AT_ONCE),
            )
            autogen += [beside] if batch else []
    theirs = statistics.median(autogen)
    return [
        row
        for reply, name in (("misleads", "first"), ("misleads_later", "second"))
        for row in rows(name, PAIR_CALLS[reply], statistics.median(spent[reply]), theirs)
    ]


def rows(belief: str, turns: int, ours_: float, stock_: float) -> list[Row]:
    """What a pair chat costs whose belief works that is first, or second."""
    within = ours_ / stock_ <= SHARE_TARGET
    return [
        Row(
            f"CPU an agent turn of a pair chat, {belief} belief works ({turns} turns)",
            f"{ours_ * 1000:.2f} ms",
            f"{stock_ * 1000:.2f} ms",
            f"≤ {MILLISECONDS_TARGET} ms",
            ours_ * 1000 <= MILLISECONDS_TARGET,
        ),
        Row("the same, beside stock AutoGen", f"{ours_ / stock_:.0%}", "100%", "≤ 20%", within),
    ]


def _as_long_as_real_ones(record: CoTRecord) -> CoTRecord:
    text = record.thoughts[0].text
    thoughts = [
        record.thoughts[0].model_copy(update={"id": n, "text": words(f"{text} {n}", 30)})
        for n in range(1, 5)
    ]
    return record.model_copy(update={"thoughts": thoughts, "response": words(text, 120)})


def _pairs(endpoint: Served, reply: str, records: Path, folder: Path, number: int) -> float:
    """Seconds of CPU time an agent turn, of all threads of this process."""
    before = endpoint.stats()["counts"].get("ok", 0)
    cast = cast_at(endpoint.base_url)
    gc.collect()
    started = time.process_time()
    asyncio.run(prefer(records, cast, AT_ONCE, folder))
    used = time.process_time() - started
    turns = endpoint.stats()["counts"]["ok"] - before
    kept = sum(pair.is_kept for pair in pairs_of(records, folder))
    if turns != number * PAIR_CALLS[reply] or kept < 0.98 * number:  # some are alike by chance
        raise BenchError(f"{turns} turns were answered and {kept} pairs kept of {number}")
    return used / turns
