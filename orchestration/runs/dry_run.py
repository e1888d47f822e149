"""What resuming a run would call for, found out without a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel

from agents.models.errors import CallNotStarted
from orchestration.runs.call_gate import CallGate
from orchestration.runs.folder import changed_settings, open_journal
from orchestration.runs.job import Job
from orchestration.runs.reader import RunReader
from orchestration.runs.replay import ChatReplies, RequestKeys
from orchestration.runs.run_chat import run_chat


class DryRun(BaseModel, extra="forbid"):
    """What the journal alone leads to under the present settings."""

    prompts: int = 0
    """Prompts of the run."""
    unchanged: int = 0
    """Those that keep their outcome, or whose chat ends without a new call."""
    changed: int = 0
    """Those that had an outcome, and need calls again."""
    unfinished: int = 0
    """Those that have no outcome yet."""
    replies_used: int = 0
    """Replies in the journal that are used again."""
    replies_replaced: int = 0
    """Replies of finished chats whose request has changed. As chats may now take another course,
    the number of calls can be higher or lower."""


async def dry_run(
    folder: Path, job: Job, on_prompt: Callable[[DryRun], None] = lambda _: None
) -> DryRun:
    """Replays every chat of a run from its journal, as far as that leads.

    Takes about a millisecond of CPU for every reply that is used again.

    Raises:
        JournalError: There is no run there, or its journal is damaged.
    """
    found = DryRun()
    journal = open_journal(folder)
    results, keys, gate = RunReader(journal, job.kind), RequestKeys(), CallGate.closed()
    try:
        changed = changed_settings(job, journal)
        for prompt, outcome in journal.prompts():
            found.prompts += 1
            replies = ChatReplies(journal, keys, gate, prompt)
            ended = False
            if replies.stored and (task := await job.chat(prompt, replies.wrap)) is not None:
                try:
                    await run_chat(task, gate)
                    ended = True
                except CallNotStarted:
                    pass
            found.replies_used += replies.replayed
            if outcome is None or (outcome == "over_budget" and not changed):
                found.unfinished += 1
            elif ended or not changed:
                found.unchanged += 1
            else:
                found.changed += 1
                result = results.get(prompt.number)
                calls = sum(1 + len(turn.discarded) for turn in result.turns) if result else 0
                found.replies_replaced += max(0, calls - replies.replayed)
            on_prompt(found)
    finally:
        journal.close()
    return found
