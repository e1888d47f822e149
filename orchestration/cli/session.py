"""`Session`: a session of a run on the command line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import typer

from agents.persona import PERSONAS
from orchestration.chat.cast import BaseCast
from orchestration.chat.models import is_embedded
from orchestration.chat.view import plain
from orchestration.cli.console import err, out, run_async, stopping, write_json
from orchestration.cli.exit_codes import ExitCode, Interrupted
from orchestration.cli.options import SessionOptions
from orchestration.cli.progress import print_summary, show_progress
from orchestration.runs import Run
from orchestration.runs.budget import Budget
from orchestration.runs.intake import Source
from orchestration.runs.job import Job
from orchestration.runs.run import LimitReached
from orchestration.runs.telemetry import open_telemetry
from policies import InputError, render_policy_set

T = TypeVar("T")

_REST_OF_PROMPT = 4_000
"""Bytes of a first call's prompt besides the policies."""
RESUME = "Resume with the same command: finished work is stored."

EMBEDDED_NOTICE = (
    "This is the embedded model: real, but very small. It shows how everything works; "
    "its reasoning is not worth training on."
)


@dataclass
class Session:
    """Announces a run, shows it while it runs, stops it in good order, and prints a summary.

    A context manager: entering opens the run, and raises an `InputError` if options are invalid.
    """

    folder: Path
    """The run folder."""
    job: Job
    """What is done with each prompt; closed at the end."""
    source: Source | None
    """Where the prompts come from; None for those that the run has."""
    options: SessionOptions
    personas: Path | None = None
    """The user's folder of personas."""
    warning: str = ""
    """What to warn of before it starts."""

    def __post_init__(self) -> None:
        self.limits = self.options.limits()
        self.concurrency = self.options.concurrency or self.job.cast.default_concurrency

    def __enter__(self) -> Session:
        with ExitStack() as stack:
            stack.callback(self.job.close)
            telemetry = stack.enter_context(open_telemetry(_warn)) if self.options.otel else None
            locking = not self.options.no_lock
            self.run = Run(self.folder, self.job, self.source, telemetry, locking)
            announce(self.job.cast, self.personas)
            for text in (self.warning, self._changes()):
                if text:
                    _warn(text)
            if self.limits.on_spending:
                self._announce_limits()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _announce_limits(self) -> None:
        """Prints what the limits mean in calls."""
        models = self.job.cast.models_in_use
        try:
            budget = Budget(self.limits, models, self.run.journal.spend())
        except InputError:
            self.run.close()
            raise
        first = len(render_policy_set(self.job.cast.policy_set)) + _REST_OF_PROMPT
        err().print(plain(budget.in_calls(models, first), "dim"))

    def _changes(self) -> str:
        """What changed in the run's settings, and what that means; empty if nothing did."""
        changed = self.run.folder.changed
        if not changed:
            return ""
        what = "; ".join(f"{group} ({', '.join(names)})" for group, names in changed.items())
        return (
            f"The last session of the run in {self.folder} had other {what}. All its prompts are "
            "processed again: replies to unchanged requests are reused, the others are requested "
            f"again{self.job.kind.changes_note} Prompts that are not in this command's source "
            "stay pending, and are not exported; undoing the change restores all results without "
            "a call."
        )

    def execute(
        self, work: Callable[[], Awaitable[T]], report: Callable[[T], None] | None = None
    ) -> None:
        """Runs the session to its end and prints a summary.

        Args:
            work: Executes the run.
            report: Prints what `work` returned; with `--json`, instead of the summary.

        Raises:
            AidsafeError: What stopped the run.
            Interrupted: The user stopped it.
            typer.Exit: It came to its end without a completed result.
        """
        _raise_file_limit()
        try:
            result = run_async(lambda: self._watch(work), RESUME)
        finally:  # an error is printed after the summary
            summary, started = self.run.summary, self.run.status is not None
            self.run.close()
            if self.options.json and started and report is None:
                write_json(summary.model_dump(mode="json"))
            elif not self.options.json and summary.outcomes:
                print_summary(out(), self.folder, summary)
        if summary.why_stopped:
            raise LimitReached(summary.why_stopped, f"Raise the limit. {RESUME}")
        if summary.interrupted:
            raise Interrupted("Stopped.", RESUME)
        if report is not None:
            report(result)
        elif not summary.outcomes.get("completed"):
            raise typer.Exit(ExitCode.NOT_COMPLETED)

    async def _watch(self, work: Callable[[], Awaitable[T]]) -> T:
        notice = "Stopping: calls in flight are finished first. Ctrl-C again stops now."
        console = err()
        with stopping(self.run.stop, notice, console):
            async with show_progress(console, lambda: self.run.summary):
                try:
                    return await work()
                finally:
                    await self.job.cast.close()


def _warn(text: str) -> None:
    err().print(plain(text, "yellow"))


def announce(cast: BaseCast, personas: Path | None) -> None:
    """Prints what is about to be used, and which of the user's personas are not."""
    err().print(plain(cast.notice, "dim"))
    unused = PERSONAS.by_name(personas).keys() - PERSONAS.by_name().keys() - cast.personas.keys()
    if unused:
        are, them = ("are", "them") if len(unused) > 1 else ("is", "it")
        text = (
            f"{', '.join(sorted(unused))} {are} in {personas}/, but recipe {cast.recipe.name} does "
            f"not name {them}; put {them} into a recipe."
        )
        _warn(text)
    if is_embedded({model.name: model for model in cast.models_in_use}):
        _warn(EMBEDDED_NOTICE)


def _raise_file_limit() -> None:
    """Raises the limit of open files as far as the system allows, since each call needs one.

    Shells often set it to 1,024 on systems that allow a million.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
