"""Where pairs are: in a folder of their own, inside the run of their records."""

from __future__ import annotations

from pathlib import Path

from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs.job import BASELINE, PAIRS
from policies import InputError


def pairs_folder(folder: Path, baseline: bool = False) -> Path:
    """The folder of a run's pairs.

    Args:
        folder: The run of the records, or the folder of the pairs itself.
        baseline: Of those that were made by sampling alone.
    """
    if is_pairs(folder):
        return folder if not baseline else folder.resolve().parent / BASELINE
    return folder / (BASELINE if baseline else PAIRS)


def is_pairs(folder: Path) -> bool:
    """Whether a folder is a run that makes pairs."""
    if not (folder / FILE_NAME).is_file():
        return False
    journal = Journal(folder / FILE_NAME)
    try:
        return journal.meta("kind") == PAIRS
    finally:
        journal.close()


def open_pairs(folder: Path, baseline: bool = False) -> Journal:
    """The journal of a run's pairs.

    Raises:
        InputError: There are none.
        JournalError: The journal is damaged.
    """
    place = pairs_folder(folder, baseline)
    if not is_pairs(place):
        if not (folder / FILE_NAME).is_file():
            raise InputError(f"There is no run in {folder}.", "Name the folder of a run.")
        raise InputError(
            f"There are no pairs in {folder}.", f"Make them with: aidsafe prefer {folder}"
        )
    return Journal(place / FILE_NAME)
