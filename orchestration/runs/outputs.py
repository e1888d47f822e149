"""Which files a command must not write its output to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestration.journal import FILE_NAME
from orchestration.runs.folder import is_file_of_run, is_run, load_settings
from policies import InputError


def check_output(out: Path | None, *runs: Path) -> None:
    """Checks that an output does not overwrite a file of a run, under whatever name.

    Args:
        out: The file; None for standard output, which the shell may have redirected.
        runs: The runs that are read: their files and the files of their prompts count.

    Raises:
        InputError: It does.
    """
    shown = "Standard output" if out is None else str(out)
    for file in _files(out, runs):
        if _is_same(out, file):
            raise InputError(
                f"{shown} is {file}, which the run consists of or is made from.",
                "Name another file.",
            )
    if out is not None:
        target = Path(os.path.realpath(out))
        if is_file_of_run(target.name) and is_run(target.parent):
            raise InputError(f"{out} is a file of the run in {target.parent}.", "Name another one.")


def _files(out: Path | None, runs: tuple[Path, ...]) -> Iterator[Path]:
    folders = {run.resolve() for run in runs}
    folders |= {(run / FILE_NAME).resolve().parent for run in runs}  # the journal may be a link
    if out is not None:
        folders.add(Path(os.path.realpath(out)).parent)
    for folder in folders:
        with suppress(OSError):
            if is_run(folder):
                yield from (file for file in folder.iterdir() if is_file_of_run(file.name))
    for run in runs:
        with suppress(InputError, TypeError, KeyError, AttributeError):
            yield Path(load_settings(run)["prompts"]["name"])


def _is_same(out: Path | None, file: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError):
        found = os.fstat(sys.stdout.fileno()) if out is None else out.stat()
        return os.path.samestat(found, file.stat())
    return False
