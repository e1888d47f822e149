"""`aidsafe status`: the progress of a run, from another shell."""

from __future__ import annotations

from pathlib import Path

from orchestration.api import open_run
from orchestration.chat.view import plain
from orchestration.cli.console import err, out, write_json
from orchestration.cli.options import OutputOptions, argument, command
from orchestration.cli.progress import panel


@command
def status(output: OutputOptions, folder: Path = argument("A run folder.", "FOLDER")) -> None:
    """Show the progress of a run, while it runs or after.

    Example: aidsafe status runs/first
    """
    with open_run(folder) as run:
        summary = run.summary
    if output.json:
        write_json(summary.model_dump(mode="json"))
        return
    out().print(panel(summary))
    when = f" at {summary.updated_at}" if summary.updated_at else ""
    process = f"{summary.process}, last update {summary.updated_at}"
    why = f" {summary.why_stopped}" if summary.why_stopped else ""
    phases = {
        "running": f"Running as {process}.",
        "stopping": f"Stopping as {process}.",
        "finished": f"Finished{when}.",
        "stopped": f"Stopped{when}.{why} Resume with the same command.",
    }
    err().print(plain(phases[summary.phase], "dim"))
