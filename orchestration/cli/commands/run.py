"""`aidsafe run`: many prompts, into a run folder."""

from __future__ import annotations

from orchestration.chat.view import plain, table
from orchestration.cli.console import err, out, run_async, write_json
from orchestration.cli.options import PromptsOptions, command, option
from orchestration.cli.progress import short
from orchestration.cli.session import Session
from orchestration.deliberation.job import DeliberationJob
from orchestration.runs.dry_run import DryRun
from orchestration.runs.dry_run import dry_run as find_changes


@command
def run(
    options: PromptsOptions,
    dry_run: bool = option(
        "Make no call: print how many replies would be requested again.", default=False
    ),
) -> None:
    """Let the agents deliberate over many prompts. The same command again resumes a run.

    Example: aidsafe run prompts.jsonl --out runs/first --limit 200
    """
    job = DeliberationJob(options.cast(options.price))
    if dry_run:
        _print_dry_run(run_async(lambda: find_changes(options.out, job)), options.json)
        return
    with (
        options.read() as reader,
        Session(options.out, job, options.source, options, personas=options.personas) as session,
    ):
        session.execute(
            lambda: session.run.execute(reader, session.concurrency, limits=session.limits)
        )


def _print_dry_run(found: DryRun, json: bool) -> None:
    if json:
        write_json(found.model_dump())
        return
    rows = [
        ("prompts whose outcome stays", f"{found.unchanged:,}"),
        ("prompts that need new calls", f"{found.changed:,}"),
        ("prompts without an outcome yet", f"{found.unfinished:,}"),
        ("replies that are reused", f"{found.replies_used:,}"),
        ("replies that are requested again", f"{found.replies_replaced:,}"),
    ]
    out().print(table(("this run", f"{found.prompts:,} prompts"), rows))
    remark = (
        f"About {short(found.replies_replaced)} calls, more or fewer if chats take another course; "
        "prompts without an outcome need further ones."
    )
    err().print(plain(remark, "dim"))
