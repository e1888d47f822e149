"""Takes one chat to its result, whatever interrupts it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from agents.models.errors import (
    CallNotStarted,
    ContextExceeded,
    EndpointAbsent,
    EndpointError,
    EndpointMisconfigured,
    RequestRejected,
)
from agents.turns import TurnMessage
from orchestration.chat import DeliberationChat
from orchestration.runs.call_gate import CallGate
from orchestration.runs.job import ChatTask, ResultT
from orchestration.runs.result import ChatEnd, Interruption
from policies import AidsafeError


async def run_chat(task: ChatTask[ResultT], gate: CallGate) -> tuple[ResultT, EndpointError | None]:
    """Takes a chat to its result; with the endpoint's error, if that made the outcome `failed`.

    Raises:
        EndpointError: It concerns more than this prompt.
        CallNotStarted: The chat was interrupted, and will be resumed later.
    """
    team = task.team
    started = datetime.now(UTC)
    interruption: Interruption | None = None
    failure: EndpointError | None = None
    stop_reason: str | None = None
    try:
        if team is not None:
            stop_reason = (await team.run(task=task.task)).stop_reason
    except EndpointError as error:
        # Both are certain: a probe confirmed it, or there is no server.
        if isinstance(error, EndpointMisconfigured | EndpointAbsent):
            raise
        failure = error
        interruption = ("failed", error.cause)
    except CallNotStarted:
        if gate.limit_reached is None or not _has_turns(team):
            raise
        interruption = ("over_budget", f"{gate.limit_reached}.")
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if current is None or current.cancelling():
            raise
        # The chat was not cancelled: the model's client cancelled its own call. A task group would
        # take that for a request to stop, and lose the prompt without a message.
        interruption = ("failed", "The model's client cancelled its own call.")
    except Exception as error:  # noqa: BLE001 - raised again, unless it costs this prompt alone
        interruption = _unexpected(error, gate)
    try:
        messages = team.messages if team is not None else ()
        return task.result(ChatEnd(messages, stop_reason, started, interruption)), failure
    except Exception as error:  # noqa: BLE001 - as above
        return task.result(ChatEnd((), None, started, _unexpected(error, gate))), failure


def concerns_prompt(failure: EndpointError) -> bool:
    """Whether an endpoint's error is about this prompt, since it accepts others."""
    return isinstance(failure, ContextExceeded | RequestRejected)


def _unexpected(error: Exception, gate: CallGate) -> Interruption:
    # Once others succeeded, one odd reply must not stop a weekend's work.
    if isinstance(error, AidsafeError) or not gate.budget.calls:
        raise error
    return "failed", f"An error inside aidsafe ({type(error).__name__})."


def _has_turns(team: DeliberationChat | None) -> bool:
    return team is not None and any(isinstance(said, TurnMessage) for said in team.messages)
