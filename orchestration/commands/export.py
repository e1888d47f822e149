"""`aidsafe export`: a run's completed records, or its kept pairs, as JSONL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands.output import err, write
from orchestration.export import THINK, Wrapping, export_lines, write_lines
from orchestration.journal import FILE_NAME, Journal
from orchestration.pairs.export import Thinned, export_pairs
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.places import is_pairs, open_pairs
from orchestration.view import clean
from policies import InputError


class FormatName(StrEnum):
    """Names of the formats."""

    records = "records"
    aidsafe = "aidsafe"
    sft = "sft"
    pairs = "pairs"
    dpo = "dpo"


def export(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")],
    form: Annotated[
        FormatName | None,
        typer.Option(
            "--format",
            help="records: all there is. aidsafe: prompt, thoughts, response. sft: chat messages, "
            "thoughts inside <think>. pairs: all of the kept pairs. dpo: prompt, chosen and "
            "rejected as chat messages. [default: records; pairs of a folder of pairs]",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="File to write. [default: standard output]"
        ),
    ] = None,
    citations: Annotated[
        bool, typer.Option(help="End each thought with the policies and rules that it cites.")
    ] = True,
    wrap: Annotated[
        str | None,
        typer.Option(
            "--wrap",
            metavar="TEXT",
            help="How sft and dpo put {thoughts} and {response} together; \\n is a line break. "
            "[default: inside <think>…</think>, then the response]",
            show_default=False,
        ),
    ] = None,
    contrast_share: Annotated[
        float | None,
        typer.Option(
            "--contrast-share",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Thin the contrast pairs out to this share of all pairs, at most.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Export the completed records of a run, or its pairs, one JSON object a line.

    Example: aidsafe export runs/first --format sft --out sft.jsonl
    """
    of_pairs = is_pairs(folder)
    form = form or (FormatName.pairs if of_pairs else FormatName.records)
    wrapping = Wrapping(THINK if wrap is None else wrap.replace("\\n", "\n"), citations)
    if form in (FormatName.pairs, FormatName.dpo):
        with closing(open_pairs(folder)) as journal:
            pairs = export_pairs(_kept(journal, contrast_share), form.value, wrapping)  # type: ignore[arg-type]
            _put(pairs, file, "pairs (do not train on their rejected sides)")
        return
    if of_pairs:
        raise InputError(
            f"{folder} holds pairs, and {form} is a form of records.",
            "Name the run of the records, or use --format dpo or pairs.",
        )
    if contrast_share is not None:
        raise InputError(
            "--contrast-share is about pairs.", "Leave it out, or use --format dpo or pairs."
        )
    with closing(Journal(folder / FILE_NAME)) as journal:
        lines = export_lines(journal.records("completed"), form.value, wrapping)  # type: ignore[arg-type]
        _put(lines, file, "records")


def _kept(journal: Journal, share: float | None) -> Iterator[PreferencePair]:
    pairs = (p for p in journal.records_of(PreferencePair, "completed") if p.is_kept)
    if share is None:
        yield from pairs
        return
    thinned = Thinned(((pair.kind, pair.id) for pair in pairs), share)
    for pair in journal.records_of(PreferencePair, "completed"):
        if thinned.holds(pair):
            yield pair


def _put(lines: Iterator[str], file: Path | None, what: str) -> None:
    if file is None:
        for line in lines:
            write(line + "\n")
        return
    count = write_lines(file, lines)
    err().print(clean(f"{count} {what} written to {file}."))
