"""A run: many prompts through as many chats, their records in the run's folder."""

from __future__ import annotations

import asyncio
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from agents.models.errors import (
    ContextExceeded,
    EndpointError,
    EndpointForbidden,
    EndpointMisconfigured,
    EndpointUnreachable,
    RequestRejected,
)
from agents.turns import Usage
from orchestration.journal import FILE_NAME, Journal, JournalError, Kept
from orchestration.prompts import Prompt
from orchestration.recipe import Cast
from orchestration.record import CoTRecord
from orchestration.serialize import Serializer
from policies import AidsafeError, ExitCode, InputError

SETTINGS_NAME = "run.yaml"
_DEAD_AFTER = 10
# What of a model's configuration does not shape its replies, and may change within a run.
_TRANSPORT = {
    "endpoint": ("timeout", "max_retries", "api_key_env"),
    "embedded": ("slots", "threads"),
}


class RunStopped(AidsafeError):
    """A run that stopped before its end; what is done is kept."""

    exit_code = ExitCode.ENDPOINT


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


async def deliberate(
    cast: Cast,
    serializer: Serializer,
    prompt: Prompt,
    proven: Callable[[EndpointError], bool] = lambda _: False,
    on_failure: Callable[[EndpointError], None] = lambda _: None,
) -> CoTRecord:
    """One prompt through one chat.

    Args:
        cast: Who takes part.
        serializer: Of the same cast.
        prompt: What the chat is about.
        proven: Whether the endpoint has served another chat, so that a first request that it does
            not answer is this prompt's own trouble. Asked when that happens, of its error.
        on_failure: Told of the error that makes a record `failed`.

    Returns:
        The record, of any outcome; `failed` if the endpoint gave out in the middle.

    Raises:
        EndpointMisconfigured: The same would happen to every prompt.
        EndpointUnreachable: There was no endpoint from the first call on, and it is not proven.
        RequestRejected: It did not accept the first call, and is not proven.
    """
    chat = cast.make_chat()
    started = datetime.now(UTC)
    failure: str | None = None
    stop_reason: str | None = None
    try:
        stop_reason = (await chat.run(task=prompt.text)).stop_reason
    except EndpointError as error:
        if _ends_run(error, len(chat.messages) == 1, proven):
            raise
        on_failure(error)
        failure = error.cause
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled this chat: the client did that to its own call, and a task group would
        # take it for our wish and lose the prompt without a word.
        failure = "The model's client cancelled its own call."
    return serializer.record(prompt, chat.messages, stop_reason, started, failure)


def _ends_run(
    error: EndpointError, first_call: bool, proven: Callable[[EndpointError], bool]
) -> bool:
    if isinstance(error, EndpointForbidden):
        return not proven(error)  # else it is a firewall's or a guard's word on this prompt
    if isinstance(error, EndpointMisconfigured):
        return True
    silent = isinstance(error, EndpointUnreachable | RequestRejected)
    return silent and first_call and not proven(error)


class Run:
    """A run folder and what fills it.

    The folder is made when the first record is there to be kept, so that a run that cannot start
    leaves nothing behind.

    Args:
        folder: Where `run.yaml` and the journal are, or will be.
        cast: Who takes part.
        source: Where the prompts come from, for `run.yaml`.

    Raises:
        InputError: The folder holds a run with other settings, or something else, or cannot be
            made.
        JournalError: Its journal cannot be used.
    """

    def __init__(self, folder: Path, cast: Cast, source: dict[str, Any]) -> None:
        self.folder = folder
        self.summary = Summary()
        """What `execute` did so far; also after it raised."""
        self._cast = cast
        self._serializer = Serializer(cast)
        self._settings: dict[str, dict[str, Any]] = {
            "prompts": source,
            "policies": cast.policy_set.model_dump(mode="json"),
            "recipe": cast.recipe.model_dump(mode="json"),
            "personas": {n: p.model_dump(mode="json") for n, p in cast.personas.items()},
            "models": {m.name: m.config.public() for m in cast.models_in_use},
        }
        self._journal: Journal | None = None
        self._first_number = 0
        self._joins = False  # whether these are further prompts than those the run began with
        if self._check_folder():
            self._journal = Journal(folder / FILE_NAME, write=True)
            if self._joins:
                self._first_number = self._journal.next_number()

    def _check_folder(self) -> bool:
        """Whether the folder holds this very run already."""
        file = self.folder / SETTINGS_NAME
        try:
            if not self.folder.exists():
                _check_writable(self.folder)
                return False
            if not self.folder.is_dir():
                raise InputError(f"{self.folder} is a file.", "Name a folder with --out.")
            if not file.exists():
                if any(self.folder.iterdir()):
                    raise InputError(
                        f"The folder {self.folder} holds something else than a run.",
                        "Name a new or empty folder with --out.",
                    )
                _check_writable(self.folder)
                return False
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{self.folder} cannot be read ({getattr(error, 'strerror', None) or error}).",
                "Check the folder, or name another with --out.",
            ) from None
        try:
            found = yaml.safe_load(text)
            # Further prompts may join a run; who speaks over what may not change within one.
            before, now = found.get("prompts", {}), self._settings["prompts"]
            self._joins = before.get("source") != now.get("source")
            changed = [
                key
                for key, value in self._settings.items()
                if key != "prompts" and _shaping(key, found.get(key)) != _shaping(key, value)
            ]
        except (yaml.YAMLError, AttributeError):
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
        on_passed: Callable[[], None] = lambda: None,
        stopping: asyncio.Event | None = None,
        retry: Collection[str] = (),
    ) -> Summary:
        """Takes every prompt that has no outcome yet through a chat.

        What stops the run keeps further prompts from being begun; chats under way are finished
        first, since their replies are paid for. Only where nothing can be kept any more, because
        of the journal, do they stop at once.

        Args:
            prompts: The prompts; taken one by one, as chats become free.
            concurrency: Chats at the same time.
            on_record: Told of every record once it is on disk.
            on_passed: Told of every prompt that had an outcome before.
            stopping: Once set, no further prompt is begun, and those under way are finished.
            retry: Outcomes of prompts that are tried once more.

        Returns:
            The summary.

        Raises:
            EndpointMisconfigured: No prompt can succeed.
            EndpointUnreachable: There is no endpoint, or none any more.
            RequestRejected: The endpoint accepted no request so far.
            RunStopped: Too many prompts in a row failed.
            JournalError: The journal cannot be written.
            InputError: The source of the prompts is broken further on.
        """
        summary = self.summary = Summary()
        started = time.perf_counter()
        numbered = enumerate(prompts, self._first_number)
        fatal: list[Exception] = []
        failures_in_a_row = 0

        async def take(number: int, prompt: Prompt) -> None:
            nonlocal failures_in_a_row
            tried = self._tried(prompt)
            if tried is not None and tried.outcome not in retry:
                summary.done_before += 1
                on_passed()
                return
            failures: list[EndpointError] = []
            record = await deliberate(
                self._cast, self._serializer, prompt, self._is_proven, failures.append
            )
            place = number if tried is None else tried.number
            await self._keep(place, record, replace=tried is not None)
            summary.usage += record.usage
            if record.outcome == "completed":
                summary.stop_reasons[str(record.stop_reason)] += 1
            on_record(record)
            if any(isinstance(failure, ContextExceeded) for failure in failures):
                return  # the endpoint is well; this chat was too long for it
            failures_in_a_row = failures_in_a_row + 1 if record.outcome == "failed" else 0
            if failures_in_a_row >= max(_DEAD_AFTER, 2 * concurrency):
                raise RunStopped(
                    f"{failures_in_a_row} prompts in a row failed, the last one because: "
                    f"{record.problem}",
                    "Mend the endpoint, then start the same command again with --retry failed: "
                    "what is done stays done.",
                )

        async def work() -> None:
            while not fatal and not (stopping is not None and stopping.is_set()):
                try:
                    number, prompt = next(numbered)
                    await take(number, prompt)
                except StopIteration:
                    return
                except JournalError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised below, once all have stopped
                    fatal.append(error)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except BaseExceptionGroup as errors:
            raise _first(errors.exceptions) from None
        finally:
            summary.seconds = time.perf_counter() - started
            summary.interrupted = stopping is not None and stopping.is_set()
            if self._journal is not None:
                with suppress(JournalError):
                    summary.outcomes = self._journal.outcomes()
        if fatal:
            raise _first(fatal)
        return summary

    def _is_proven(self, error: EndpointError) -> bool:
        """Whether the endpoint served this run before, so that the trouble is one prompt's own."""
        if isinstance(error, EndpointUnreachable):
            # In this session: it may have been shut down since, and then no prompt can succeed.
            return self.summary.usage.completion_tokens > 0
        return self._journal is not None and self._journal.next_number() > 0

    def _tried(self, prompt: Prompt) -> Kept | None:
        """What the run has of a prompt already; None if it has no outcome."""
        kept = self._journal.kept(prompt.id) if self._journal is not None else None
        if kept is None:
            return None
        if _nfc(kept.prompt) != _nfc(prompt.text):  # ids are made of this form too
            raise InputError(
                f"The prompt '{prompt.id}' has another text than in the run in {self.folder}.",
                "Give the new text a new id, or name another folder with --out.",
            )
        return kept

    async def _keep(self, number: int, record: CoTRecord, replace: bool) -> None:
        if self._journal is None:
            self._make_folder()
            self._journal = Journal(self.folder / FILE_NAME, True, self._settle)
        await self._journal.add(number, record, replace)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None

    def _settle(self) -> None:
        """Writes `run.yaml`, unless another process has made the same run meanwhile."""
        try:
            if (self.folder / SETTINGS_NAME).exists():
                self._check_folder()
                return
            text = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True, width=100)
            write_whole(self.folder / SETTINGS_NAME, [text])
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> JournalError:
        return JournalError(
            f"The folder {self.folder} cannot be written ({error.strerror}).",
            "Name another folder with --out, or make room.",
        )

    def close(self) -> None:
        """Closes the journal."""
        if self._journal is not None:
            self._journal.close()


def _check_writable(folder: Path) -> None:
    """Before anything is paid for: whether the folder, or the one that it goes into, takes files.

    Raises:
        InputError: It does not.
    """
    there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(
            f"The folder {folder} cannot be made: {there} may not be written or is no folder.",
            "Name another folder with --out.",
        )


def _shaping(key: str, settings: Any) -> Any:
    """Of a block of `run.yaml`, what shapes the records."""
    if key != "models":
        return settings
    return {
        name: {
            part: {k: v for k, v in value.items() if k not in _TRANSPORT[part]}
            if part in _TRANSPORT
            else value
            for part, value in config.items()
        }
        for name, config in settings.items()
    }


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _first(errors: Collection[BaseException]) -> BaseException:
    """The error to show: a configuration error says more than what followed from it."""
    for kind in (JournalError, EndpointMisconfigured, AidsafeError, Exception):
        for error in errors:
            if isinstance(error, kind):
                return error
    return next(iter(errors))


def write_whole(path: Path, parts: Iterable[str]) -> None:
    """Writes a file whole or not at all: aside, to disk, then renamed into its place.

    A link is followed; what is no file, such as a pipe or a device, is written into as it is.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("w", encoding="utf-8") as stream:
            stream.writelines(parts)
        return
    path = Path(os.path.realpath(path))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
