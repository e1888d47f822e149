"""Records for tests, made by a real chat of scripted agents."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from orchestration.prompts import Prompt
from orchestration.record import CoTRecord
from orchestration.runs.job import Deliberations
from orchestration.runs.run import converse
from tests.scripted import cast


@functools.cache
def _made() -> CoTRecord:
    made, _ = cast()
    found, _ = asyncio.run(converse(Deliberations(made).about(Prompt("p0", "How are you?"))))
    assert isinstance(found, CoTRecord)
    return found


def record(prompt_id: str = "p0", **changes: Any) -> CoTRecord:
    """A completed record, with changes."""
    return _made().model_copy(update={"id": prompt_id, **changes}, deep=True)


def failed(prompt_id: str = "p0") -> CoTRecord:
    """A record of a chat that broke off."""
    return record(
        prompt_id,
        outcome="failed",
        problem="The endpoint gave out.",
        stop_reason="failed",
        thoughts=[],
        response=None,
    )
