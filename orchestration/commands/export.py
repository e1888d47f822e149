"""`aidsafe export`: a run's completed records as JSONL."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.output import err, write
from orchestration.export import export_lines, write_lines
from orchestration.journal import FILE_NAME, Journal
from orchestration.view import clean


class FormatName(StrEnum):
    """Names of the formats."""

    records = "records"
    aidsafe = "aidsafe"
    sft = "sft"


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")],
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
        typer.Option(
            "--out", "-o", metavar="FILE", help="File to write. [default: standard output]"
        ),
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
                write(line + "\n")
            return
        count = write_lines(file, lines)
    finally:
        journal.close()
    err().print(clean(f"{count} records written to {file}."))
