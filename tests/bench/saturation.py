"""How near a run of chats of all lengths comes to keeping its slots full.

The best that can be done with a list of chats and so many slots is to begin the next chat whenever
a slot is free; how long that takes follows from the chats' numbers of calls. What a run takes
longer, it wasted: by computing while it should call, or by leaving slots empty.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.bench import ours
from tests.bench.processes import running, served, write_prompts
from tests.bench.replies import calls_of
from tests.bench.table import BenchError, Row

TARGET = 1.05


def measure(quick: bool) -> list[Row]:
    chats, slots, latency = (100, 20, 0.3) if quick else (1_000, 200, 1.0)
    with served("varied", latency) as endpoint, tempfile.TemporaryDirectory() as temporary:
        prompts = write_prompts(Path(temporary) / "prompts.jsonl", chats)
        with running(endpoint, prompts, Path(temporary) / "one", slots) as run:
            run.wait()
        stats = endpoint.stats()
        found = ours.finished(run.folder)
    calls = [number for _, number in found]
    if sorted(calls) != sorted(calls_of(number) for number in range(chats)):
        raise BenchError(f"the chats are of other lengths than the script's ({sum(calls)} calls)")
    if any(outcome != "completed" for outcome, _ in found) or set(stats["counts"]) != {"ok"}:
        raise BenchError(f"not every chat went well: {stats['counts']}")
    took = stats["last_reply"] - stats["first_call"]
    ideal = schedule(calls, slots) * latency
    return [
        Row(
            f"{chats:,} chats of {min(calls)} to {max(calls)} calls, {slots} at once, "
            f"{latency:g} s a reply: wall time",
            f"{took:.1f} s ({took / ideal:.3f} of a perfect schedule)",
            target=f"≤ {TARGET} of {ideal:.1f} s",
            met=took <= TARGET * ideal,
        )
    ]


def schedule(lengths: Iterable[float], slots: int) -> float:
    """When the last is done, if each begins in its order as soon as a slot is free."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length)
    return max(ends)
