"""`aidsafe status`: how far a run is, from another shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import options
from orchestration.commands.output import err, out, write_json
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.lock import is_locked
from orchestration.progress import panel
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.state import STATUS_NAME, Endings, Summary, read_status
from orchestration.view import plain


def status(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A run folder.")],
    json: options.Json = False,
) -> None:
    """Show how far a run is, while it runs or after.

    Example: aidsafe status runs/first
    """
    summary = look(folder)
    if json:
        write_json(summary.model_dump(mode="json"))
        return
    out().print(panel(summary))
    host = summary.process
    when = f" at {summary.updated_at}" if summary.updated_at else ""
    states = {
        "running": f"Running as {host}, seen last at {summary.updated_at}.",
        "stopping": f"Stopping as {host}, seen last at {summary.updated_at}.",
        "finished": f"Finished{when}.",
        "stopped": f"Stopped{when}. {summary.why_stopped or ''} Go on with the same "
        "command.".replace("  ", " "),
    }
    err().print(plain(states[summary.phase], style="dim"))


def look(folder: Path) -> Summary:
    """How far a run is: what its journal has, and what the process that runs it says.

    Raises:
        JournalError: There is no run, or its journal is damaged.
    """
    journal = Journal(folder / FILE_NAME)
    try:
        summary = read_status(folder, STATUS_NAME) or Summary()
        spent = Budget(Limits(), [], journal.spend())
        summary = summary.model_copy(
            update={
                "outcomes": dict(journal.outcomes()),
                **Endings.of(journal).fields(),
                "prompts": journal.count_prompts(),
                "waiting": journal.count_waiting(),
                "calls": spent.calls,
                "usage": spent.usage,
                "cost": dict(spent.costs),
                "unpriced_calls": spent.unpriced,
            }
        )
    finally:
        journal.close()
    if summary.phase == "finished" and summary.waiting:
        why = "The session came to its end; other prompts of the run have no outcome yet."
        summary = summary.model_copy(update={"phase": "stopped", "why_stopped": why})
    if not summary.started_at:  # a run without its status file, such as a salvaged one
        return summary.model_copy(update={"phase": "stopped" if summary.waiting else "finished"})
    if summary.phase in ("running", "stopping") and is_locked(folder) is False:
        # The process is gone without a word: killed, or the machine was restarted.
        gone = {
            "phase": "stopped",
            "why_stopped": "Its process ended without saying so.",
            "active": 0,
            "per_minute": None,
            "seconds_left": None,
            "endpoints": [],
        }
        summary = summary.model_copy(update=gone)
    return summary
