"""What going on with a run would ask anew, found out without asking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from agents.models.errors import CallNotBegun
from orchestration.journal import FILE_NAME, Journal
from orchestration.journal.calls import ChatLog, Keys, NoCalls
from orchestration.recipe import Cast
from orchestration.runs.folder import is_changed
from orchestration.runs.job import Deliberations
from orchestration.runs.run import converse


class DryRun(BaseModel):
    """What the journal alone leads to under the settings of now."""

    model_config = ConfigDict(extra="forbid")

    prompts: int = 0
    """Prompts that the run knows."""
    unchanged: int = 0
    """Those that keep their outcome, or whose chat comes to its end without a new call."""
    changed: int = 0
    """Those that had an outcome, and need calls again."""
    unfinished: int = 0
    """Those that have no outcome yet."""
    replies_used: int = 0
    """Replies in the journal that are used again."""
    replies_asked_anew: int = 0
    """Replies of finished chats whose request is now another one. As chats may now take another
    course, the calls that are made can be more or fewer."""


async def dry_run(
    folder: Path, cast: Cast, on_prompt: Callable[[DryRun], None] = lambda _: None
) -> DryRun:
    """Replays every chat of a run from its journal, as far as that leads.

    Takes about a millisecond of CPU for every reply that is used again.

    Raises:
        JournalError: There is no run there, or its journal is damaged.
    """
    found = DryRun()
    journal = Journal(folder / FILE_NAME)
    job, keys = Deliberations(cast), Keys()
    try:
        changed = is_changed(job, journal)
        for waiting, outcome in journal.prompts():
            found.prompts += 1
            log = ChatLog(journal, keys, NoCalls(), waiting)
            try:
                if log.had:
                    await converse(await job.chat(waiting, log.wrap))
            except CallNotBegun:
                ended = False
            else:
                ended = bool(log.had)
            found.replies_used += log.replayed
            if outcome is None or (outcome == "over_budget" and not changed):
                found.unfinished += 1
            elif ended or not changed:
                found.unchanged += 1
            else:
                found.changed += 1
                record = journal.record(waiting.number)
                calls = sum(1 + len(turn.discarded) for turn in record.turns) if record else 0
                found.replies_asked_anew += max(0, calls - log.replayed)
            on_prompt(found)
    finally:
        journal.close()
    return found
