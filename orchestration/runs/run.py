"""A run: many prompts through as many chats, their results in the run's folder."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from agents.models.context import CALL, CallContext
from agents.models.errors import (
    CallNotStarted,
    EndpointError,
    EndpointMisconfigured,
)
from orchestration.chat.event_loop import relaxed_collector
from orchestration.journal import Journal, JournalError, PendingPrompt, Transaction
from orchestration.prompts.reader import Prompt
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.call_gate import CallGate
from orchestration.runs.folder import RunFolder
from orchestration.runs.held_failures import HeldFailures
from orchestration.runs.intake import Intake, Source
from orchestration.runs.job import ChatTask, Job
from orchestration.runs.replay import ChatReplies, RequestKeys
from orchestration.runs.result import RunResult, ending_of
from orchestration.runs.run_chat import concerns_prompt, run_chat
from orchestration.runs.status import STATUS_NAME, SUMMARY_NAME, RunStatus, Summary, write_status
from orchestration.runs.telemetry import Telemetry
from policies import AidsafeError, InputError

_STATUS_SECONDS = 2.0
VOID_IN = ("refused", "malformed", "truncated")
"""Outcomes that follow from the replies of the last turn: if used again, they would again."""


class RunStopped(AidsafeError):
    """A run that stopped before its end; finished work is stored."""


class LimitReached(AidsafeError):
    """A limit that the user set stops the run, or keeps it from starting."""


Choose = Callable[[Intake], Awaitable[Iterator[PendingPrompt] | None]]
"""Chooses some of a source's prompts; None for all of them."""


class Run:
    """A run folder and what fills it.

    Args:
        folder: Where `run.yaml` and the journal are, or will be.
        job: What is done with each prompt.
        source: Where the prompts come from; None for a run whose prompts are only retried.
        telemetry: Reports on its chats.
        locking: Whether to refuse a file system without locks.

    Raises:
        InputError: The folder holds something else, or cannot be created.
        JournalError: Its journal cannot be used, or another process uses it.
    """

    def __init__(
        self,
        folder: Path,
        job: Job,
        source: Source | None,
        telemetry: Telemetry | None = None,
        locking: bool = True,
    ) -> None:
        self.job = job
        """What is done with each prompt."""
        self._source = source
        self._telemetry = telemetry or Telemetry()
        self._keys = RequestKeys()
        self.folder = RunFolder(folder, job, source, locking)
        self.journal = self.folder.journal
        self.status: RunStatus | None = None
        """Its progress; None before `execute`."""
        self._gate: CallGate | None = None
        self._stopping = False

    @property
    def summary(self) -> Summary:
        """What it has done so far; also after `execute` raised."""
        if self.status is None:
            return Summary(kind=self.job.kind.name)
        return self.status.summary()

    def stop(self) -> None:
        """Starts no further call; `execute` returns once those in flight have ended."""
        self._stopping = True  # also if there is no session yet
        if self._gate is not None:
            self._gate.stop()

    async def retry(self, outcomes: Collection[str], concurrency: int, **options: Any) -> Summary:
        """Retries prompts of these outcomes. Arguments and errors are those of `execute`.

        The settings must be those of the last session.
        """
        if self.folder.changed:
            raise InputError(
                f"The last session of the run in {self.folder.path} had other settings.",
                "Resume it with the command of that session.",
            )
        self._budget(options.get("limits"))  # before any prompt is requeued
        await requeue(self.journal, outcomes)
        return await self.execute(None, concurrency, **options)

    def _budget(self, limits: Limits | None) -> Budget:
        """What this session may spend."""
        budget = Budget(limits or Limits(), self.job.cast.models_in_use, self.journal.spend())
        reached = budget.used_up()
        if reached is not None:
            raise LimitReached(
                f"{reached}: the run in {self.folder.path} has no room for another call.",
                "Raise the limit to continue.",
            )
        return budget

    async def execute(
        self,
        prompts: Iterator[Prompt] | None,
        concurrency: int,
        *,
        limits: Limits | None = None,
        choose: Choose | None = None,
        on_result: Callable[[RunResult], None] = lambda _: None,
    ) -> Summary:
        """Takes every prompt that has no outcome yet through a chat.

        When the run stops, no further call starts; those in flight are finished and stored, since
        they are paid for. Only if the journal cannot be written do they stop at once.

        Args:
            prompts: The prompts of the source; a thread reads those that are new. None takes those
                of all sources that are to be retried.
            concurrency: Chats at the same time.
            limits: What may be spent.
            choose: Chooses the prompts to take, instead of all pending ones of the source.
            on_result: Called with every result once it is on disk.

        Raises:
            EndpointError: No prompt can succeed.
            RunStopped: Too many prompts in a row failed.
            LimitReached: The limits leave no room for a call.
            JournalError: The journal cannot be written.
            InputError: A later part of the source is invalid, or the limits cannot be held.
        """
        budget = self._budget(limits)
        await self.folder.settle()
        await self.job.open(self.journal)
        source, prompts = (None, iter(())) if prompts is None else (self._source, prompts)
        intake = Intake(self.journal, source, prompts, self.folder.path)
        status = self.status = RunStatus(
            self.journal, self.job.kind, intake, budget, self._telemetry.attempt
        )

        def on_stop() -> None:
            status.state.phase = "stopping"
            intake.close()

        gate = self._gate = CallGate(budget, on_stop)
        self._held = HeldFailures(concurrency)
        if self._stopping:
            self.stop()
        errors: list[Exception] = []
        try:
            with relaxed_collector():
                async with self._monitored(gate, status), asyncio.TaskGroup() as group:
                    chosen = None if choose is None else await choose(intake)
                    for _ in range(concurrency):
                        group.create_task(
                            self._work(intake, chosen, gate, status, on_result, errors)
                        )
                if not gate.stop_signal.is_set():
                    await self._release_held(gate, at_end=True)
        except BaseExceptionGroup as raised:
            errors.append(_most_telling(raised.exceptions))
        except (RunStopped, JournalError) as error:
            errors.append(error)
        except asyncio.CancelledError:
            gate.stop()  # the session did not finish
            raise
        finally:
            intake.close()
            self._conclude(status, gate, errors)
        if errors:
            raise _most_telling(errors)
        return self.summary

    async def _work(
        self,
        intake: Intake,
        chosen: Iterator[PendingPrompt] | None,
        gate: CallGate,
        status: RunStatus,
        on_result: Callable[[RunResult], None],
        errors: list[Exception],
    ) -> None:
        """Takes prompts through chats, one after the other; one of as many as run at once."""
        while not gate.stop_signal.is_set():
            try:
                prompt = await intake.next() if chosen is None else next(chosen, None)
                if prompt is None:
                    return
                await self._process(prompt, gate, status, on_result)
                await self._release_held(gate)
            except CallNotStarted:
                return
            except JournalError:
                raise
            except Exception as error:  # noqa: BLE001 - raised by `execute`
                errors.append(error)
                self.stop()
                return

    async def _process(
        self,
        prompt: PendingPrompt,
        gate: CallGate,
        status: RunStatus,
        on_result: Callable[[RunResult], None],
    ) -> None:
        """Takes one prompt to its outcome, unless there can be no chat at present."""
        telemetry, recipe = self._telemetry, self.job.cast.recipe.name
        replies = ChatReplies(self.journal, self._keys, gate, prompt, telemetry.call)
        status.state.active += 1
        try:
            with telemetry.chat(prompt.id, recipe, replies) as span:
                # Where calls have to wait, chats that began earlier go first.
                CALL.set(CallContext(prompt.number, gate.stop_signal, status))
                task = await self.job.chat(prompt, replies.wrap)
                if task is None:
                    return
                result, failure = await run_chat(task, gate)
                cause = _loggable_cause(result, failure)
                last_turn = _last_turn_keys(result, replies)
                finish = partial(
                    self._finish, prompt.number, task, result, last_turn, cause, status, on_result
                )
                if result.outcome == "failed" and not (failure and concerns_prompt(failure)):
                    self._held.add(asyncio.get_running_loop().time(), cause, finish)
                else:
                    await finish()
                telemetry.end(span, result, failure)
                del failure  # its traceback holds the chat
        finally:
            status.state.active -= 1
            status.state.replayed += replies.replayed

    async def _finish(
        self,
        number: int,
        task: ChatTask[Any],
        result: RunResult,
        last_turn: list[bytes],
        cause: str,
        status: RunStatus,
        on_result: Callable[[RunResult], None],
    ) -> None:
        """Stores a result, and reports it."""
        text, ending = result.model_dump_json(), ending_of(result)

        def change(tx: Transaction) -> None:
            tx.store_result(number, result.outcome, ending, text, last_turn)
            task.store_with(tx)

        await self.journal.write(change)
        status.add(result)
        if result.outcome not in ("completed", "over_budget"):
            status.note_error(f"{result.outcome}: {cause}")
        on_result(result)

    async def _release_held(self, gate: CallGate, at_end: bool = False) -> None:
        """Stores the failures that are known to be those of their prompts.

        Raises:
            RunStopped: There are so many others that the endpoint must be down.
        """
        served = gate.served_from > -math.inf
        await self._held.release(math.inf if at_end and served else gate.served_from)
        last = self._held.too_many(served, at_end)
        if last is not None:
            raise RunStopped(
                f"{len(self._held)} prompts in a row failed, the last one because: {last}",
                "Mend the endpoint, then start the same command again: no prompt is blamed.",
            )

    @asynccontextmanager
    async def _monitored(self, gate: CallGate, status: RunStatus) -> AsyncIterator[None]:
        """Writes the status file from time to time, and stops the run when its time is up."""

        async def write() -> None:
            while True:
                self._write_status(status.summary(), STATUS_NAME)
                await asyncio.sleep(_STATUS_SECONDS)

        writing = asyncio.create_task(write())
        timer: asyncio.TimerHandle | None = None
        if gate.budget.limits.seconds is not None:
            left = gate.budget.limits.seconds - gate.budget.seconds
            timer = asyncio.get_running_loop().call_later(left, gate.stop_at_limit)
        try:
            yield
        finally:
            writing.cancel()
            if timer is not None:
                timer.cancel()

    def _conclude(self, status: RunStatus, gate: CallGate, errors: list[Exception]) -> None:
        status.state.phase = "stopped" if gate.stop_signal.is_set() or errors else "finished"
        if errors:
            status.state.why_stopped = _loggable(_most_telling(errors))
        elif gate.limit_reached:
            status.state.why_stopped = f"{gate.limit_reached}."
        with suppress(JournalError):
            status.recount(self.journal)
        summary = status.summary()
        self._write_status(summary, STATUS_NAME, SUMMARY_NAME)

    def _write_status(self, summary: Summary, *names: str) -> None:
        if self.journal.is_in_place():  # else the folder may be another run's by now
            for name in names:
                write_status(self.folder.path, name, summary)

    def close(self) -> None:
        """Closes the journal; removes a new folder in which nothing was stored."""
        self.folder.close()
        self.job.close()


def _last_turn_keys(result: RunResult, replies: ChatReplies) -> list[bytes]:
    """Keys of the replies of the last turn, if a retry must call the model for it again."""
    if result.outcome not in VOID_IN or not result.turns:
        return []
    return replies.used_keys[-1 - len(result.turns[-1].discarded) :]


def _loggable_cause(result: RunResult, failure: EndpointError | None) -> str:
    """What led to an outcome, without any text of prompts or replies, which `problem` may quote."""
    if failure is not None:
        return failure.loggable_cause
    return result.turns[-1].agent if result.turns else "the first turn"


def _loggable(error: Exception) -> str:
    """What stopped a run, without an endpoint's own words, which may quote the prompt."""
    if isinstance(error, EndpointError):
        return error.loggable_cause
    return error.cause if isinstance(error, AidsafeError) else type(error).__name__


def _most_telling(errors: Collection[BaseException]) -> Exception:
    """The error to show: a configuration error says more than what followed from it."""
    for kind in (JournalError, EndpointMisconfigured, AidsafeError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    raise next(iter(errors))


async def requeue(journal: Journal, outcomes: Collection[str]) -> int:
    """Makes prompts of these outcomes pending again; returns how many.

    Replies that led to a good turn are used again. Those of the turn that failed stay in the
    journal, since they were paid for, but the model is called again, with another seed.
    """
    return await journal.write(lambda tx: tx.requeue(outcomes, VOID_IN))
