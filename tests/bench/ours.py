"""The one place in which measurements use our own API for runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from orchestration.deliberation.recipe import Cast
from orchestration.prompts.reader import Prompt
from tests.orchestration.run_helpers import cast_at, execute, records


def make_cast(base_url: str) -> Cast:
    """The default cast, as the command line would make it."""
    return cast_at(base_url, max_retries=4, timeout=600)


async def run(folder: Path, cast: Cast, prompts: Iterable[tuple[str, str]], at_once: int) -> None:
    """A whole run.

    Args:
        folder: The run's folder; must not be there.
        cast: Of `make_cast`; its models are closed at the end.
        prompts: Pairs of id and text.
        at_once: Chats at the same time.
    """
    source = (Prompt(prompt_id, text) for prompt_id, text in prompts)
    await execute(folder, cast, source, concurrency=at_once)


def finished(folder: Path) -> list[tuple[str, int]]:
    """Outcome of every prompt that has one, and how many model calls its chat made.

    In the order in which the prompts were taken up.
    """
    return [
        (record.outcome, sum(1 + len(turn.discarded) for turn in record.turns))
        for record in records(folder)
    ]
