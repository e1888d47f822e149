"""How long a run of a hundred thousand records takes to go on, until its first new call.

A run is begun as a user would, stopped once its prompts are read, and its journal filled with
copies of what it had come to: records, and ten replies for each. Then the same command goes on.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from orchestration.journal import FILE_NAME, Transaction
from orchestration.journal.schema import chat_of
from tests.bench.processes import Served, running, served, write_prompts
from tests.bench.table import BenchError, Row

TARGET = 3.0
AT_ONCE = 16
CALLS_EACH = 10


def measure(quick: bool) -> list[Row]:
    records = 2_000 if quick else 100_000
    with served("agree", latency=0.05) as endpoint, tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        prompts = write_prompts(home / "prompts.jsonl", records + 1_000)
        empty = first_call(endpoint, prompts, home / "empty")
        begin(endpoint, prompts, home / "full")
        calls, size = fill(home / "full" / "run" / FILE_NAME, records)
        full = first_call(endpoint, prompts, home / "full")
    return [
        Row(
            f"first new call of a run with {records:,} records and {calls:,} replies "
            f"({size / 1e9:.1f} GB), after that of an empty run",
            f"{full - empty:+.2f} s ({full:.2f} s against {empty:.2f} s)",
            target=f"≤ +{TARGET:g} s",
            met=full - empty <= TARGET,
        )
    ]


def first_call(endpoint: Served, prompts: Path, folder: Path) -> float:
    """Seconds from the start of the process to its first call."""
    before = endpoint.stats()["calls"]
    with running(endpoint, prompts, folder, AT_ONCE) as run:
        there = run.wait_until(lambda: endpoint.stats()["calls"] > before, 120, 0.005)
        if not there:
            raise BenchError("the run made no call")
        return time.monotonic() - run.started


def begin(endpoint: Served, prompts: Path, folder: Path) -> None:
    """A run that has read all its prompts, and come to its first records."""
    journal = folder / "run" / FILE_NAME

    def is_read() -> bool:
        if not journal.is_file():
            return False
        with closing(sqlite3.connect(f"{journal.as_uri()}?mode=ro", uri=True)) as db:
            try:
                done = db.execute("SELECT complete FROM sources").fetchone()
                some = db.execute("SELECT count(*) FROM results").fetchone()[0]
            except sqlite3.OperationalError:  # not made yet
                return False
            return bool(done and done[0] and some)

    with running(endpoint, prompts, folder, AT_ONCE) as run:
        if not run.wait_until(is_read, 300, 0.5):
            raise BenchError("the prompts were not read in time")


def fill(journal: Path, records: int) -> tuple[int, int]:
    """Gives the first so many prompts results and replies; their number, and the bytes on disk."""
    with closing(sqlite3.connect(journal, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        (result,) = db.execute("SELECT result FROM results LIMIT 1").fetchone()
        replies = [row[0] for row in db.execute("SELECT reply FROM calls LIMIT ?", (CALLS_EACH,))]
        found = db.execute("SELECT number, digest FROM prompts WHERE number < ?", (records,))
        transaction = Transaction(db)
        db.execute("BEGIN")
        db.execute("DELETE FROM results")
        db.execute("DELETE FROM calls")
        for number, digest in found.fetchall():
            transaction.store_result(number, "completed", "consensus/1", result)
            for position in range(CALLS_EACH):
                key, reply = digest[:15] + bytes([position]), replies[position % len(replies)]
                transaction.store_reply(chat_of(digest), key, "default", "", reply, (100, 10, 0))
        db.execute("COMMIT")
        (calls,) = db.execute("SELECT count(*) FROM calls").fetchone()
    return calls, journal.stat().st_size
