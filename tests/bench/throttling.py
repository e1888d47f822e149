"""Whether a run finds the pace of an endpoint that lets through so many calls a second.

Many more chats at once than the limit can serve; what counts is the time after a run has had its
chance to find the pace.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.bench import ours
from tests.bench.processes import Served, running, served, write_prompts
from tests.bench.table import BenchError, Row
from tests.endpoint.faults import Fault

RATE, AT_ONCE = 50, 150
THROUGHPUT_TARGET, REJECTED_TARGET = 0.9, 0.05

# Far more than there is time for, and so many that a run that fails chats does not end early.
PROMPTS = 20_000


def measure(quick: bool) -> list[Row]:
    settle, end = (5.0, 15.0) if quick else (30.0, 75.0)
    with (
        served("agree", latency=1.0, rate_limit=RATE) as endpoint,
        tempfile.TemporaryDirectory() as temporary,
    ):
        prompts = write_prompts(Path(temporary) / "prompts.jsonl", PROMPTS)
        with running(endpoint, prompts, Path(temporary) / "one", AT_ONCE) as run:
            if not run.wait_until(lambda: endpoint.stats()["calls"] > 0, 60):
                raise BenchError("the run makes no calls")
            first = endpoint.stats()["first_call"]
            then = counted(endpoint, first + settle)
            now = counted(endpoint, first + end)
            early = f" (the run ended early: {run.last_words})" if run.ended else ""
        outcomes = Counter(outcome for outcome, _ in ours.finished(run.folder))
    accepted = (now["ok"] - then["ok"]) / (end - settle)
    rejected = now[Fault.RATE_LIMITED] - then[Fault.RATE_LIMITED]
    share = rejected / max(1, now.total() - then.total())
    what = f"endpoint of {RATE} calls/s, {AT_ONCE} chats at once, {settle:g} to {end:g} s"
    lost = sum(number for outcome, number in outcomes.items() if outcome != "completed")
    return [
        Row(
            f"{what}: calls that it took",
            f"{accepted:.1f}/s ({accepted / RATE:.0%}){early}",
            target=f"≥ {THROUGHPUT_TARGET:.0%}",
            met=accepted >= THROUGHPUT_TARGET * RATE,
        ),
        Row(
            "the same: calls answered 429",
            f"{share:.1%}; {lost} of {outcomes.total()} prompts lost",
            target=f"< {REJECTED_TARGET:.0%}",
            met=share < REJECTED_TARGET,
        ),
    ]


def counted(endpoint: Served, at: float) -> Counter[str]:
    """What the endpoint has counted at a time on the clock of `time.monotonic`."""
    time.sleep(max(0.0, at - time.monotonic()))
    return Counter(endpoint.stats()["counts"])
