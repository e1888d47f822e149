"""A run: many prompts through as many chats, their records in the run's folder."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from agents.models.errors import EndpointError, EndpointMisconfigured, EndpointUnreachable
from agents.turns import Usage
from orchestration.journal import FILE_NAME, Journal
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord
from orchestration.serialize import Serializer
from policies import AidsafeError, InputError

SETTINGS_NAME = "run.yaml"
_DEAD_AFTER = 10


class RunStopped(AidsafeError):
    """A run that stopped before its end; what is done is kept."""

    exit_code = 4


@dataclass
class Summary:
    """What a run did, in this session and before."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Outcomes of all prompts of the run so far."""
    done_before: int = 0
    """Prompts that had an outcome when this session began, and were passed over."""
    stop_reasons: Counter[str] = field(default_factory=Counter)
    """Stop reasons of this session's completed records."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of this session."""
    seconds: float = 0.0
    """Wall time of this session."""
    interrupted: bool = False
    """Whether the user stopped it."""

    def as_json(self) -> dict[str, Any]:
        """The summary as `--json` prints it."""
        return {
            "outcomes": dict(self.outcomes),
            "done_before": self.done_before,
            "stop_reasons": dict(self.stop_reasons),
            "usage": self.usage.model_dump(),
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
        }


async def deliberate(cast: Cast, serializer: Serializer, prompt: Prompt) -> CoTRecord:
    """One prompt through one chat.

    Args:
        cast: Who takes part.
        serializer: Of the same cast.
        prompt: What the chat is about.

    Returns:
        The record, of any outcome; `failed` if the endpoint gave out in the middle.

    Raises:
        EndpointMisconfigured: The same would happen to every prompt.
        EndpointUnreachable: There was no endpoint from the first call on.
    """
    chat = cast.make_chat()
    started = datetime.now(UTC)
    failure: str | None = None
    stop_reason: str | None = None
    try:
        stop_reason = (await chat.run(task=prompt.text)).stop_reason
    except EndpointMisconfigured:
        raise
    except EndpointError as error:
        if isinstance(error, EndpointUnreachable) and len(chat.messages) == 1:
            raise
        failure = error.cause
    return serializer.record(prompt, chat.messages, stop_reason, started, failure)


class Run:
    """A run folder and what fills it.

    The folder is made when the first record is there to be kept, so that a run that cannot start
    leaves nothing behind.

    Args:
        folder: Where `run.yaml` and the journal are, or will be.
        cast: Who takes part.
        source: Where the prompts come from, for `run.yaml`.

    Raises:
        InputError: The folder holds a run with other settings, or something else.
        JournalError: Its journal cannot be used.
    """

    def __init__(self, folder: Path, cast: Cast, source: dict[str, Any]) -> None:
        self.folder = folder
        self._cast = cast
        self._serializer = Serializer(cast)
        self._settings = {
            "prompts": source,
            "policies": cast.policy_set.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
        }
        self._journal: Journal | None = None
        if self._check_folder():
            self._journal = Journal(folder / FILE_NAME, write=True)

    def _check_folder(self) -> bool:
        """Whether the folder holds this very run already."""
        if not self.folder.exists():
            return False
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file.", "Name a folder with --out.")
        file = self.folder / SETTINGS_NAME
        if not file.exists():
            if any(self.folder.iterdir()):
                raise InputError(
                    f"The folder {self.folder} holds something else than a run.",
                    "Name a new or empty folder with --out.",
                )
            return False
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
            # Further prompts may join a run; who speaks over what may not change within one.
            compared = [key for key in self._settings if key != "prompts"]
            changed = [key for key in compared if found.get(key) != self._settings[key]]
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError):
            raise InputError(
                f"{file} cannot be read.", "Restore it, or name another folder with --out."
            ) from None
        if changed:
            raise InputError(
                f"The run in {self.folder} was started with other {' and '.join(changed)}.",
                "Name another folder with --out, so that records of one run stay comparable.",
            )
        return True

    async def execute(
        self,
        prompts: Iterator[Prompt],
        concurrency: int,
        on_record: Callable[[CoTRecord], None] = lambda _: None,
        stopping: asyncio.Event | None = None,
    ) -> Summary:
        """Takes every prompt that has no outcome yet through a chat.

        Args:
            prompts: The prompts; taken one by one, as chats become free.
            concurrency: Chats at the same time.
            on_record: Told of every record once it is on disk.
            stopping: Once set, no further prompt is begun, and those under way are finished.

        Returns:
            The summary.

        Raises:
            EndpointMisconfigured: No prompt can succeed; the run is stopped.
            EndpointUnreachable: There is no endpoint, or none any more; likewise.
            JournalError: The journal cannot be written.
            InputError: The source of the prompts is broken further on.
        """
        summary = Summary()
        started = time.perf_counter()
        numbered = enumerate(prompts)
        failures_in_a_row = 0

        async def work() -> None:
            nonlocal failures_in_a_row
            for number, prompt in numbered:
                if stopping is not None and stopping.is_set():
                    return
                if self._journal is not None and self._journal.has(prompt.id):
                    summary.done_before += 1
                    continue
                record = await deliberate(self._cast, self._serializer, prompt)
                await self._keep(number, record)
                summary.usage += record.usage
                if record.outcome == "completed":
                    summary.stop_reasons[str(record.stop_reason)] += 1
                on_record(record)
                failures_in_a_row = failures_in_a_row + 1 if record.outcome == "failed" else 0
                if failures_in_a_row >= max(_DEAD_AFTER, 2 * concurrency):
                    raise RunStopped(
                        f"{failures_in_a_row} prompts in a row failed, the last one because: "
                        f"{record.problem}",
                        "Mend the endpoint, then start the same command again: "
                        "what is done stays done.",
                    )

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            summary.seconds = time.perf_counter() - started
            summary.interrupted = stopping is not None and stopping.is_set()
            if self._journal is not None:
                summary.outcomes = self._journal.outcomes()
        return summary

    async def _keep(self, number: int, record: CoTRecord) -> None:
        if self._journal is None:
            self._make_folder()
            self._journal = Journal(self.folder / FILE_NAME, write=True)
        await self._journal.add(number, record)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True, width=100)
            write_whole(self.folder / SETTINGS_NAME, text)
        except OSError as error:
            raise InputError(
                f"The folder {self.folder} cannot be written ({error.strerror}).",
                "Name another folder with --out, or make room.",
            ) from None

    def close(self) -> None:
        """Closes the journal."""
        if self._journal is not None:
            self._journal.close()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to show: a configuration error says more than what followed from it."""
    flat = [e for e in errors.exceptions if not isinstance(e, asyncio.CancelledError)]
    for kind in (EndpointMisconfigured, AidsafeError):
        for error in flat:
            if isinstance(error, kind):
                return error
    return flat[0] if flat else errors.exceptions[0]


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all: aside, to disk, then renamed into its place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
