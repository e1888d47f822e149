"""CPU of an agent turn of a pair chat in the client, everything included, beside stock AutoGen.

Ours includes exemplars, scores, audit, lessons, the search for near-duplicates and the journal.
Stock AutoGen's scorer, whisperer and generator take the same turns about the same records, get
replies of the same length, and do nothing else. Both call endpoints in processes of their own. The
share is printed without a target: a fifth, the target of a deliberation's turn, cannot be reached
where few turns share the cost of reading a record, its audit and its lesson.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path

from agents.pairs.agents import show_answer
from agents.pairs.state import answer_of
from agents.prompt_texts import default_prompts
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs.recipe import PairCast
from orchestration.runs.reader import RunReader
from tests.bench import stock
from tests.bench.efficiency import AT_ONCE, LATENCY, MILLISECONDS_TARGET, cpu
from tests.bench.processes import served
from tests.bench.replies import PAIR_CALLS
from tests.bench.table import BenchError, Row
from tests.orchestration.pairs.pair_runs import cast_at, pairs_of, prefer, records_run
from tests.orchestration.pairs.scripts import words

BATCHES = 5
# Stock AutoGen gets fewer: a batch of each takes about the same time.
NUMBER, NUMBER_STOCK = 600, 120


def measure(quick: bool) -> list[Row]:
    batches, share = (2, 0.1) if quick else (BATCHES, 1.0)
    number, number_stock = int(NUMBER * share), int(NUMBER_STOCK * share)
    spent: dict[str, list[tuple[float, float]]] = {reply: [] for reply in PAIR_CALLS}
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoints = {reply: stack.enter_context(served(reply, LATENCY)) for reply in PAIR_CALLS}
        records = asyncio.run(records_run(home / "run", number, _as_long_as_real_ones))
        for batch in range(batches + 1):
            for reply, turns in PAIR_CALLS.items():
                endpoint, folder = endpoints[reply], home / f"{reply}{batch}"
                cast = cast_at(endpoint.base_url)
                ours = cpu(endpoint, number * turns, _prefer(records, cast, folder))
                kept = sum(pair.is_kept for pair in pairs_of(records, folder))
                if kept < 0.98 * number:  # some are alike by chance
                    raise BenchError(f"{kept} pairs were kept of {number}")
                team = stock.pair_makers(cast, turns)
                work = stock.run(team, endpoint.base_url, _tasks(records, number_stock), AT_ONCE)
                theirs = cpu(endpoint, number_stock * turns, work)
                spent[reply] += [(ours, theirs)] if batch else []  # the first is for warming up
    return [
        row
        for reply, belief in (("misleads", "first"), ("misleads_later", "second"))
        for row in rows(
            belief, PAIR_CALLS[reply], *map(statistics.median, zip(*spent[reply], strict=True))
        )
    ]


def rows(belief: str, turns: int, ours: float, theirs: float) -> list[Row]:
    """Rows for chats in which the first, or the second, belief works."""
    return [
        Row(
            f"CPU an agent turn of a pair chat, {belief} belief works ({turns} turns)",
            f"{ours * 1000:.2f} ms",
            f"{theirs * 1000:.2f} ms",
            f"≤ {MILLISECONDS_TARGET} ms",
            ours * 1000 <= MILLISECONDS_TARGET,
        ),
        Row("the same, beside stock AutoGen", f"{ours / theirs:.0%}", "100%"),
    ]


async def _prefer(records: Path, cast: PairCast, folder: Path) -> None:
    await prefer(records, cast, AT_ONCE, folder)


def _tasks(records: Path, number: int) -> list[tuple[str, str]]:
    """Ids, and prompts with the answer that is the chosen side."""
    texts = default_prompts().section("pairs").violation_judge
    with closing(Journal(records / FILE_NAME)) as journal:
        return [
            (record.id, f"{record.prompt}\n\n{show_answer(answer_of(record), texts)}")
            for record in islice(RunReader(journal, RECORDS), number)
        ]


def _as_long_as_real_ones(record: CoTRecord) -> CoTRecord:
    text = record.thoughts[0].text
    thoughts = [
        record.thoughts[0].model_copy(update={"id": n, "text": words(f"{text} {n}", 30)})
        for n in range(1, 5)
    ]
    return record.model_copy(update={"thoughts": thoughts, "response": words(text, 120)})
