"""How far a run is: counted while it runs, for the terminal, `status` and the summary."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter, deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from agents.models.errors import EndpointError
from agents.models.registry import throttles
from agents.turns import Usage
from orchestration.journal import Journal
from orchestration.record import Kept
from orchestration.runs.budget import Budget
from orchestration.runs.files import write_whole
from orchestration.runs.intake import Intake

STATUS_NAME = "status.json"
SUMMARY_NAME = "summary.json"
ERRORS_KEPT = 5
_WINDOW = 300.0  # seconds over which the rate is taken

Phase = Literal["running", "stopping", "finished", "stopped"]


class EndpointState(BaseModel):
    """How an endpoint is being used."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    limit: float | None
    """Calls at the same time that it is thought to bear; None while nothing bounds them."""
    in_flight: int
    """Calls under way."""
    waiting: int
    """Calls that wait for their turn."""
    pace: float | None
    """Calls a second that it is thought to bear; None while nothing bounds them."""


class LastError(BaseModel):
    """What kept a call from its reply."""

    model_config = ConfigDict(extra="forbid")

    at: str
    """UTC, ISO 8601: when it was seen last."""
    cause: str
    times: int
    """How often in this session."""


class Summary(BaseModel):
    """What a run has done, and what it is doing. Schema of `status.json` and `summary.json`."""

    model_config = ConfigDict(extra="forbid")

    aidsafe: Literal[1] = 1
    """Version of this form."""
    phase: Phase = "running"
    why_stopped: str | None = None
    """Why it stopped before its end."""
    process: str = ""
    """Host and process id of the session."""
    started_at: str = ""
    """UTC, ISO 8601: when the session began."""
    updated_at: str = ""

    prompts: int = 0
    """Prompts of the session's source that are known so far; of the run where it has none."""
    all_read: bool = False
    """Whether its source has been read to its end."""
    duplicates: int = 0
    """Rows left out because an earlier row has the same text."""
    empty: int = 0
    """Rows left out because their prompt was empty."""
    left_out: list[tuple[int, str]] = []
    """The first few of the rows left out, and why."""
    waiting: int = 0
    """Prompts without an outcome yet."""
    active: int = 0
    """Chats under way."""

    outcomes: dict[str, int] = {}
    """Outcomes of all prompts of the run so far."""
    kind: Literal["records", "pairs"] = "records"
    """What the run makes."""
    stop_reasons: dict[str, int] = {}
    """Why the circles of its completed records stopped."""
    rounds_to_consensus: dict[int, int] = {}
    """After how many rounds the circles agreed that did."""
    kept: int = 0
    """Pairs that are fit to train on."""
    set_aside: dict[str, int] = {}
    """Completed pairs that are not, by the reason; with `kept` they make up the completed ones."""
    attempts_to_kept: dict[int, int] = {}
    """After how many attempts the kept pairs were made."""
    calls: int = 0
    """Replies that were paid for, in all sessions."""
    usage: Usage = Field(default_factory=Usage)
    """Their tokens."""
    cost: dict[str, float] = {}
    """What they cost, by currency."""
    unpriced_calls: int = 0
    """How many of them are not in `cost`, since no price was configured."""

    done_before: int = 0
    """Prompts that had an outcome when the session began."""
    done: int = 0
    """Prompts that came to their outcome in this session."""
    seconds: float = 0.0
    """Wall time of this session."""
    replayed: int = 0
    """Replies that were taken from the journal in this session, and not paid for again."""
    attempts: dict[str, int] = {}
    """Requests of this session by what came of them: `answered`, or the kind of error."""
    per_minute: float | None = None
    """Prompts that come to their outcome a minute, lately."""
    seconds_left: float | None = None
    """Until the waiting prompts have theirs, at that rate."""
    endpoints: list[EndpointState] = []
    last_errors: list[LastError] = []
    """The latest last."""

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end."""
        return self.phase == "stopped"


class Endings:
    """How the completed records of a run came to their end: what it makes decides what is counted.

    Args:
        kind: What the run makes.
        reasons: Why they stopped, or what became of them.
        ways: After how many rounds or attempts those did that came to a good end.
    """

    def __init__(self, kind: str | None, reasons: Counter[str], ways: Counter[int]) -> None:
        self.pairs = kind == "pairs"
        self.reasons = reasons
        self.ways = ways

    @classmethod
    def of(cls, journal: Journal) -> Self:
        """As a journal has them."""
        kind = journal.meta("kind")
        return cls(kind, journal.reasons(), journal.ways_to(_GOOD_END[kind == "pairs"]))

    def add(self, record: Kept) -> None:
        """One more has been completed."""
        self.reasons[str(record.reason)] += 1
        if record.reason == _GOOD_END[self.pairs]:
            self.ways[record.ways] += 1

    def fields(self) -> dict[str, Any]:
        """As fields of a summary."""
        reasons, ways = dict(self.reasons), dict(sorted(self.ways.items()))
        if not self.pairs:
            return {"kind": "records", "stop_reasons": reasons, "rounds_to_consensus": ways}
        kept = reasons.pop("kept", 0)
        return {"kind": "pairs", "kept": kept, "set_aside": reasons, "attempts_to_kept": ways}


_GOOD_END = {False: "consensus", True: "kept"}


class RunState:
    """Counts what happens in a session. Also the observer of its calls.

    Args:
        journal: Of the run.
        intake: Of the session.
        budget: Of the session.
    """

    def __init__(self, journal: Journal, intake: Intake, budget: Budget) -> None:
        self._intake = intake
        self._budget = budget
        self.outcomes: Counter[str] = journal.outcomes()
        self.endings = Endings.of(journal)
        # A source that is read now is counted while it is read.
        source = None if intake.of_run else intake.number
        self._waiting_before = journal.count_waiting(source) if intake.known else 0
        self.done_before = self.outcomes.total()
        self.done = 0
        self.active = 0
        self.replayed = 0
        self.attempts: Counter[str] = Counter()
        self.phase: Phase = "running"
        self.why_stopped: str | None = None
        self._errors: dict[str, tuple[float, int]] = {}
        self._started = time.monotonic()
        self._started_at = _now()
        self._ends: deque[float] = deque(maxlen=2_000)

    def attempt_answered(self, where: str) -> None:
        """A request was answered."""
        self.attempts["answered"] += 1

    def attempt_failed(self, where: str, error: EndpointError, retry_in: float | None) -> None:
        """A request was not answered."""
        self.attempts[error.kind] += 1
        self.note_error(error.told)

    def note_error(self, cause: str) -> None:
        """Something went wrong; what, without any text of prompts or replies."""
        _, times = self._errors.pop(cause, (0.0, 0))
        self._errors[cause] = (time.time(), times + 1)
        if len(self._errors) > ERRORS_KEPT:
            del self._errors[next(iter(self._errors))]

    def add(self, record: Kept) -> None:
        """A prompt has come to its outcome."""
        self.outcomes[record.outcome] += 1
        self.done += 1
        self._ends.append(time.monotonic())
        if record.outcome == "completed":
            self.endings.add(record)

    @property
    def per_minute(self) -> float | None:
        """Prompts that come to their outcome a minute, lately; None before there are two."""
        now = time.monotonic()
        ends = [end for end in self._ends if now - end <= _WINDOW]
        if len(ends) < 2:
            return None
        full = len(ends) == self._ends.maxlen  # then there were more, and nobody knows since when
        span = now - ends[0] if full else min(now - self._started, _WINDOW)
        return 60.0 * len(ends) / span

    def summary(self) -> Summary:
        """How things stand now."""
        counts, budget = self._intake.counts, self._budget
        waiting = max(0, self._waiting())
        rate = self.per_minute
        return Summary(
            phase=self.phase,
            why_stopped=self.why_stopped,
            process=f"{platform.node()}:{os.getpid()}",
            started_at=self._started_at,
            updated_at=_now(),
            prompts=counts.taken,
            all_read=self._intake.complete,
            duplicates=counts.duplicates,
            empty=counts.empty,
            left_out=[tuple(row) for row in counts.left_out],
            waiting=waiting,
            active=self.active,
            outcomes=dict(self.outcomes),
            **self.endings.fields(),
            calls=budget.calls,
            usage=budget.usage,
            cost={currency: round(cost, 6) for currency, cost in budget.costs.items()},
            unpriced_calls=budget.unpriced,
            done_before=self.done_before,
            done=self.done,
            seconds=round(time.monotonic() - self._started, 3),
            replayed=self.replayed,
            attempts=dict(self.attempts),
            per_minute=rate,
            seconds_left=60.0 * waiting / rate if rate and self._intake.complete else None,
            endpoints=[
                EndpointState(
                    endpoint=name,
                    limit=throttle.limit,
                    in_flight=throttle.in_flight,
                    waiting=throttle.waiting,
                    pace=throttle.pace,
                )
                for name, throttle in throttles().items()
            ],
            last_errors=[
                LastError(at=_at(when), cause=cause, times=times)
                for cause, (when, times) in self._errors.items()
            ],
        )

    def _waiting(self) -> int:
        # Counted once and carried on: counting a million rows again and again would take its time.
        return self._waiting_before + self._intake.fresh - self.done


def write_status(folder: Path, name: str, summary: Summary) -> None:
    """Writes how things stand into the run's folder; a full disk is not its business."""
    text = json.dumps(summary.model_dump(mode="json"), indent=2) + "\n"
    with suppress(OSError, ValueError):
        write_whole(folder / name, [text])


def read_status(folder: Path, name: str) -> Summary | None:
    """What `write_status` wrote; None if there is nothing that can be read."""
    try:
        return Summary.model_validate_json((folder / name).read_bytes())
    except (OSError, ValueError):
        return None


def _now() -> str:
    return _at(time.time())


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
