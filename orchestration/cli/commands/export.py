"""`aidsafe export`: a run's completed results as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.api import open_run
from orchestration.chat.view import plain
from orchestration.cli.console import err, write
from orchestration.cli.options import argument, command, option
from orchestration.journal import FILE_NAME
from orchestration.kinds import KINDS
from orchestration.runs.export import THINK, ExportOptions, Wrapping, write_lines
from orchestration.runs.reader import RunReader
from policies import InputError

FORMATS = {name: text for kind in KINDS for name, text in kind.formats.items()}


@dataclass(frozen=True, kw_only=True)
class ExportCommandOptions:
    """Options of `aidsafe export`."""

    folder: Path = argument("A run folder.", "FOLDER")
    form: str | None = option(
        " ".join(f"{name}: {text}." for name, text in FORMATS.items())
        + " [default: whole records; whole pairs for a folder of pairs]",
        None,
        "--format",
        choices=list(FORMATS),
    )
    out: Path | None = option("File to write. [default: standard output]", "FILE", "--out", "-o")
    citations: bool = option(
        "End each thought with what it cites.", None, "--citations/--no-citations", default=True
    )
    wrap: str | None = option(
        "How sft and dpo combine {thoughts} and {response}; \\n is a line break. [default: inside "
        "<think>…</think>, then the response]",
        "TEXT",
    )
    contrast_share: float | None = option(
        "Maximum share of contrast pairs; more are dropped.", "SHARE", min=0.0, max=1.0
    )


@command
def export(options: ExportCommandOptions) -> None:
    """Export the completed results of a run, one JSON object per line.

    Example: aidsafe export runs/first --format sft --out sft.jsonl
    """
    template = THINK if options.wrap is None else options.wrap.replace("\\n", "\n")
    how = ExportOptions(Wrapping(template, options.citations), options.contrast_share)
    with _open(options.folder, options.form) as run:
        kind = run.kind
        form = options.form or next(iter(kind.formats))
        lines = kind.lines(lambda: run.all("completed"), form, how)
        if options.out is None:
            for line in lines:
                write(line + "\n")
            return
        count = write_lines(options.out, lines)
    warning = f" ({kind.export_warning})" if kind.export_warning else ""
    err().print(plain(f"{count} {kind.name}{warning} written to {options.out}."))


def _open(folder: Path, form: str | None) -> RunReader[Any]:
    """The run whose results have the format: the folder's own, or one inside it."""
    run = open_run(folder)
    kind = run.kind
    if form is None or form in kind.formats:
        return run
    run.close()
    wanted = next(each for each in KINDS if form in each.formats)
    if wanted.subfolder is None:
        raise InputError(
            f"{folder} holds {kind.name}, and {form} is a format of {wanted.name}.",
            f"Name a run of {wanted.name}, or use --format {' or '.join(kind.formats)}.",
        )
    if not (folder / wanted.subfolder / FILE_NAME).is_file():
        raise InputError(
            f"There are no {wanted.name} in {folder}.", f"Make them: {wanted.command} {folder}"
        )
    return open_run(folder / wanted.subfolder)
