"""A run's folder: `run.yaml`, the journal, and whether both belong to the same run."""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agents.models.config import ModelConfig
from agents.models.redaction import REDACTED
from orchestration.journal import FILE_NAME, Journal, JournalError, Known, Transaction
from orchestration.journal.lock import LOCK_NAME
from orchestration.journal.tally import find_run_id
from orchestration.runs.files import write_atomically
from orchestration.runs.intake import Source
from orchestration.runs.job import Job
from orchestration.runs.result import OUTCOMES
from orchestration.runs.status import STATUS_NAME, SUMMARY_NAME
from policies import InputError, PolicySet, YamlError, read_yaml_text
from policies.yaml_model import fingerprint

SETTINGS_NAME = "run.yaml"
_SETTINGS_HASH = "run_yaml"
_MOST_BYTES = 32 * 2**20
"""Of `run.yaml`, which holds policies, personas and prompt texts in full."""
_CREATED = (FILE_NAME, LOCK_NAME, SETTINGS_NAME, STATUS_NAME, SUMMARY_NAME)
"""Names of a run's files, or how they begin."""


def open_journal(folder: Path, write: bool = False, locking: bool = True) -> Journal:
    """Opens a run's journal, which must be the one that the other files of the run speak of.

    Args:
        folder: The run.
        write: Whether to write too.
        locking: Whether to refuse to write where the file system has no locks.

    Raises:
        JournalError: There is none, it is damaged, incomplete or of another run, or another process
            writes to it.
    """
    # The status first: what it counts was in the journal before.
    known = Known(find_run_id(folder / SETTINGS_NAME), _calls_in_status(folder), OUTCOMES)
    return Journal(folder / FILE_NAME, write, known, locking)


def _calls_in_status(folder: Path) -> int:
    try:
        calls = json.loads((folder / STATUS_NAME).read_bytes())["calls"]
    except (OSError, ValueError, TypeError, KeyError):
        return 0
    return calls if isinstance(calls, int) else 0


def is_run(folder: Path) -> bool:
    """Whether a folder has the files of a run."""
    return any((folder / name).exists() for name in (FILE_NAME, SETTINGS_NAME))


def is_file_of_run(name: str) -> bool:
    """Whether a run's folder has a file of that name for itself."""
    return name.startswith(_CREATED)


def changed_settings(job: Job, journal: Journal) -> dict[str, list[str]]:
    """The settings that differ from those of a run's last session: names by their group."""
    stored, present = journal.meta("settings"), job.fingerprints()
    before = json.loads(stored) if stored else present
    changed = {
        # Items of one side alone: an added name, a removed one, or another hash.
        group: sorted({name for name, _ in parts.items() ^ before.get(group, {}).items()})
        for group, parts in present.items()
    }
    return {group: names for group, names in changed.items() if names}


class RunFolder:
    """A run folder, checked and open.

    Args:
        path: The folder; created if it does not exist.
        job: What is done with each prompt.
        source: Where the prompts come from; None leaves it unchanged.
        locking: Whether to refuse a file system without locks.

    Raises:
        InputError: The folder holds something else, or cannot be created.
        JournalError: Its journal cannot be used.
    """

    def __init__(self, path: Path, job: Job, source: Source | None, locking: bool = True) -> None:
        self.path = path
        self._job = job
        self._had_files = self._check()
        given = load_settings(path).get("prompts") if source is None else asdict(source)
        self._settings = {"kind": job.kind.name, "prompts": given, **job.settings()}
        self._created: list[Path] = []
        try:
            self._created = [p for p in (path, *path.parents) if not p.exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(f"The folder {path} cannot be created ({error.strerror}).") from None
        try:
            self.journal = open_journal(path, write=True, locking=locking)
            self._settings = {"run": self.journal.meta("run"), **self._settings}
            self._is_new = self.journal.meta("settings") is None
            found = self.journal.meta("kind")
            if not self._is_new and found != job.kind.name:
                self.journal.close()
                raise _unusable(f"The folder {path} holds {found}, not {job.kind.name}.")
            self.changed = changed_settings(job, self.journal)
            """The settings that differ from those of the last session: names by their group."""
        except BaseException:
            self._remove_created()
            raise

    def _check(self) -> bool:
        """Checks that the folder is a run's or can become one; whether it has any files."""
        path, journal = self.path, self.path / FILE_NAME
        try:
            if path.exists() and not path.is_dir():
                raise _unusable(f"{path} is a file.")
            found = {file.name for file in path.iterdir()} - {LOCK_NAME} if path.exists() else set()
            if is_file_of_run(path.name) and is_run(path.resolve().parent):
                raise _unusable(f"{path} is the name of a file of the run in {path.parent}.")
            has_journal = journal.exists() and journal.stat().st_size > 0
        except OSError as error:
            raise _unusable(f"The folder {path} cannot be read ({error.strerror}).") from None
        if not has_journal and found & {SETTINGS_NAME, STATUS_NAME, f"{FILE_NAME}-wal"}:
            raise JournalError(
                f"The run in {path} has lost its journal: {FILE_NAME} is gone or empty.",
                f"Restore it together with {FILE_NAME}-wal from a copy; starting over, in another "
                "folder, would pay for everything again.",
            )
        if found and FILE_NAME not in found:
            raise _unusable(f"The folder {path} holds something else than a run.")
        there = next(p for p in [path, *path.absolute().parents] if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise _unusable(
                f"The folder {path} cannot be written: {there} is not a writable folder."
            )
        return bool(found)

    async def settle(self) -> None:
        """Makes the present settings those of the run.

        If they have changed, every prompt is reopened: its chat is replayed from the journal, and
        calls the model from the first changed request on.

        Raises:
            JournalError: The folder cannot be written.
        """
        text = json.dumps(self._job.fingerprints())
        settings = _dump(self._settings)
        changed = self.changed

        def change(tx: Transaction) -> None:
            # Without changes, only chats that a limit interrupted are resumed: this session's
            # limits may leave room for them.
            tx.reopen(None if changed else "over_budget")
            self._job.prepare(changed, tx)
            tx.set_meta("kind", self._job.kind.name)
            tx.set_meta("settings", text)
            tx.set_meta(_SETTINGS_HASH, fingerprint(settings))

        await self.journal.write(change)
        try:
            write_atomically(self.path / SETTINGS_NAME, [settings])
        except OSError as error:
            raise JournalError(
                f"The folder {self.path} cannot be written ({error.strerror}).",
                "Make room, or name another folder with --out.",
            ) from None

    def close(self) -> None:
        """Closes the journal; removes the files of a first session in which nothing was stored."""
        empty = self._is_new and not self._had_files
        with suppress(JournalError):
            empty = empty and not (self.journal.spend() or self.journal.outcomes())
            empty = empty and self.journal.is_in_place()  # else the folder is another one by now
        self.journal.close()
        if empty:
            with suppress(OSError):  # the folder is gone
                for file in self.path.iterdir():
                    if file.name.startswith(_CREATED):
                        file.unlink(missing_ok=True)
            self._remove_created()

    def _remove_created(self) -> None:
        """Removes the folders that were created, if they are empty."""
        for folder in self._created:
            with suppress(OSError):
                folder.rmdir()


def _unusable(cause: str) -> InputError:
    return InputError(cause, "Name a new or empty folder, or that of the run, with --out.")


class _Dumper(yaml.SafeDumper):
    """Writes no anchors and aliases, which our reader refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        """See PyYAML."""
        return True


def _dump(settings: dict[str, Any]) -> str:
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def load_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run's last session.

    Raises:
        InputError: They cannot be read, or were changed since they were written.
    """
    file = folder / SETTINGS_NAME
    remedy = "Restore it, or repeat the command that created the run."
    unreadable = InputError(f"{file} cannot be read.", remedy)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise unreadable
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        raise unreadable from None
    if (folder / FILE_NAME).is_file():
        with closing(Journal(folder / FILE_NAME)) as journal:
            written = journal.meta(_SETTINGS_HASH)
        if written not in (None, fingerprint(text)):
            raise InputError(f"{file} was changed since aidsafe wrote it.", remedy)
    try:
        return read_yaml_text(text, str(file))
    except YamlError as error:
        raise InputError(
            f"{file} cannot be read ({error.problems[0].cause.rstrip('.')}).", remedy
        ) from None


def policies_of_run(folder: Path) -> PolicySet:
    """The policies of a run; an InputError if they cannot be read."""
    try:
        return PolicySet.model_validate(load_settings(folder)["policies"])
    except (ValidationError, KeyError, TypeError):
        raise unreadable(folder) from None


def models_of_run(folder: Path) -> dict[str, ModelConfig]:
    """The models of a run.

    Raises:
        InputError: `run.yaml` cannot be read, or a model needs a secret that it does not hold.
    """
    found = load_settings(folder).get("models")
    if REDACTED in str(found):
        raise InputError(
            "A model of the run needs a secret, which run.yaml does not hold.",
            "Name the models file that the run was started with: --models FILE.",
        )
    try:
        return {name: ModelConfig.model_validate(config) for name, config in found.items()}  # type: ignore[union-attr]
    except (ValidationError, AttributeError):
        raise unreadable(folder) from None


def unreadable(folder: Path) -> InputError:
    """The error for a `run.yaml` that is not as it was written."""
    return InputError(
        f"{folder / SETTINGS_NAME} is not as aidsafe wrote it.",
        "Restore it from a copy, or repeat the command that created it.",
    )
