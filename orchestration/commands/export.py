"""`aidsafe export`: a run's completed records as JSONL."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.output import err
from orchestration.export import export_lines
from orchestration.journal import FILE_NAME, Journal
from policies import InputError


class FormatName(StrEnum):
    """Names of the formats."""

    records = "records"
    aidsafe = "aidsafe"
    sft = "sft"


def export(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    form: Annotated[
        FormatName,
        typer.Option(
            "--format",
            help="records: all there is. aidsafe: prompt, thoughts, response. sft: chat messages, "
            "thoughts inside <think>.",
        ),
    ] = FormatName.records,
    file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="File to write. [default: standard output]"),
    ] = None,
    citations: Annotated[
        bool, typer.Option(help="End each thought with the policies and rules that it cites.")
    ] = True,
) -> None:
    """Export the completed records of a run, one JSON object a line.

    Example: aidsafe export runs/first --format sft --out sft.jsonl
    """
    journal = Journal(folder / FILE_NAME)
    try:
        lines = export_lines(journal.records("completed"), form.value, citations)
        if file is None:
            for line in lines:
                sys.stdout.write(line + "\n")
            sys.stdout.flush()
            return
        count = 0
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            # Aside, then renamed: a reader never sees half an export.
            with aside.open("w", encoding="utf-8") as stream:
                for count, line in enumerate(lines, 1):  # noqa: B007 - counted for the notice
                    stream.write(line + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(file)
        except OSError as error:
            raise InputError(
                f"{file} cannot be written ({error.strerror}).",
                "Check the folder and the space on the disk.",
            ) from None
        finally:
            with suppress(OSError):
                aside.unlink()
    finally:
        journal.close()
    err().print(f"{count} records written to {file}.")
