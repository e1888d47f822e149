"""A run: many prompts through as many chats, their records in the run's folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from agents.models.context import CALL, CallContext
from agents.models.errors import (
    CallNotBegun,
    ContextExceeded,
    EndpointAbsent,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointUnreachable,
    RequestRejected,
    SchemaUnsupported,
)
from agents.turns import TurnMessage
from orchestration.breath import calm_collector
from orchestration.chat import DeliberationChat
from orchestration.journal import JournalError
from orchestration.journal.calls import ChatLog, Keys
from orchestration.journal.schema import Waiting
from orchestration.prompts import Prompt
from orchestration.record import Kept
from orchestration.runs.again import Again, requeue
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.folder import RunFolder
from orchestration.runs.intake import Intake, Source
from orchestration.runs.job import BrokeOff, Chat, Job
from orchestration.runs.session import Session
from orchestration.runs.state import (
    STATUS_NAME,
    SUMMARY_NAME,
    Endings,
    RunState,
    Summary,
    write_status,
)
from orchestration.telemetry import NO_TELEMETRY, Telemetry
from policies import AidsafeError, ExitCode, InputError

_DEAD_AFTER = 10
_STATUS_EVERY = 2.0  # seconds


class RunStopped(AidsafeError):
    """A run that stopped before its end; what is done is kept."""

    exit_code = ExitCode.ENDPOINT


class LimitReached(AidsafeError):
    """A limit that the user set stops the run, or keeps it from beginning."""

    exit_code = ExitCode.LIMIT


async def converse(
    chat: Chat,
    *,
    ends_run: Callable[[EndpointError, bool], bool] = lambda *_: False,
    cut_off: Callable[[], str | None] = lambda: None,
    outlives: Callable[[Exception], bool] = lambda _: False,
) -> tuple[Kept, EndpointError | None]:
    """One chat to its end.

    Args:
        chat: The chat.
        ends_run: Whether an endpoint's error concerns more than this prompt; asked of the error,
            and of whether nothing had been said yet.
        cut_off: Why the chat was cut off, if that is to be its outcome.
        outlives: Whether an error that nobody foresaw costs this prompt alone.

    Returns:
        The record, of any outcome; with the endpoint's error if that made it `failed`.

    Raises:
        EndpointError: It concerns more than this prompt.
        CallNotBegun: The chat was cut off, and is to be gone on with later.
    """
    team = chat.team
    started = datetime.now(UTC)
    broke_off: BrokeOff | None = None
    failure: EndpointError | None = None
    stop_reason: str | None = None
    try:
        if team is not None:
            stop_reason = (await team.run(task=chat.task)).stop_reason
    except EndpointError as error:
        if ends_run(error, not _has_begun(team)):
            raise
        failure = error
        broke_off = ("failed", error.cause)
    except CallNotBegun:
        reason = cut_off() if _has_begun(team) else None
        if reason is None:
            raise
        broke_off = ("over_budget", reason)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled this chat: the client did that to its own call, and a task group would
        # take it for our wish and lose the prompt without a word.
        broke_off = ("failed", "The model's client cancelled its own call.")
    except Exception as error:
        if isinstance(error, AidsafeError) or not outlives(error):
            raise
        broke_off = ("failed", f"An error inside aidsafe ({type(error).__name__}).")
    said = team.messages if team is not None else ()
    try:
        return chat.record(said, stop_reason, started, broke_off), failure
    except Exception as error:
        if isinstance(error, AidsafeError) or not outlives(error):
            raise
        broke_off = ("failed", f"An error inside aidsafe ({type(error).__name__}).")
        return chat.record((), None, started, broke_off), failure


def _told(error: Exception) -> str:
    """What stopped a run, without an endpoint's own words, which may quote what was asked."""
    if isinstance(error, EndpointError):
        return error.told
    return error.cause if isinstance(error, AidsafeError) else type(error).__name__


def _has_begun(team: DeliberationChat | None) -> bool:
    return team is not None and any(isinstance(said, TurnMessage) for said in team.messages)


class Queue(Protocol):
    """Where chats get their prompts from."""

    async def next(self) -> Waiting | None:
        """The next prompt; None once there is no further one."""


Take = Callable[[], Awaitable[Waiting | None]]
Choice = Callable[[Intake], Awaitable[Queue]]
"""Chooses some of a source's prompts."""


class Run:
    """A run folder and what fills it.

    Args:
        folder: Where `run.yaml` and the journal are, or will be.
        job: What is done with each prompt.
        source: Where the prompts come from; None for those that the run has.
        telemetry: Told of its chats.

    Raises:
        InputError: The folder holds something else, or cannot be made.
        JournalError: Its journal cannot be used, or another process has it.
    """

    def __init__(
        self,
        folder: Path,
        job: Job,
        source: Source | None,
        telemetry: Telemetry = NO_TELEMETRY,
    ) -> None:
        self.job = job
        """What is done with each prompt."""
        self._source = source
        self._telemetry = telemetry
        self._keys = Keys()
        self.folder = RunFolder(folder, job, source)
        self.journal = self.folder.journal
        self.state: RunState | None = None
        """How far it is; None before `execute`."""
        self._session: Session | None = None
        self._failures_in_a_row = 0
        self._stopping = False

    @property
    def summary(self) -> Summary:
        """What it has done so far; also after `execute` raised."""
        return self.state.summary() if self.state is not None else Summary()

    def stop(self) -> None:
        """Begins no further call; `execute` returns once those under way have ended."""
        self._stopping = True  # also if there is no session yet
        if self._session is not None:
            self._session.stop()

    async def retry(self, outcomes: Collection[str], concurrency: int, **options: Any) -> Summary:
        """Takes prompts of these outcomes through a chat once more.

        Arguments and errors are those of `execute`.

        Raises:
            InputError: The settings are other than those that the run was last started with.
        """
        if self.folder.changed:
            raise InputError(
                f"The run in {self.folder.path} was last started with other settings.",
                "Start it again with the command that it was started with last.",
            )
        self._budget(options.get("limits"))  # before anything is taken up that has no room
        await requeue(self.journal, outcomes)

        async def chosen(_: Intake) -> Queue:
            return Again(self.journal)

        return await self.execute(iter(()), concurrency, chosen=chosen, **options)

    def _budget(self, limits: Limits | None) -> Budget:
        """What this session may spend.

        Raises:
            LimitReached: Nothing.
            InputError: The limits cannot be held.
        """
        budget = Budget(limits or Limits(), self.job.models_in_use, self.journal.spend())
        reached = budget.used_up()
        if reached is not None:
            raise LimitReached(
                f"{reached}: the run in {self.folder.path} has no room for another call.",
                "Raise the limit to go on.",
            )
        return budget

    async def execute(
        self,
        prompts: Iterator[Prompt],
        concurrency: int,
        *,
        limits: Limits | None = None,
        chosen: Choice | None = None,
        on_record: Callable[[Kept], None] = lambda _: None,
    ) -> Summary:
        """Takes every prompt that has no outcome yet through a chat.

        What stops the run keeps further calls from being begun; those under way come to their end
        and are kept, since they are paid for. Only where nothing can be kept any more, because of
        the journal, do they stop at once.

        Args:
            prompts: The prompts of the source, read in a thread as far as they are new.
            concurrency: Chats at the same time.
            limits: What may be spent.
            chosen: Chooses the prompts to take, instead of all of the source that wait.
            on_record: Told of every record once it is on disk.

        Returns:
            What the run has done.

        Raises:
            EndpointMisconfigured: No prompt can succeed.
            EndpointUnreachable: There is no endpoint, or none any more.
            RequestRejected: The endpoint accepted no request so far.
            RunStopped: Too many prompts in a row failed.
            JournalError: The journal cannot be written.
            InputError: The source of the prompts is broken further on, or the limits cannot be
                held.
        """
        budget = self._budget(limits)
        await self.folder.settle()
        await self.job.open(self.journal)
        intake = Intake(self.journal, self._source, prompts, self.folder.path)
        state = self.state = RunState(self.journal, intake, budget)

        def halted() -> None:  # by the user, a limit or an error
            state.phase = "stopping"
            intake.close()

        session = self._session = Session(budget, halted)
        self._failures_in_a_row = 0
        if self._stopping:
            self.stop()
        fatal: list[Exception] = []
        take: Take = intake.next

        async def work() -> None:
            while not session.halt.is_set():
                try:
                    waiting = await take()
                    if waiting is None:
                        return
                    await self._take(waiting, session, state, concurrency, on_record)
                except CallNotBegun:
                    return
                except JournalError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised below, once all have stopped
                    fatal.append(error)
                    self.stop()

        try:
            with calm_collector():
                async with self._watched(session, state), asyncio.TaskGroup() as group:
                    if chosen is not None:
                        take = (await chosen(intake)).next
                    for _ in range(concurrency):
                        group.create_task(work())
        except BaseExceptionGroup as errors:
            fatal.append(_first(errors.exceptions))
        except asyncio.CancelledError:
            session.stop()  # it did not come to its end
            raise
        finally:
            intake.close()
            self._conclude(state, session, fatal)
        if fatal:
            raise _first(fatal)
        return self.summary

    async def _take(
        self,
        waiting: Waiting,
        session: Session,
        state: RunState,
        concurrency: int,
        on_record: Callable[[Kept], None],
    ) -> None:
        """One prompt from the queue to its outcome."""
        log = ChatLog(self.journal, self._keys, session, waiting)
        state.active += 1
        try:
            with self._telemetry.chat(waiting.id, self.job.name, log) as told:
                # Chats that began earlier go first where calls have to wait.
                CALL.set(CallContext(waiting.number, session.halt, told.observer(state)))
                chat = await self.job.chat(waiting, lambda model: log.wrap(told.wrap(model)))
                if chat is None:
                    return
                record, failure = await converse(
                    chat,
                    ends_run=self._ends_run,
                    cut_off=lambda: session.limit_reached and f"{session.limit_reached}.",
                    # Once others went well, one odd reply must not stop a weekend's work.
                    outlives=lambda _: session.budget.calls > 0,
                )
                await self.journal.keep_record(waiting.number, record, chat.keep(record))
                told.end(record, failure)
        finally:
            state.active -= 1
            state.replayed += log.replayed
        state.add(record)
        on_record(record)
        if record.outcome not in ("completed", "over_budget"):
            # Not what is wrong with the reply, which may quote it: the record has that.
            who = record.turns[-1].agent if record.turns else "the first turn"
            why = failure.told if failure is not None else who
            state.note_error(f"{record.outcome}: {why}")
        if isinstance(failure, ContextExceeded | RequestRejected | EndpointForbidden):
            return  # the endpoint is well; it has something against this chat
        if record.outcome != "failed":
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= max(_DEAD_AFTER, 2 * concurrency):
            raise RunStopped(
                f"{self._failures_in_a_row} prompts in a row failed, the last one because: "
                f"{failure.told if failure is not None else record.problem}",
                f"Mend the endpoint, then: aidsafe retry {self.folder.path} --outcome failed",
            )

    def _ends_run(self, error: EndpointError, first_call: bool) -> bool:
        """Whether an error would happen to every other prompt too."""
        assert self._session is not None  # noqa: S101 - it runs
        served_before = self._session.budget.calls > 0
        if isinstance(error, EndpointForbidden | SchemaUnsupported):
            return not served_before  # else it is a firewall's or a guard's word on this prompt
        # Where there is no server any more, nothing is said against any prompt.
        if isinstance(error, EndpointMisconfigured | EndpointAbsent):
            return True
        silent = isinstance(error, EndpointUnreachable | RequestRejected)
        return silent and first_call and not served_before

    @asynccontextmanager
    async def _watched(self, session: Session, state: RunState) -> AsyncIterator[None]:
        """Writes how far the run is now and then, and holds it to its time."""

        async def watch() -> None:
            while True:
                write_status(self.folder.path, STATUS_NAME, state.summary())
                await asyncio.sleep(_STATUS_EVERY)

        watching = asyncio.create_task(watch())
        timer: asyncio.TimerHandle | None = None
        if session.budget.limits.seconds is not None:
            left = session.budget.limits.seconds - session.budget.seconds
            timer = asyncio.get_running_loop().call_later(left, session.stop_at_limit)
        try:
            yield
        finally:
            watching.cancel()
            if timer is not None:
                timer.cancel()

    def _conclude(self, state: RunState, session: Session, fatal: list[Exception]) -> None:
        state.phase = "stopped" if session.halt.is_set() or fatal else "finished"
        if fatal:
            error = _first(fatal)
            state.why_stopped = _told(error)
        elif session.limit_reached:
            state.why_stopped = f"{session.limit_reached}."
        with suppress(JournalError):
            state.outcomes = self.journal.outcomes()
            state.endings = Endings.of(self.journal)
        summary = state.summary()
        write_status(self.folder.path, STATUS_NAME, summary)
        write_status(self.folder.path, SUMMARY_NAME, summary)

    def close(self) -> None:
        """Closes the journal; takes a folder away in which nothing has come about."""
        worth = not self.folder.is_new
        with suppress(JournalError):
            worth = worth or bool(self.journal.spend()) or bool(self.journal.outcomes())
        self.folder.close(keep=worth)
        self.job.close()


def _first(errors: Collection[BaseException]) -> Exception:
    """The error to show: a configuration error says more than what followed from it."""
    for kind in (JournalError, EndpointMisconfigured, AidsafeError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    raise next(iter(errors))
