"""What a run's process holds: with many chats under way, and with a million prompts before it."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.processes import Served, running, served, write_prompts
from tests.bench.table import BenchError, Row
from tests.endpoint.faults import Fault

LIVE_TARGET, QUEUE_TARGET, FIRST_CALL_TARGET = 250.0, 60.0, 60.0  # MB, MB, seconds

AT_ONCE = 16
CLOSED_FOR = 0.5  # seconds: it may be opened twice, for its first line and for all of it


def measure(quick: bool) -> list[Row]:
    if quick:
        return [live_chats(200, patience=60), *queues(50_000, 1_000, patience=30)]
    return [live_chats(2_000, patience=240), *queues(1_000_000, 1_000, patience=400)]


# Chats under way


def live_chats(chats: int, patience: float) -> Row:
    """The peak of a process in which so many chats wait for the reply to their last call."""
    peak, there = peak_of(chats, patience)
    one, _ = peak_of(1, patience)
    missing = "" if there >= chats else f", only {there:,} of them there after {patience:g} s"
    each = (peak - one) / chats * 1000
    return Row(
        f"{chats:,} live chats, each in its last call: peak memory of the process",
        f"{peak:.0f} MB ({one:.0f} with a single chat, so {each:.0f} kB a chat{missing})",
        target=f"≤ {LIVE_TARGET:.0f} MB",
        met=there >= chats and peak <= LIVE_TARGET,
    )


def peak_of(chats: int, patience: float) -> tuple[float, int]:
    """MB at the most, and how many chats were in their last call in the end."""
    with served("hang_at_the_end") as endpoint, tempfile.TemporaryDirectory() as temporary:
        prompts = write_prompts(Path(temporary) / "prompts.jsonl", chats)
        with running(endpoint, prompts, Path(temporary) / "one", chats) as run:
            run.wait_until(lambda: waiting(endpoint) >= chats, patience, 0.5)
            _, peak = run.memory()
            return peak, waiting(endpoint)


def waiting(endpoint: Served) -> int:
    return int(endpoint.stats()["counts"].get(Fault.HANG, 0))


# Prompts that wait


@dataclass
class Start:
    """The beginning of a run, up to where all input has been read and a call was made."""

    rss: float
    """MB at the end of it."""
    peak: float
    """MB, the most until then."""
    first_call: float | None
    """Seconds from the process's start to the endpoint's first call."""
    share_read: float
    """Of the input; 1 unless patience was at its end before."""


def queues(many: int, few: int, patience: float) -> list[Row]:
    """Memory with many prompts in the file beside few, and how long the first call takes."""
    large, small = start(many, patience), start(few, patience)
    more, peak = large.rss - small.rss, large.peak - small.peak
    unread = ", ".join(
        f"only {each.share_read:.1%} of {number:,} read after {patience:g} s"
        for each, number in ((large, many), (small, few))
        if each.share_read < 1
    )
    called = large.first_call
    return [
        Row(
            f"{many:,} prompts read, beside {few:,}: memory of the process",
            f"{more:+.0f} MB, at its peak {peak:+.0f} MB" + (f" ({unread})" if unread else ""),
            target=f"≤ +{QUEUE_TARGET:.0f} MB",
            met=not unread and max(more, peak) <= QUEUE_TARGET,
        ),
        Row(
            f"{many:,} prompts: from the start of the process to the first call",
            f"{called:.1f} s" if called is not None else f"none in {patience:g} s",
            target=f"≤ {FIRST_CALL_TARGET:.0f} s",
            met=called is not None and called <= FIRST_CALL_TARGET,
        ),
    ]


def start(number: int, patience: float) -> Start:
    """Begins a run over so many prompts, and ends it once everything has been read."""
    with served("agree", latency=0.2) as endpoint, tempfile.TemporaryDirectory() as temporary:
        prompts = write_prompts(Path(temporary) / "prompts.jsonl", number)
        with running(endpoint, prompts, Path(temporary) / "one", AT_ONCE) as run:
            progress = Progress(run.pid, prompts)
            asked = 0.0

            def is_under_way() -> bool:
                nonlocal asked
                if progress.look() < 1:
                    return False
                if time.monotonic() - asked < 0.2:  # asking costs the endpoint time
                    return False
                asked = time.monotonic()
                return bool(endpoint.stats()["calls"])

            run.wait_until(is_under_way, patience, 0.02)
            rss, peak = run.memory()
            first = endpoint.stats()["first_call"]
            return Start(
                rss, peak, first - run.started if first is not None else None, progress.look()
            )


class Progress:
    """How far a process has read a file.

    To its end, if it was seen there, or if the file was seen open and then was closed for a while:
    short files are read between two looks.
    """

    def __init__(self, pid: int, file: Path) -> None:
        self._descriptors = Path(f"/proc/{pid}/fd")
        self._file = str(file.resolve())
        self._size = file.stat().st_size
        self._position = 0
        self._seen: float | None = None
        if not self._descriptors.exists():
            raise BenchError("what a process has read is known on Linux only")

    def look(self) -> float:
        """The share of the file that has been read."""
        if self._position < self._size:
            position = self._find()
            now = time.monotonic()
            if position is not None:
                self._seen = now
                self._position = max(self._position, position)
            elif self._seen is not None and now - self._seen > CLOSED_FOR:
                self._position = self._size
        return self._position / self._size

    def _find(self) -> int | None:
        """Where the process stands in the file; None if it does not have it open."""
        descriptors: list[Path] = []
        with suppress(OSError):  # the process is gone
            descriptors += self._descriptors.iterdir()
        for descriptor in descriptors:
            with suppress(OSError):  # another one that was closed while we look
                if os.readlink(descriptor) == self._file:
                    info = self._descriptors.parent / "fdinfo" / descriptor.name
                    return int(info.read_text().split()[1])
        return None
