"""`aidsafe salvage`: recovers what is intact in a damaged run."""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.chat.view import count, plain, table
from orchestration.cli.console import out, write_json
from orchestration.cli.exit_codes import Interrupted
from orchestration.cli.options import REQUIRED, OutputOptions, argument, command, option
from orchestration.journal import FILE_NAME, Journal

if TYPE_CHECKING:
    from orchestration.journal.salvage import Salvaged

_NAMES = {"prompts": "prompts", "calls": "replies", "results": "results"}


@command
def salvage(
    output: OutputOptions,
    folder: Path = argument("A damaged run folder.", "FOLDER"),
    to: Path = option(
        "Folder to create for the new run.", "NEW_FOLDER", "--out", "-o", default=REQUIRED
    ),
) -> None:
    """Copy all that is intact in a damaged run to a new one. The old one is not changed.

    Example: aidsafe salvage runs/first --out runs/saved
    """
    from orchestration.journal.salvage import salvage as recover

    try:
        done = recover(folder, to)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted.", "Nothing was written.") from None
    if output.json:
        write_json({"sound": done is None} | (asdict(done) if done else {}))
    elif done is None:
        out().print(plain(f"The journal in {folder} is sound; nothing was written."))
    else:
        _print(done, to)


def _print(done: Salvaged, to: Path) -> None:
    console = out()
    rows = [
        (name, f"{row.recovered:,}", f"{row.damaged:,}", f"{row.not_found:,}")
        for name, row in ((name, done.tables[key]) for key, name in _NAMES.items())
    ]
    console.print(table(("", "recovered", "damaged", "not found"), rows))
    console.print()
    for line in _remarks(done, to):
        console.print(plain(line))
    name = shlex.quote(str(to))
    console.print(plain(f"Resume:  the command that made it, with --out {name}", "dim"))
    console.print(plain(f"Status:  aidsafe status {name}", "dim"))


def _remarks(done: Salvaged, to: Path) -> list[str]:
    """What the table does not say."""
    lines = []
    with closing(Journal(to / FILE_NAME)) as journal:
        if journal.meta("settings") is None:
            lines.append(
                "The run's settings are lost: resume it with the same policies, recipe and models "
                "as before, which cannot be checked any more."
            )
    lost = {name for name, row in done.tables.items() if row.damaged or row.not_found}
    if "results" in lost:
        lines.append(
            "Prompts whose result is lost are pending: it is made again from their replies, and "
            "only lost replies are requested again."
        )
    if "prompts" in lost:
        lines.append("Lost prompts return when their source is read again, and use their replies.")
    if "notes" in lost:
        lines.append(f"{count(done.tables['notes'].damaged, 'note')} lost (lessons of pairs).")
    if not done.spend:
        lines.append("The sums of what was spent are lost; they are those of the replies left.")
    return lines
