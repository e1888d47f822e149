"""Progress of a run: for the live view, `aidsafe status` and the summary."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from agents.models.errors import EndpointError
from agents.models.rate_limiter import limiters
from agents.models.timeouts import known_timeouts
from agents.models.usage import Usage
from orchestration.journal import Journal
from orchestration.runs.budget import Budget
from orchestration.runs.files import write_atomically
from orchestration.runs.intake import Intake
from orchestration.runs.job import Kind, Tallies
from orchestration.runs.result import RunResult, ending_of

STATUS_NAME = "status.json"
SUMMARY_NAME = "summary.json"
ERRORS_KEPT = 5
_WINDOW = 300.0  # seconds over which the rate is taken

Phase = Literal["running", "stopping", "finished", "stopped"]


class EndpointState(BaseModel, extra="forbid"):
    """How an endpoint is being used."""

    endpoint: str
    limit: float | None
    """Estimated limit of calls at the same time; None if unlimited."""
    in_flight: int
    """Calls in flight."""
    waiting: int
    """Calls that wait for the rate limiter."""
    pace: float | None
    """Estimated limit of calls a second; None if unlimited."""
    timeout: float | None = None
    """Seconds after which an attempt is abandoned at present; the highest of its models."""


class LastError(BaseModel, extra="forbid"):
    """What made a call fail."""

    at: str
    """UTC, ISO 8601: when it occurred last."""
    cause: str
    times: int
    """Number of occurrences in this session."""


class Summary(BaseModel, extra="forbid"):
    """Progress of a run. Schema of `status.json` and `summary.json`."""

    aidsafe: Literal[1] = 1
    """Version of this schema."""
    phase: Phase = "running"
    why_stopped: str | None = None
    """Why it stopped before its end."""
    process: str = ""
    """Host and process id of the session."""
    started_at: str = ""
    """UTC, ISO 8601: when the session began."""
    updated_at: str = ""

    prompts: int = 0
    """Prompts of the session's source read so far; of the run if it has none."""
    all_read: bool = False
    """Whether its source has been read to its end."""
    duplicates: int = 0
    """Rows left out because an earlier row has the same text."""
    empty: int = 0
    """Rows left out because their prompt was empty."""
    left_out: list[tuple[int, str]] = []
    """The first few of the rows left out, and why."""
    pending: int = 0
    """Prompts without an outcome yet."""
    active: int = 0
    """Chats in progress."""

    outcomes: dict[str, int] = {}
    """Outcomes of all prompts of the run so far."""
    kind: str
    """What the run makes."""
    tallies: Tallies = {}
    """Counts of its completed results, such as why their circles stopped."""
    calls: int = 0
    """Replies that were paid for, in all sessions."""
    usage: Usage = Field(default_factory=Usage)
    """Their tokens."""
    cost: dict[str, float] = {}
    """What they cost, by currency."""
    unpriced_calls: int = 0
    """How many of them had no configured price, and are not in `cost`."""
    unusable_calls: int = 0
    """How many of them could not be used, such as answers that are no chat completions."""
    abandoned_calls: int = 0
    """Attempts that timed out, not among the calls: the endpoint may have billed them."""

    done_before: int = 0
    """Prompts that had an outcome when the session began."""
    done: int = 0
    """Prompts that got their outcome in this session."""
    seconds: float = 0.0
    """Wall time of this session."""
    replayed: int = 0
    """Replies that this session took from the journal instead of paying for them again."""
    attempts: dict[str, int] = {}
    """Requests of this session: `answered`, or the kind of error."""
    per_minute: float | None = None
    """Recent rate of outcomes."""
    seconds_left: float | None = None
    """Until all pending prompts have an outcome, at that rate."""
    endpoints: list[EndpointState] = []
    last_errors: list[LastError] = []
    """The most recent last."""

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end."""
        return self.phase == "stopped"


class RunStatus:
    """Counts what happens in a session; the observer of its calls.

    Args:
        journal: Of the run.
        kind: What the run makes.
        intake: Of the session.
        budget: Of the session.
        on_attempt: Called with every request's end: `answered`, or the kind of its error.
    """

    def __init__(
        self,
        journal: Journal,
        kind: Kind[Any],
        intake: Intake,
        budget: Budget,
        on_attempt: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._kind = kind
        self._intake = intake
        self._budget = budget
        self._on_attempt = on_attempt
        self.recount(journal)
        # A source that is being read is counted meanwhile.
        self._pending_before = journal.count_pending(intake.number or None) if intake.known else 0
        self.state = Summary(
            kind=kind.name,
            process=f"{platform.node()}:{os.getpid()}",
            started_at=_now(),
            done_before=self._outcomes.total(),
        )
        """What is counted here; `summary` adds what is counted elsewhere."""
        self._attempts: Counter[str] = Counter()
        self._errors: dict[str, LastError] = {}
        self._started = time.monotonic()
        self._ends: deque[float] = deque(maxlen=2_000)

    def recount(self, journal: Journal) -> None:
        """Takes the counts of results from the journal."""
        self._outcomes: Counter[str] = journal.outcomes()
        self._endings: Counter[str] = journal.endings()

    def attempt_answered(self, where: str) -> None:
        """See `Observer`."""
        self._count_attempt("answered")

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        """See `Observer`."""
        self._count_attempt(error.kind)
        self.note_error(error.loggable_cause)

    def _count_attempt(self, kind: str) -> None:
        self._attempts[kind] += 1
        self._on_attempt(kind)

    def note_error(self, cause: str) -> None:
        """Notes a problem, without any text of prompts or replies."""
        before = self._errors.pop(cause, None)
        times = before.times + 1 if before else 1
        self._errors[cause] = LastError(at=_now(), cause=cause, times=times)
        if len(self._errors) > ERRORS_KEPT:
            del self._errors[next(iter(self._errors))]

    def add(self, result: RunResult) -> None:
        """Counts a result."""
        self._outcomes[result.outcome] += 1
        self.state.done += 1
        self._ends.append(time.monotonic())
        if result.outcome == "completed":
            self._endings[ending_of(result)] += 1

    def _per_minute(self) -> float | None:
        now = time.monotonic()
        ends = [end for end in self._ends if now - end <= _WINDOW]
        if len(ends) < 2:
            return None
        full = len(ends) == self._ends.maxlen  # there were more, of unknown times
        span = now - ends[0] if full else min(now - self._started, _WINDOW)
        return 60.0 * len(ends) / span

    def summary(self) -> Summary:
        """The present state."""
        intake, rate = self._intake, self._per_minute()
        # Counted once and updated: counting a million rows every second would take too long.
        pending = max(0, self._pending_before + intake.new_pending - self.state.done)
        counted = {
            "updated_at": _now(),
            "prompts": intake.counts.taken,
            "all_read": intake.complete,
            "duplicates": intake.counts.duplicates,
            "empty": intake.counts.empty,
            "left_out": [tuple(row) for row in intake.counts.left_out],
            "pending": pending,
            "outcomes": dict(self._outcomes),
            "tallies": self._kind.tallies(self._endings),
            **self._budget.spent(),
            "seconds": round(time.monotonic() - self._started, 3),
            "attempts": dict(self._attempts),
            "per_minute": rate,
            "seconds_left": 60.0 * pending / rate if rate and intake.complete else None,
            "endpoints": [
                EndpointState(
                    endpoint=name,
                    limit=limiter.concurrency_limit,
                    in_flight=limiter.in_flight,
                    waiting=limiter.waiting,
                    pace=limiter.rate_limit,
                    timeout=max(
                        (t for (url, _), t in known_timeouts().items() if url == name), default=None
                    ),
                )
                for name, limiter in limiters().items()
            ],
            "last_errors": list(self._errors.values()),
        }
        return self.state.model_copy(update=counted)


def write_status(folder: Path, name: str, summary: Summary) -> None:
    """Writes a summary into the run's folder; a full disk is ignored."""
    text = json.dumps(summary.model_dump(mode="json"), indent=2) + "\n"
    with suppress(OSError, ValueError):
        write_atomically(folder / name, [text])


def read_status(folder: Path, name: str) -> Summary | None:
    """What `write_status` wrote; None if it cannot be read."""
    try:
        return Summary.model_validate_json((folder / name).read_bytes())
    except (OSError, ValueError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
