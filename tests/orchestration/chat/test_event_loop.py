"""Very many chats at once share the event loop out, instead of holding it among themselves."""

from __future__ import annotations

import asyncio

import pytest
from autogen_agentchat.messages import BaseChatMessage

from orchestration.chat import event_loop as event_loop
from orchestration.chat.deliberation_chat import DeliberationChat
from tests.orchestration.chat.speakers import TASK, Speaker, said

pytestmark = pytest.mark.usefixtures("no_hang")

CHATS = 50


class Rounds:
    """Counts the rounds of the running loop."""

    def __init__(self) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._count()

    def _count(self) -> None:
        self.number += 1
        self._handle = self._loop.call_soon(self._count)

    def stop(self) -> None:
        self._handle.cancel()


async def rounds_of_turns() -> list[int]:
    """The round of the loop in which each turn of many chats begins."""
    rounds = Rounds()
    turns: list[int] = []

    class Counting(Speaker):
        def message(self, text: str) -> BaseChatMessage:
            turns.append(rounds.number)
            return super().message(text)

    async def chat() -> None:
        agents = [Counting("a"), Counting("b")]
        done = await DeliberationChat(agents, max_turns=4).run(task=TASK)
        assert said(done.messages) == ["user", "a", "b", "a", "b"]

    await asyncio.gather(*(chat() for _ in range(CHATS)))
    rounds.stop()
    assert len(turns) == 4 * CHATS
    return turns


async def test_the_loop_comes_round_between_turns_when_it_was_held_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_loop, "MAX_SECONDS", -1.0)  # any time is too long
    turns = await rounds_of_turns()
    assert len(set(turns)) == len(turns)


async def test_turns_are_not_held_up_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "MAX_SECONDS", 1_000.0)
    assert len(set(await rounds_of_turns())) == 1


async def test_a_chat_that_is_cancelled_while_it_waits_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_loop, "MAX_SECONDS", -1.0)
    first, second = (DeliberationChat([Speaker("a")], max_turns=1) for _ in range(2))
    tasks = [asyncio.create_task(chat.run(task=TASK)) for chat in (first, second)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert said(second.messages) == ["user"]
    await second.run()
    assert said(second.messages) == said(first.messages) == ["user", "a"]
