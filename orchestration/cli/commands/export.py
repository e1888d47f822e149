"""`aidsafe export`: a run's completed results as JSON lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestration.api import open_run
from orchestration.chat.view import plain
from orchestration.cli.console import err, write
from orchestration.cli.options import argument, command, option
from orchestration.journal import FILE_NAME
from orchestration.kinds import KINDS
from orchestration.pairs.export import thinned
from orchestration.pairs.job import PAIRS
from orchestration.runs.export import THINK, Wrapping, write_lines
from orchestration.runs.outputs import check_output
from orchestration.runs.reader import RunReader
from policies import InputError

FORMATS = {name: text for kind in KINDS for name, text in kind.formats.items()}


@command
def export(
    folder: Path = argument("A run folder.", "FOLDER"),
    form: str | None = option(
        " ".join(f"{name}: {text}." for name, text in FORMATS.items())
        + " [default: whole records; whole pairs for a folder of pairs]",
        None,
        "--format",
        choices=list(FORMATS),
    ),
    out: Path | None = option("File to write. [default: standard output]", "FILE", "--out", "-o"),
    citations: bool = option(
        "End each thought with what it cites.", None, "--citations/--no-citations", default=True
    ),
    wrap: str | None = option(
        "How sft and dpo combine {thoughts} and {response}; \\n is a line break. [default: inside "
        "<think>…</think>, then the response]",
        "TEXT",
    ),
    contrast_share: float | None = option(
        "Maximum share of contrast pairs; more are dropped.", "SHARE", min=0.0, max=1.0
    ),
) -> None:
    """Export the completed results of a run, one JSON object per line.

    Example: aidsafe export runs/first --format sft --out sft.jsonl
    """
    template = THINK if wrap is None else wrap.replace("\\n", "\n")
    wrapping, share = Wrapping(template, citations), contrast_share
    with _open(folder, form) as run:
        kind = run.kind
        if share is not None and kind is not PAIRS:
            raise InputError(
                "--contrast-share applies to pairs only.",
                "Leave it out, or use --format pairs or dpo.",
            )
        check_output(out, run.folder, folder)
        completed = run.where(outcome="completed")
        rows = completed if share is None else thinned(completed, share)
        lines = kind.lines(rows, form or next(iter(kind.formats)), wrapping)
        if out is None:
            for line in lines:
                write(line + "\n")
            return
        count = write_lines(out, lines)
    warning = f" ({kind.export_warning})" if kind.export_warning else ""
    err().print(plain(f"{count} {kind.name}{warning} written to {out}."))


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
