"""`aidsafe salvage`: what is intact in a damaged run, brought into a new one."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import options
from orchestration.commands.output import Interrupted, out, write_json
from orchestration.journal.restore import Salvaged
from orchestration.journal.salvage import salvage as bring_out
from orchestration.view import plain, table

_NAMES = {"prompts": "prompts", "calls": "replies", "records": "records"}


def salvage(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A damaged run folder.")],
    to: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="NEW_FOLDER", help="Folder to make; the new run."),
    ],
    json: options.Json = False,
) -> None:
    """Bring all that is intact in a damaged run into a new one. The old one stays as it is.

    Example: aidsafe salvage runs/first --out runs/saved
    """
    try:
        done = bring_out(folder, to)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted.", "Nothing was written.") from None
    if json:
        write_json({"sound": done is None} | (asdict(done) if done else {}))
    elif done is None:
        out().print(plain(f"The journal in {folder} is sound; nothing was written."))
    else:
        _print(done, to)


def _print(done: Salvaged, to: Path) -> None:
    console = out()
    rows = [
        (name, f"{count.brought_out:,}", f"{count.damaged:,}", f"{count.not_found:,}")
        for name, count in ((name, done.tables[key]) for key, name in _NAMES.items())
    ]
    console.print(table(("", "brought out", "damaged", "not found"), rows))
    console.print()
    for line in _remarks(done):
        console.print(plain(line))
    name = shlex.quote(str(to))
    console.print(plain(f"Go on:  the command that made it with --out {name}", style="dim"))
    console.print(plain(f"See:    aidsafe status {name}", style="dim"))


def _remarks(done: Salvaged) -> list[str]:
    """What the table does not say, a sentence each."""
    lines = []
    if done.replayed:
        lines.append(
            f"{_count(done.replayed, 'prompt')} lost the record: it is made again from the "
            "prompt's replies, and only those that are lost are paid for again."
        )
    if done.rebuilt:
        lines.append(f"{_count(done.rebuilt, 'prompt')} came back from the record.")
    if done.tables["prompts"].damaged or done.tables["prompts"].not_found:
        lines.append(
            "Prompts that are lost come back when their source is read again, and use their "
            "replies again."
        )
    if not done.settings:
        lines.append(
            "The run's settings are lost: use the same policies, recipe and models as before, "
            "since nobody can check that any more."
        )
    if not done.spend:
        lines.append("What was spent was added up anew from the replies, without prices.")
    return lines


def _count(number: int, one: str) -> str:
    return f"{number:,} {one if number == 1 else one + 's'}"
