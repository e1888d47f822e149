"""Where pairs are: in a folder of their own, inside the run of their records."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from orchestration.journal import FILE_NAME, Journal
from orchestration.runs.folder import open_journal
from policies import InputError

NAME = "pairs"
"""The kind of runs that make pairs, and their folder."""
BASELINE = "baseline"
"""The folder of pairs that were made by sampling alone."""


def pairs_folder(folder: Path, baseline: bool = False) -> Path:
    """The folder of a run's pairs, or of those that were made by sampling alone.

    Args:
        folder: The run of the records, or the folder of the pairs itself.
        baseline: Whether those by sampling alone are meant.
    """
    if not is_pairs(folder):
        return folder / (BASELINE if baseline else NAME)
    return folder.resolve().parent / BASELINE if baseline else folder


def is_pairs(folder: Path) -> bool:
    """Whether a folder is a run that makes pairs."""
    if not (folder / FILE_NAME).is_file():
        return False
    with closing(open_journal(folder)) as journal:
        return journal.meta("kind") == NAME


def records_of(folder: Path, settings: dict[str, Any]) -> Path:
    """The run whose records the pairs of a folder with such settings are made of."""
    path = folder.resolve()
    # Inside the run of its records, where it moved with that.
    inside = path.name in (NAME, BASELINE) and (path.parent / FILE_NAME).exists()
    return path.parent if inside else Path(settings["records"])


def check_records(folder: Path) -> None:
    """Raises `InputError` if a folder is not a run that pairs can be made of."""
    if not (folder / FILE_NAME).is_file():
        raise InputError(f"There is no run in {folder}.", "Name the folder that `run` created.")
    if is_pairs(folder):
        raise InputError(
            f"{folder} holds pairs, and pairs are made of records.",
            "Name the run that its records are in.",
        )


def open_pairs(folder: Path, baseline: bool = False) -> Journal:
    """The journal of a run's pairs.

    Raises:
        InputError: There are none.
        JournalError: The journal is damaged.
    """
    path = pairs_folder(folder, baseline)
    if is_pairs(path):
        return open_journal(path)
    check_records(folder)
    raise InputError(f"There are no pairs in {folder}.", f"Make them with: aidsafe prefer {folder}")
