"""A run's folder: `run.yaml`, the journal, and whether both belong to the same run."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from agents.models.config import ModelConfig
from agents.models.redaction import REDACTED
from orchestration.journal import FILE_NAME, Journal, JournalError, Transaction
from orchestration.journal.lock import LOCK_NAME
from orchestration.runs.files import write_atomically
from orchestration.runs.intake import Source
from orchestration.runs.job import Job
from policies import InputError, PolicySet

SETTINGS_NAME = "run.yaml"
_CREATED = (FILE_NAME, LOCK_NAME, SETTINGS_NAME, "status.json", "summary.json")


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

    Raises:
        InputError: The folder holds something else, or cannot be created.
        JournalError: Its journal cannot be used.
    """

    def __init__(self, path: Path, job: Job, source: Source | None) -> None:
        self.path = path
        self._job = job
        self._had_files = self._check()
        self._created = [p for p in (path, *path.parents) if not p.exists()]
        given = load_settings(path).get("prompts") if source is None else asdict(source)
        self._settings = {"kind": job.kind.name, "prompts": given, **job.settings()}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable(f"The folder {path} cannot be created ({error.strerror}).") from None
        try:
            self.journal = Journal(path / FILE_NAME, write=True)
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
        path = self.path
        if path.exists() and not path.is_dir():
            raise _unusable(f"{path} is a file.")
        try:
            found = {file.name for file in path.iterdir()} - {LOCK_NAME} if path.exists() else set()
        except OSError as error:
            raise _unusable(f"The folder {path} cannot be read ({error.strerror}).") from None
        if SETTINGS_NAME in found and (
            FILE_NAME not in found or not (path / FILE_NAME).stat().st_size
        ):
            raise JournalError(
                f"The run in {path} has lost its journal: {FILE_NAME} is gone or empty.",
                f"Restore it from a copy, or save what is left with: aidsafe salvage {path} "
                "--out FOLDER; starting over would pay for everything again.",
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
        changed = self.changed

        def change(tx: Transaction) -> None:
            # Without changes, only chats that a limit interrupted are resumed: this session's
            # limits may leave room for them.
            tx.reopen(None if changed else "over_budget")
            self._job.prepare(changed, tx)
            tx.set_meta("kind", self._job.kind.name)
            tx.set_meta("settings", text)

        await self.journal.write(change)
        settings = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True, width=100)
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


def load_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run's last session; an InputError if they cannot be read."""
    file = folder / SETTINGS_NAME
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{file} cannot be read.", "Restore it, or repeat the command that created the run."
        )
    return found


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
