"""`aidsafe show`: the results of a run, or one of them turn by turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeAlias

from rich.cells import cell_len

from orchestration.api import open_run
from orchestration.chat.view import clean, narrowed, table
from orchestration.cli.console import err, out, write
from orchestration.cli.options import OutputOptions, argument, command, option
from orchestration.kinds import read_result
from orchestration.runs.job import Kind
from orchestration.runs.result import OUTCOMES, RunResult
from policies import InputError

Found: TypeAlias = tuple[Kind[Any], RunResult]


@command
def show(
    output: OutputOptions,
    source: Path = argument(
        "A run folder, or a file of records or pairs; - for standard input.", "SOURCE"
    ),
    id: str | None = argument(
        "Show this result, turn by turn; the start of its id is enough.", "ID", default=None
    ),
    outcome: str | None = option("List those of this outcome only.", choices=OUTCOMES),
    limit: int | None = option("Maximum number to list.", "N", min=1),
    instructions: bool = option("Show each agent's instruction too.", default=False),
    show_unsafe: bool = option(
        "Show text that was made bad on purpose: beliefs, rejected sides, quotes of them.",
        default=False,
    ),
) -> None:
    """List the results of a run, or read one of them turn by turn.

    Example: aidsafe show runs/first p1a2b3c4d5e6
    """
    if id is None:
        _list(islice(_results(source, outcome), limit), output.json, show_unsafe)
        return
    kind, result = _find(source, id)
    if output.json:
        _check_shown(kind, show_unsafe)
        write(result.model_dump_json(indent=2) + "\n")
    else:
        kind.show(out(), result, instructions=instructions, show_unsafe=show_unsafe)


def _find(source: Path, start: str) -> Found:
    """The result of that id, or the only one whose id starts with it."""
    found = list(_results(source, start=start))
    found = [each for each in found if each[1].id == start][:1] or found
    if not found:
        raise InputError(
            f"There is no result '{start}' in {source}.", f"List them: aidsafe show {source}"
        )
    if len(found) > 1:
        names = ", ".join(result.id for _, result in found[:3])
        more = ", ..." if len(found) > 3 else ""
        raise InputError(
            f"Several ids start with '{start}': {names}{more}.", "Give more of the id."
        )
    return found[0]


def _list(results: Iterator[Found], json: bool, show_unsafe: bool) -> None:
    if json:
        for kind, result in results:
            _check_shown(kind, show_unsafe)
            write(result.model_dump_json() + "\n")
        return
    console, empty = out(), True
    for kind, group in groupby(results, key=lambda found: found[0]):
        empty = False
        columns = ("id", *kind.columns, "prompt")
        rows = [[r.id, *kind.cells(r), r.prompt[:200].strip()[:70]] for _, r in group]
        made = table(*narrowed(columns, rows, console.width), one_line=True)
        # Ids are there to be copied: one that is too long for the terminal is continued below.
        widest = max((cell_len(clean(row[0])) for row in rows), default=0)
        made.width = widest if widest > console.width else None
        console.print(made, crop=False)
    if empty:
        err().print("There are no results.")


def _check_shown(kind: Kind[Any], show_unsafe: bool) -> None:
    if kind.unsafe_text and not show_unsafe:
        raise InputError(
            f"JSON of {kind.name} holds unsafe text: {kind.unsafe_text}.",
            "Add --show-unsafe if you want that, or omit --json.",
        )


def _results(source: Path, outcome: str | None = None, start: str | None = None) -> Iterator[Found]:
    """The results of that outcome, or some of those whose ids start like that."""
    if str(source) == "-" or source.is_file():
        for kind, result in _from_file(source):
            if outcome in (None, result.outcome) and result.id.startswith(start or ""):
                yield kind, result
    elif not source.exists():
        raise InputError(f"{source} does not exist.", "Name a run folder or a file of records.")
    else:
        with open_run(source) as run:
            for result in run.where(outcome=outcome) if start is None else run.find(start, 4):
                yield run.kind, result


def _from_file(source: Path) -> Iterator[Found]:
    """Results from JSON lines, or from a file that holds a single one over several lines."""
    name = "standard input" if str(source) == "-" else str(source)
    remedy = "Name a run folder or a JSONL file of records or pairs."
    try:
        raw = sys.stdin.buffer.read() if str(source) == "-" else source.read_bytes()
        text = raw.decode("utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise InputError(f"{name} cannot be read as text.", remedy) from None
    if not text.strip():
        raise InputError(f"{name} is empty.", remedy)
    try:
        yield read_result(text)
        return
    except ValueError:
        pass
    for number, line in enumerate(text.split("\n"), 1):  # not splitlines: U+2028 is text
        if line.strip():
            try:
                yield read_result(line)
            except ValueError:
                raise InputError(
                    f"{name}:{number}: this is not a record or pair.",
                    "Name a file that `aidsafe export` or `aidsafe chat --json` wrote.",
                ) from None
