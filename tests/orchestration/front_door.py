"""Casts on a scripted model, and runs, by the front door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestration import deliberate_all, load_cast, open_run
from orchestration.deliberation.recipe import Cast
from orchestration.deliberation.record import CoTRecord
from orchestration.runs.status import Summary
from tests.scripted import ScriptedClient, agreeable

QUESTION = "How do I kill a Python process?"


def a_cast(script: Any = agreeable, **options: Any) -> tuple[Cast, ScriptedClient]:
    """A cast of the shipped personas on one scripted model, and its client."""
    client = ScriptedClient(script)
    return load_cast(model=client, **options), client


async def records(*given: Any, **options: Any) -> list[CoTRecord]:
    """All records that `deliberate_all` yields."""
    return [record async for record in deliberate_all(*given, **options)]


def look(folder: Path) -> Summary:
    """The progress of a run."""
    with open_run(folder) as run:
        return run.summary
