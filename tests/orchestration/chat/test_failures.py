"""Whatever breaks a chat off: the caller learns of it, and nothing of the chat is lost or doubled.

After each kind of break, at each place of a chat: reset and run again, it is as new; run on without
a reset, it ends as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress

import pytest
from autogen_agentchat.base import Response, TaskResult
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import BaseAgentEvent, BaseChatMessage
from autogen_core import CancellationToken

from orchestration.chat.deliberation_chat import DeliberationChat
from tests.orchestration.chat.speakers import (
    TASK,
    Speaker,
    Stage,
    Touchy,
    hang,
    look,
    looks,
    said,
    stream_of,
    throw,
)

pytestmark = pytest.mark.usefixtures("no_hang")


class OurOwnError(Exception):
    """Not an exception that anybody else could raise."""


async def raises_an_error(stage: Stage, speaker: Speaker) -> None:
    error = OurOwnError("no luck")
    speaker.fault = throw(error)
    with pytest.raises(OurOwnError) as caught:
        await stage.chat.run(task=TASK)
    assert caught.value is error
    assert caught.value.__cause__ is None


async def raises_cancelled_error(stage: Stage, speaker: Speaker) -> None:
    error = asyncio.CancelledError("by nobody")
    speaker.fault = throw(error)
    with pytest.raises(asyncio.CancelledError) as caught:
        await stage.chat.run(task=TASK)
    assert caught.value is error


async def raises_what_is_no_exception(stage: Stage, speaker: Speaker) -> None:
    error = GeneratorExit()
    speaker.fault = throw(error)
    with pytest.raises(GeneratorExit):
        await stage.chat.run(task=TASK)


async def gives_no_response(stage: Stage, speaker: Speaker) -> None:
    speaker.silent = True
    with pytest.raises(RuntimeError, match=f"^{speaker.name} ended its turn without a response"):
        await stage.chat.run(task=TASK)


async def the_condition_raises(stage: Stage, speaker: Speaker) -> None:
    stage.condition.breaks_at = speaker.name
    with pytest.raises(RuntimeError) as caught:
        await stage.chat.run(task=TASK)
    assert caught.value is stage.condition.error


async def the_condition_raises_before_it_has_counted(stage: Stage, speaker: Speaker) -> None:
    stage.condition.counts_first = False
    await the_condition_raises(stage, speaker)


async def the_condition_is_cancelled(stage: Stage, speaker: Speaker) -> None:
    stage.condition.breaks_at = speaker.name
    stage.condition.error = asyncio.CancelledError()
    with pytest.raises(asyncio.CancelledError):
        await stage.chat.run(task=TASK)


async def the_callers_task_is_cancelled(stage: Stage, speaker: Speaker) -> None:
    speaker.fault = hang
    running = asyncio.create_task(stage.chat.run(task=TASK))
    await speaker.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def the_callers_task_is_cancelled_despite_a_token(stage: Stage, speaker: Speaker) -> None:
    speaker.fault = hang
    token = CancellationToken()
    running = asyncio.create_task(stage.chat.run(task=TASK, cancellation_token=token))
    await speaker.started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def the_token_is_cancelled(stage: Stage, speaker: Speaker) -> None:
    speaker.fault = hang
    token = CancellationToken()
    running = asyncio.create_task(stage.chat.run(task=TASK, cancellation_token=token))
    await speaker.started.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def the_token_is_cancelled_by_the_speaker(stage: Stage, speaker: Speaker) -> None:
    async def fault(token: CancellationToken) -> None:
        token.cancel()
        await asyncio.Event().wait()

    speaker.fault = fault
    with pytest.raises(asyncio.CancelledError):
        await stage.chat.run(task=TASK, cancellation_token=CancellationToken())


async def the_token_is_cancelled_by_another_thread(stage: Stage, speaker: Speaker) -> None:
    async def fault(token: CancellationToken) -> None:
        thread = threading.Thread(target=token.cancel)
        thread.start()
        await asyncio.Event().wait()

    speaker.fault = fault
    with pytest.raises(asyncio.CancelledError):
        await stage.chat.run(task=TASK, cancellation_token=CancellationToken())


async def it_times_out(stage: Stage, speaker: Speaker) -> None:
    speaker.fault = hang
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(stage.chat.run(task=TASK), timeout=0.01)


async def the_consumer_closes_the_stream(stage: Stage, speaker: Speaker) -> None:
    async with aclosing(stage.chat.run_stream(task=TASK)) as stream:
        async for item in stream:
            if getattr(item, "source", "") == speaker.name:
                break
    assert len(speaker.asked) == speaker.closed == 1


async def the_consumer_forgets_the_stream(stage: Stage, speaker: Speaker) -> None:
    async for item in stage.chat.run_stream(task=TASK):
        if getattr(item, "source", "") == speaker.name:
            break
    for _ in range(5):  # the loop closes what nobody holds any more
        await asyncio.sleep(0)
    assert len(speaker.asked) == speaker.closed == 1


Break = Callable[[Stage, Speaker], Awaitable[None]]

IN_A_TURN: Sequence[Break] = (
    raises_an_error,
    raises_cancelled_error,
    raises_what_is_no_exception,
    gives_no_response,
    the_callers_task_is_cancelled,
    the_callers_task_is_cancelled_despite_a_token,
    the_token_is_cancelled,
    the_token_is_cancelled_by_the_speaker,
    the_token_is_cancelled_by_another_thread,
    it_times_out,
    the_consumer_closes_the_stream,
    the_consumer_forgets_the_stream,
)
IN_THE_CONDITION: Sequence[Break] = (
    the_condition_raises,
    the_condition_raises_before_it_has_counted,
    the_condition_is_cancelled,
)
PLACES = {"opening": "o", "first": "a", "middle": "b", "last": "c", "closing": "z"}

breaks_and_places = pytest.mark.parametrize(
    ("breaks", "place"),
    [
        *((breaks, place) for breaks in IN_A_TURN for place in PLACES),
        *((breaks, place) for breaks in IN_THE_CONDITION for place in PLACES if place != "closing"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)


async def whole() -> tuple[Stage, TaskResult]:
    """A chat that nothing breaks off."""
    stage = Stage()
    result = await stage.chat.run(task=TASK)
    assert said(result.messages) == ["user", "o", "a", "b", "c", "a", "b", "c", "z"]
    return stage, result


@breaks_and_places
async def test_after_a_reset_it_is_as_new(breaks: Break, place: str) -> None:
    stage = Stage()
    await breaks(stage, stage.agents[PLACES[place]])
    await stage.chat.reset()
    assert stage.chat.messages == ()
    _, expected = await whole()
    assert look(await stage.chat.run(task=TASK)) == look(expected)


@breaks_and_places
async def test_without_a_reset_it_goes_on_as_if_nothing_had_happened(
    breaks: Break, place: str
) -> None:
    stage = Stage()
    await breaks(stage, stage.agents[PLACES[place]])
    before = len(stage.chat.messages)
    result = await stage.chat.run()
    undisturbed, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)
    assert looks(result.messages) == looks(expected.messages)[before:]
    assert result.stop_reason == expected.stop_reason
    assert stage.memories() == undisturbed.memories()


@pytest.mark.parametrize("place", PLACES)
async def test_who_failed_is_asked_the_same_again(place: str) -> None:
    stage = Stage()
    speaker = stage.agents[PLACES[place]]
    await raises_an_error(stage, speaker)
    await stage.chat.run()
    assert speaker.asked[0] == speaker.asked[1]


@pytest.mark.parametrize("breaks", [*IN_A_TURN, *IN_THE_CONDITION], ids=lambda f: f.__name__)
async def test_what_was_said_before_the_break_is_kept(breaks: Break) -> None:
    stage = Stage()
    await breaks(stage, stage.agents["b"])
    kept = ["user", "o", "a"] + (["b"] if breaks in IN_THE_CONDITION else [])
    assert said(stage.chat.messages) == kept


@pytest.mark.parametrize("place", range(18))
async def test_a_stream_may_be_closed_at_any_item(place: int) -> None:
    stage = Stage()
    async with aclosing(stage.chat.run_stream(task=TASK)) as stream:
        for _ in range(place + 1):
            item = await anext(stream)
    assert isinstance(item, TaskResult) is (place == 17)
    if place < 17:
        await stage.chat.run()
    undisturbed, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)
    assert stage.memories() == undisturbed.memories()


async def test_every_turn_of_a_long_chat_may_fail_once() -> None:
    stage = Stage()
    task: str | None = TASK
    for name in ("o", "a", "b", "c", "a", "b", "c", "z"):
        stage.agents[name].fault = throw(OurOwnError())
        with pytest.raises(OurOwnError):
            await stage.chat.run(task=task)
        task = None
    await stage.chat.run()
    undisturbed, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)
    assert stage.memories() == undisturbed.memories()


async def test_a_break_in_one_of_two_conditions_does_not_pass_for_an_end() -> None:
    touchy = Touchy(MaxMessageTermination(9))
    condition = MaxMessageTermination(3) | touchy
    chat = DeliberationChat([Speaker("a"), Speaker("b")], termination_condition=condition)
    touchy.breaks_at = "b"
    with pytest.raises(RuntimeError, match="the condition broke"):
        await chat.run(task=TASK)
    assert condition.terminated
    result = await chat.run()
    assert str(result.stop_reason).startswith("Maximum number of messages 3 reached")
    assert said(chat.messages) == ["user", "a", "b"]


async def test_an_error_after_the_response_does_not_take_it_back() -> None:
    class Clumsy(Speaker):
        async def on_messages_stream(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
            async for item in super().on_messages_stream(messages, cancellation_token):
                yield item
            if self.turns == 1:
                raise OurOwnError

    clumsy, other = Clumsy("a"), Speaker("b")
    chat = DeliberationChat([clumsy, other], max_turns=3)
    with pytest.raises(OurOwnError):
        await chat.run(task=TASK)
    await chat.run()
    assert said(chat.messages) == ["user", "a", "b", "a"]
    assert [len(news) for news in clumsy.asked] == [1, 1]


async def test_two_responses_in_a_turn_are_an_error() -> None:
    class Talkative(Speaker):
        async def on_messages_stream(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
            for text in ("one", "two"):
                yield Response(chat_message=self.message(text))

    chat = DeliberationChat([Talkative("a")], max_turns=2)
    with pytest.raises(RuntimeError, match="a gave two responses"):
        await chat.run(task=TASK)
    assert [message.to_text() for message in chat.messages if said([message]) == ["a"]] == ["one"]


async def test_a_token_stops_an_agent_that_swallows_its_cancellation() -> None:
    async def fault(_: CancellationToken) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    stage = Stage()
    stage.agents["b"].fault = fault
    token = CancellationToken()
    running = asyncio.create_task(stage.chat.run(task=TASK, cancellation_token=token))
    await stage.agents["b"].started.wait()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert said(stage.chat.messages) == ["user", "o", "a", "b"]
    await stage.chat.run()
    _, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)


async def test_a_cancelled_token_leaves_the_callers_task_unmarked() -> None:
    stage = Stage()
    token = CancellationToken()

    async def cancel(_: CancellationToken) -> None:
        asyncio.get_running_loop().call_soon(token.cancel)
        await asyncio.Event().wait()

    stage.agents["a"].fault = cancel
    with pytest.raises(asyncio.CancelledError):
        await stage.chat.run(task=TASK, cancellation_token=token)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_nobody_speaks_under_a_token_that_is_cancelled_already() -> None:
    stage = Stage()
    token = CancellationToken()
    token.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stage.chat.run(task=TASK, cancellation_token=token)
    assert stage.agents["o"].asked == []
    await stage.chat.run()
    _, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)


async def test_a_token_that_is_cancelled_later_is_without_effect() -> None:
    stage = Stage()
    token = CancellationToken()
    await stage.chat.run(task=TASK, cancellation_token=token)
    token.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    _, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)


async def test_an_agent_may_hold_a_timeout_open_from_one_item_to_the_next() -> None:
    class Careful(Speaker):
        async def on_messages_stream(
            self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
        ) -> AsyncGenerator[BaseAgentEvent | BaseChatMessage | Response, None]:
            async with asyncio.timeout(0.01):
                async for item in super().on_messages_stream(messages, cancellation_token):
                    yield item

    careful = Careful("a", thinks=True)
    careful.fault = hang
    chat = DeliberationChat([careful], max_turns=1)
    with pytest.raises(TimeoutError):
        await chat.run(task=TASK, cancellation_token=CancellationToken())
    await chat.run()
    assert said(chat.messages) == ["user", "a"]


async def test_a_running_chat_is_left_alone() -> None:
    stage = Stage()
    stage.agents["b"].fault = hang
    running = asyncio.create_task(stage.chat.run(task=TASK))
    await stage.agents["b"].started.wait()
    with pytest.raises(ValueError, match="running already"):
        await stage.chat.run(task=TASK)
    with pytest.raises(RuntimeError, match="must stop before it can be reset"):
        await stage.chat.reset()
    with pytest.raises(RuntimeError, match="must stop before its state can be saved"):
        await stage.chat.save_state()
    with pytest.raises(RuntimeError, match="must stop before its state can be loaded"):
        await stage.chat.load_state({})
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await stage.chat.run()
    _, expected = await whole()
    assert looks(stage.chat.messages) == looks(expected.messages)


async def test_a_stream_that_is_never_read_changes_nothing() -> None:
    stage = Stage()
    stream = stage.chat.run_stream(task=TASK)
    _, expected = await whole()
    assert looks(await stream_of(stage.chat, task=TASK))[-1] == look(expected)
    await stream.aclose()
