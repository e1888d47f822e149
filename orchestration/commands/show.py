"""`aidsafe show`: the records of a run, or one of them turn by turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len

from orchestration.commands import options
from orchestration.commands.output import out, write
from orchestration.journal import FILE_NAME, Journal
from orchestration.kept import read_kept
from orchestration.pairs.job import PAIRS
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.view import PAIR_COLUMNS, pair_cells, print_pair
from orchestration.record import CoTRecord
from orchestration.view import clean, narrowed, print_transcript, table
from policies import InputError


def show(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A run folder, or a file of records; - for standard input."
        ),
    ],
    prompt_id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="Show this record, turn by turn; the start of its id is enough.",
            show_default=False,
        ),
    ] = None,
    outcome: Annotated[
        options.OutcomeName | None,
        typer.Option(help="List records of this outcome only.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="List so many at most.", show_default=False),
    ] = None,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Show what each agent was told, too.")
    ] = False,
    show_unsafe: Annotated[
        bool,
        typer.Option(
            "--show-unsafe",
            help="Show what was made bad on purpose: beliefs, rejected sides, quotes of them.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """List the records or pairs of a run, or read one of them turn by turn.

    Example: aidsafe show runs/first p1a2b3c4d5e6
    """
    if prompt_id is None:
        _list(_records(source, outcome), limit, json, show_unsafe)
        return
    found = _find(source, prompt_id)
    if json:
        _check_shown(found, show_unsafe)
        write(found.model_dump_json(indent=2) + "\n")
    elif isinstance(found, PreferencePair):
        print_pair(out(), found, show_unsafe, instructions)
    else:
        print_transcript(out(), found, instructions)


def _find(source: Path, start: str) -> CoTRecord | PreferencePair:
    """The record or pair of that id, or the only one whose id starts so."""
    found: list[CoTRecord | PreferencePair] = []
    if _is_file(source):
        for record in _from_file(source):
            if record.id == start:
                return record
            if record.id.startswith(start) and len(found) < 4:
                found.append(record)
    else:
        journal = _journal(source)
        try:
            found = [*journal.find(_kind(journal), start, 4)]
        finally:
            journal.close()
    if not found:
        raise InputError(
            f"There is no record '{start}' in {source}.", f"List them: aidsafe show {source}"
        )
    if len(found) > 1:
        names = ", ".join(record.id for record in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise InputError(
            f"Several records start with '{start}': {names}{more}.", "Give more of the id."
        )
    return found[0]


def _list(
    records: Iterator[CoTRecord | PreferencePair], limit: int | None, json: bool, show_unsafe: bool
) -> None:
    chosen = islice(records, limit)
    if json:
        for record in chosen:
            _check_shown(record, show_unsafe)
            write(record.model_dump_json() + "\n")
        return
    columns: tuple[str, ...] = _COLUMNS
    rows = []
    for record in chosen:
        if isinstance(record, PreferencePair):
            columns = PAIR_COLUMNS
            cells = pair_cells(record)
        else:
            cells = [
                record.outcome,
                record.stop_reason or "",
                str(record.rounds),
                str(len(record.thoughts)),
                str(len(record.removed_thoughts)),
            ]
        rows.append([record.id, *cells, record.prompt[:200].strip()[:70]])
    console = out()
    made = table(*narrowed(columns, rows, console.width), one_line=True)
    # An id is there to be copied: one too long for the terminal's line goes on in the next.
    widest = max((cell_len(clean(row[0])) for row in rows), default=0)
    made.width = widest if widest > console.width else None
    console.print(made, crop=False)


def _check_shown(record: CoTRecord | PreferencePair, show_unsafe: bool) -> None:
    if isinstance(record, PreferencePair) and not show_unsafe:
        raise InputError(
            "A pair as JSON holds unsafe text: beliefs, the rejected side, the transcript.",
            "Add --show-unsafe if you want that, or leave --json out.",
        )


_COLUMNS = ("id", "outcome", "stopped by", "rounds", "thoughts", "removed", "prompt")


def _records(source: Path, outcome: str | None) -> Iterator[CoTRecord | PreferencePair]:
    if _is_file(source):
        for record in _from_file(source):
            if outcome in (None, record.outcome):
                yield record
        return
    journal = _journal(source)
    try:
        yield from journal.records_of(_kind(journal), outcome)
    finally:
        journal.close()


def _is_file(source: Path) -> bool:
    return str(source) == "-" or source.is_file()


def _journal(source: Path) -> Journal:
    if not source.exists():
        raise InputError(f"There is no {source}.", "Name a run folder or a file of records.")
    return Journal(source / FILE_NAME)


def _kind(journal: Journal) -> type[CoTRecord] | type[PreferencePair]:
    return PreferencePair if journal.meta("kind") == PAIRS else CoTRecord


def _from_file(source: Path) -> Iterator[CoTRecord | PreferencePair]:
    """Records or pairs from JSONL, or from a file that holds a single one over several lines."""
    name = "standard input" if str(source) == "-" else str(source)
    try:
        raw = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
        text = raw.decode("utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise InputError(
            f"{name} cannot be read as text.", "Name a run folder or a JSONL file of records."
        ) from None
    if not text.strip():
        raise InputError(f"{name} is empty.", "Name a run folder or a JSONL file of records.")
    try:
        yield read_kept(text)
        return
    except ValueError:
        pass
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is text
        if line.strip():
            try:
                yield read_kept(line)
            except ValueError:
                raise InputError(
                    f"{name}:{number}: this is not a record.",
                    "Name a file that `aidsafe export` or `aidsafe chat --json` wrote.",
                ) from None
