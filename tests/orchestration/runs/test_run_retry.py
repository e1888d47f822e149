"""What `retry` promises: prompts once more, and every good reply is used again."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from autogen_core.models import LLMMessage

from agents.models.errors import EndpointOverloaded
from orchestration.journal import FILE_NAME
from orchestration.prompts.reader import Prompt
from orchestration.runs.intake import Source
from policies import InputError
from tests.orchestration.journals import answers
from tests.orchestration.run_helpers import (
    CALLS_PER_CHAT,
    Held,
    execute,
    opened,
    prompts,
    records,
    retry,
    until,
)
from tests.scripted import (
    ScriptedClient,
    accepts,
    agreeable,
    cast,
    draft,
    intents,
    kind_of_turn,
    refines,
    result,
)

GOOD = [intents("To know something."), draft("It is harmless."), *[accepts()] * 3, refines()]
GONE = EndpointOverloaded("It answered 500.", "Wait.")
SORRY = "I'm sorry, but I can't help with that."
CUT_OFF = result('{"thoughts": [', finish_reason="length")
BAD: dict[str, list[Any]] = {
    "refused": [SORRY, SORRY],
    "malformed": ["No JSON.", "Still none."],
    "truncated": [CUT_OFF, CUT_OFF],
}


def sent(*clients: ScriptedClient) -> Counter[str]:
    """Every request that was sent, with its seed, and how often."""
    return Counter(
        repr((arguments["seed"], [(m.type, m.content) for m in messages]))
        for client in clients
        for messages, arguments in zip(client.requests, client.arguments, strict=True)
    )


# Failed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", range(1, CALLS_PER_CHAT))
async def test_a_failed_chat_goes_on_where_it_broke_off(good: int, folder: Path) -> None:
    made, _ = cast([*GOOD[:good], GONE])
    summary = await execute(folder, made, prompts(1))
    assert summary.outcomes == {"failed": 1}

    made, _ = cast(GOOD[good:])
    summary = await retry(folder, made, "failed")
    assert summary.outcomes == {"completed": 1}
    assert summary.replayed == good
    assert summary.calls == CALLS_PER_CHAT
    [record] = records(folder)
    assert record.outcome == "completed"
    assert len(record.turns) == CALLS_PER_CHAT


async def test_a_chat_that_fails_again_keeps_what_it_came_to_further_on(folder: Path) -> None:
    for replies in ([*GOOD[:1], GONE], [*GOOD[1:3], GONE], GOOD[3:]):
        made, client = cast(replies)
        if len(replies) == 2:
            await execute(folder, made, prompts(1))
        else:
            await retry(folder, made, "failed")
        assert client.requests
    [record] = records(folder)
    assert record.outcome == "completed"


# Refused, malformed, truncated -------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(CALLS_PER_CHAT))
@pytest.mark.parametrize("outcome", BAD)
async def test_only_the_turn_that_gave_no_reply_is_asked_anew(
    outcome: str, turn: int, folder: Path
) -> None:
    made, client = cast([*GOOD[:turn], *BAD[outcome]])
    summary = await execute(folder, made, prompts(1))
    assert summary.outcomes == {outcome: 1}

    made, again = cast(GOOD[turn:])
    summary = await retry(folder, made, outcome)
    assert summary.outcomes == {"completed": 1}
    assert summary.replayed == turn
    assert again.requests[0] == client.requests[turn]
    assert max(sent(client, again).values()) == 1, "nothing is sent again as it was"
    # What was paid for and not used is paid for all the same.
    assert summary.calls == turn + 2 + (CALLS_PER_CHAT - turn)
    assert len(answers(folder / FILE_NAME)) == CALLS_PER_CHAT


@pytest.mark.parametrize("outcome", BAD)
async def test_every_further_try_asks_for_something_else(outcome: str, folder: Path) -> None:
    clients = []
    for number in range(4):
        made, client = cast([*([] if number else GOOD[:1]), *BAD[outcome]])
        session = retry(folder, made, outcome) if number else execute(folder, made, prompts(1))
        assert (await session).outcomes == {outcome: 1}
        clients.append(client)
    assert max(sent(*clients).values()) == 1
    made, client = cast(GOOD[1:])
    assert (await retry(folder, made, outcome)).outcomes == {"completed": 1}


async def test_an_earlier_turn_that_was_corrected_is_used_again(folder: Path) -> None:
    made, _ = cast([GOOD[0], "No JSON.", GOOD[1], "No JSON.", "No JSON."])
    await execute(folder, made, prompts(1))
    made, _ = cast(GOOD[2:])
    summary = await retry(folder, made, "malformed")
    assert summary.outcomes == {"completed": 1}
    assert summary.replayed == 3
    [record] = records(folder)
    assert [call.raw for call in record.turns[1].discarded] == ["No JSON."]


# Which prompts -----------------------------------------------------------------------------------


def by_prompt(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    """Goes wrong in the draft, as the prompt says."""
    about = str(messages[1].content)
    if kind_of_turn(messages) == "intents":
        return agreeable(messages, arguments)
    if "Failed" in about:
        return GONE
    return next((bad[0] for name, bad in BAD.items() if name.capitalize() in about), None) or (
        agreeable(messages, arguments)
    )


SOURCE = [Prompt(n, f"{n.capitalize()} please?") for n in ("completed", "failed", *BAD)]


async def test_only_prompts_of_the_named_outcomes_are_taken_up(folder: Path) -> None:
    await execute(folder, cast(by_prompt)[0], iter(SOURCE))
    made, client = cast()
    summary = await retry(folder, made, "refused", "failed")
    assert summary.outcomes == {"completed": 3, "malformed": 1, "truncated": 1}
    about = {str(request[1].content) for request in client.requests}
    assert all("Failed" in text or "Refused" in text for text in about)
    assert (summary.done_before, summary.done, summary.pending) == (3, 2, 0)


async def test_where_there_is_none_of_the_outcome_nothing_happens(folder: Path) -> None:
    await execute(folder, cast()[0], prompts(2))
    made, client = cast()
    summary = await retry(folder, made, "failed", "refused")
    assert client.requests == []
    assert (summary.outcomes, summary.done) == ({"completed": 2}, 0)


async def test_prompts_of_an_earlier_source_are_taken_up_too(folder: Path) -> None:
    await execute(folder, cast(by_prompt)[0], iter(SOURCE[:2]))
    async with opened(folder, cast()[0], Source("another")) as run:
        await run.execute(prompts(3), 1)
    summary = await retry(folder, cast()[0], "failed")
    assert summary.outcomes == {"completed": 5}
    assert (summary.prompts, summary.done, summary.pending) == (5, 1, 0)


async def test_a_source_need_not_have_been_read_to_its_end(folder: Path, no_hang: None) -> None:
    more = threading.Event()

    def slow() -> Iterator[Prompt]:
        yield from SOURCE[:2]
        more.wait(10)

    async with opened(folder, cast(by_prompt)[0]) as run:
        running = asyncio.create_task(run.execute(slow(), 2))
        await until(lambda: run.summary.done == 2)
        run.stop()
        await running
    more.set()
    summary = await retry(folder, cast()[0], "failed")
    assert summary.outcomes == {"completed": 2}
    assert (summary.prompts, summary.done, summary.pending) == (2, 1, 0)


# Meanwhile, and cut off --------------------------------------------------------------------------


async def test_a_record_of_a_prompt_that_is_taken_up_again_is_not_listed_meanwhile(
    folder: Path, no_hang: None
) -> None:
    await execute(folder, cast(by_prompt)[0], iter(SOURCE))
    made, client = cast()
    held = Held(client)
    async with opened(folder, made, None) as run:
        running = asyncio.create_task(run.retry(["refused"], 4))
        await until(lambda: held.calls == 1)
        assert "refused" not in [record.id for record in records(folder)]
        held.let_go()
        await running
    assert len(records(folder)) == len(SOURCE)


@pytest.mark.parametrize("how", ["run", "retry"])
async def test_a_retry_that_was_stopped_is_gone_on_with(
    how: str, folder: Path, no_hang: None
) -> None:
    await execute(folder, cast(by_prompt)[0], iter(SOURCE))
    made, client = cast()
    held = Held(client, lambda messages: kind_of_turn(messages) == "deliberation")
    async with opened(folder, made, None) as run:
        running = asyncio.create_task(run.retry(["failed"], 4))
        await until(lambda: held.calls == 1)
        run.stop()
        held.let_go()
        assert (await running).interrupted
    again, further = cast()
    if how == "run":
        summary = await execute(folder, again, iter(SOURCE))
    else:
        summary = await retry(folder, again, "failed")
    assert summary.outcomes == {"completed": 2, **dict.fromkeys(BAD, 1)}
    assert len(client.requests) + len(further.requests) == CALLS_PER_CHAT - 1
    assert max(sent(client, further).values()) == 1


async def test_a_run_with_other_settings_is_not_retried(folder: Path) -> None:
    await execute(folder, cast(by_prompt)[0], iter(SOURCE))
    before = records(folder)
    made, client = cast(rounds=9)
    with pytest.raises(InputError, match="had other settings") as caught:
        await retry(folder, made, "failed")
    assert "command of that session" in caught.value.remedy
    assert client.requests == []
    assert records(folder) == before
