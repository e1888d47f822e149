"""Records for tests, made by a real chat of scripted agents."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from orchestration.deliberation.record import CoTRecord
from orchestration.deliberation.serialize import record_of
from orchestration.prompts.reader import Prompt
from orchestration.runs.call_gate import CallGate
from orchestration.runs.job import ChatTask
from orchestration.runs.run_chat import run_chat
from tests.scripted import cast


@functools.cache
def _made() -> CoTRecord:
    made, _ = cast()
    prompt = Prompt("p0", "How are you?")
    task = ChatTask(made.make_chat(), prompt.text, functools.partial(record_of, made, prompt))
    found, _ = asyncio.run(run_chat(task, CallGate.closed()))
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
