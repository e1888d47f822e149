"""A run's folder: `run.yaml`, the journal, and whether both belong to the run that is meant."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from orchestration.journal import FILE_NAME, Journal, JournalError
from orchestration.runs.files import write_whole
from orchestration.runs.intake import Source
from orchestration.runs.job import Job
from policies import InputError

SETTINGS_NAME = "run.yaml"


def is_changed(job: Job, journal: Journal) -> bool:
    """Whether a run was last started with other settings than these."""
    before = journal.meta("settings")
    return before is not None and json.loads(before) != job.fingerprints()


class RunFolder:
    """A run folder, checked and open.

    Args:
        path: The folder; made if it is not there.
        job: What is done.
        source: Where the prompts come from; None leaves it as it was.

    Raises:
        InputError: The folder holds something else, or cannot be made.
        JournalError: Its journal cannot be used.
    """

    def __init__(self, path: Path, job: Job, source: Source | None) -> None:
        self.path = path
        self._job = job
        self._settings = job.settings()
        self._now = job.fingerprints()
        self._made = self._check()
        given = load_settings(path).get("prompts") if source is None else asdict(source)
        self._settings = {"prompts": given, **self._settings}
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder {path} cannot be made ({error.strerror}).",
                "Name another folder with --out.",
            ) from None
        try:
            self.journal = Journal(path / FILE_NAME, write=True)
            before = self.journal.meta("settings")
            self._before = json.loads(before) if before else None
            self._check_kind()
        except BaseException:
            self._remove_empty()
            raise

    def _check_kind(self) -> None:
        found = self.journal.meta("kind") or "records"
        if self._before is not None and found != self._job.kind:
            self.journal.close()
            raise InputError(
                f"The folder {self.path} holds {found}, and {self._job.kind} are to be made.",
                "Name another folder with --out.",
            )

    def _check(self) -> Path | None:
        """Whether the folder is, or can become, a run's; gives the first folder to be made."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file.", "Name a folder with --out.")
        try:
            found = {file.name for file in path.iterdir()} if path.exists() else set()
        except OSError as error:
            raise InputError(
                f"The folder {path} cannot be read ({error.strerror}).",
                "Check the folder, or name another with --out.",
            ) from None
        journal = path / FILE_NAME
        if SETTINGS_NAME in found and (FILE_NAME not in found or not journal.stat().st_size):
            raise JournalError(
                f"The run in {path} has lost its journal: {FILE_NAME} is gone or empty.",
                f"Restore it from a copy, or bring out what is left with: aidsafe salvage {path} "
                "--out FOLDER; starting anew would pay for everything again.",
            )
        if found and FILE_NAME not in found:
            raise InputError(
                f"The folder {path} holds something else than a run.",
                "Name a new or empty folder with --out.",
            )
        there = next(p for p in [path, *path.absolute().parents] if p.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise InputError(
                f"The folder {path} cannot be made or written: {there} may not be written or is "
                "no folder.",
                "Name another folder with --out.",
            )
        if found:
            return None
        missing = [p for p in [path, *path.parents] if not p.exists()]
        self._was_there = not missing
        return missing[-1] if missing else path

    @property
    def is_new(self) -> bool:
        """Whether the run begins now."""
        return self._before is None

    @property
    def changed(self) -> dict[str, list[str]]:
        """What is other than when the run was last started, as names by kind.

        The kinds are those of the job's fingerprints; empty if nothing is other.
        """
        before = self._before or self._now
        changed: dict[str, list[str]] = {}
        for kind, parts in self._now.items():
            names = {
                name
                for name in parts.keys() | before.get(kind, {}).keys()
                if parts.get(name) != before.get(kind, {}).get(name)
            }
            if names:
                changed[kind] = sorted(names)
        return changed

    async def settle(self) -> None:
        """Makes the settings of now those of the run.

        If they have changed, every prompt is taken up again: its chat is replayed from the journal,
        and asks anew from the first request on that is another one.

        Raises:
            JournalError: The folder cannot be written.
        """
        anew = bool(self.changed)
        text = json.dumps(self._now)
        prepare = self._job.settled(self.changed)

        def change(db: sqlite3.Connection) -> None:
            if anew:
                db.execute("UPDATE prompts SET outcome = NULL, stop_reason = NULL, rounds = NULL")
            else:
                # What a limit of an earlier session cut off has room again, or this session says.
                db.execute(
                    "UPDATE prompts SET outcome = NULL, stop_reason = NULL, rounds = NULL"
                    " WHERE outcome = 'over_budget'"
                )
            prepare(db)
            db.execute("REPLACE INTO meta VALUES ('settings', ?)", (text,))

        await self.journal.write(change)
        settings = yaml.safe_dump(self._settings, sort_keys=False, allow_unicode=True, width=100)
        try:
            write_whole(self.path / SETTINGS_NAME, [settings])
        except OSError as error:
            raise JournalError(
                f"The folder {self.path} cannot be written ({error.strerror}).",
                "Make room, or name another folder with --out.",
            ) from None

    def close(self, keep: bool = True) -> None:
        """Closes the journal.

        Args:
            keep: Whether anything happened that is worth keeping; else a folder that was made for
                this session is taken away again.
        """
        self.journal.close()
        if not keep:
            self._unmake()

    def _unmake(self) -> None:
        """Takes away what was made: a run that could not start leaves nothing behind."""
        if self._made is None or not self.path.exists():
            return
        for file in self.path.iterdir():
            if file.name.startswith((FILE_NAME, SETTINGS_NAME, "status.json", "summary.json")):
                file.unlink(missing_ok=True)
        self._remove_empty()

    def _remove_empty(self) -> None:
        if self._made is None:
            return
        made = [self.path, *self.path.parents]
        for folder in made[: made.index(self._made) + 1]:
            with suppress(OSError):  # it is not empty
                if not self._was_there:
                    folder.rmdir()


def load_settings(folder: Path) -> dict[str, Any]:
    """The settings that a run was last started with.

    Raises:
        InputError: They cannot be read.
    """
    file = folder / SETTINGS_NAME
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{file} cannot be read.", "Restore it, or name the run's settings anew with `run`."
        )
    return found
