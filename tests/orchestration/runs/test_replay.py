"""What a chat's replies promise: the same request gets the reply it had, any other is asked for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Self

import pytest
from autogen_core import CancellationToken
from autogen_core.models import AssistantMessage, LLMMessage, SystemMessage, UserMessage

from agents.models.context import StopSignal
from agents.models.errors import CallNotStarted, EndpointOverloaded, UnusableAnswer
from agents.models.model import ChatModel
from agents.models.usage import Usage
from orchestration.journal import Journal
from orchestration.runs.call_gate import CallGate
from orchestration.runs.replay import ChatReplies, RequestKeys
from tests.orchestration.journals import handed_out, named, take_in
from tests.orchestration.run_helpers import until
from tests.scripted import ScriptedClient, result, scripted

FORM = {"type": "json_schema", "json_schema": {"name": "Reply", "schema": {"type": "object"}}}


def said(*texts: str) -> list[LLMMessage]:
    return [SystemMessage(content="Ground rules."), *(user(text) for text in texts)]


def user(text: str) -> LLMMessage:
    return UserMessage(content=text, source="user")


# Keys --------------------------------------------------------------------------------------------


def key(keys: RequestKeys | None = None, **changes: Any) -> bytes:
    model, _ = scripted([])
    if "config" in changes:
        model.config = model.config.model_copy(update=changes.pop("config"))
    request: dict[str, Any] = {
        "prompt_id": "p0",
        "ordinal": 2,
        "model": model,
        "messages": said("a", "b"),
        "response_format": FORM,
        "sampling": (0.7, 99, 0),
        **changes,
    }
    return (keys or RequestKeys()).key(**request)


def test_the_same_request_has_the_same_key_in_every_process() -> None:
    assert key() == key()
    assert len(key()) == 16
    keys = RequestKeys()
    assert key(keys) == key(keys) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_id": "p1"},
        {"ordinal": 3},
        {"config": {"temperature": 0.1}},
        {"config": {"seed": 7}},
        {"config": {"max_tokens": 99}},
        {"config": {"extra": {"top_k": 1}}},
        {"messages": said("a", "c")},
        {"messages": said("a")},
        {"messages": said("ab", "")},
        {"messages": said("a", "b", "")},
        {"messages": [*said("a"), AssistantMessage(content="b", source="agent")]},
        {"messages": said("a", "b\ud83d")},
        {"response_format": {**FORM, "type": "json_object"}},
        {"sampling": (None, 99, 0)},
        {"sampling": (0.7, None, 0)},
        {"sampling": (0.7, 99, 1)},
    ],
    ids=str,
)
def test_whatever_shapes_the_reply_shapes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


def test_no_two_conversations_run_together_into_one() -> None:
    texts = [("a", "b"), ("ab",), ("a", "", "b"), ("UserMessage 1:a", "b"), ("aUserMessage 1:b",)]
    assert len({key(messages=said(*each)) for each in texts}) == len(texts)


def test_a_form_that_takes_the_place_of_another_in_memory_has_its_own_key() -> None:
    keys = RequestKeys()
    assert len({key(keys, response_format={"type": str(n)}) for n in range(50)}) == 50


# Replies -----------------------------------------------------------------------------------------


class Counting:
    """A gate that counts."""

    price = "cheap"

    def __init__(self) -> None:
        self.halt = StopSignal()
        self.begun = self.ended = 0
        self.bills: list[tuple[int, int, int]] = []

    async def begin(self, model: ChatModel, messages: Any, max_tokens: int | None) -> Self:
        self.halt.check()
        self.begun += 1
        self.model = model
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended += 1

    def paid(self, usage: Usage | None, billed: Usage, unusable: int, abandoned: int) -> None:
        self.bills.append((usage.tokens if usage else 0, billed.tokens, abandoned))


async def a_log(journal: Journal, till: Any) -> ChatReplies:
    """The log of the journal's first prompt, taken in if it is not there."""
    [waiting] = await handed_out(await take_in(journal, named("p0")))
    return ChatReplies(journal, RequestKeys(), till, waiting)


async def ask(model: ChatModel, text: str, **more: Any) -> str:
    return (await model.ask(said(text), response_format=FORM, **more)).text


async def test_a_reply_is_asked_for_once_and_given_again_in_a_later_session(
    journal: Journal,
) -> None:
    inner, client = scripted(["one", "two", "three"])
    till = Counting()
    log = await a_log(journal, till)
    model = log.wrap(inner)
    assert (model.name, model.config) == (inner.name, inner.config)
    assert [await ask(model, "a"), await ask(model, "a")] == ["one", "two"]
    assert (log.stored, log.called, log.replayed) == (0, 2, 0)
    assert (till.begun, till.ended, len(till.bills)) == (2, 2, 2)
    assert [row.price for row in journal.spend()] == ["cheap"]

    log = await a_log(journal, till)
    model = log.wrap(inner)
    found = [await ask(model, "a"), await ask(model, "a"), await ask(model, "b")]
    assert found == ["one", "two", "three"]
    assert (log.stored, log.called, log.replayed) == (2, 1, 2)
    assert len(client.requests) == till.begun == 3


async def test_another_request_in_between_does_not_pass_for_what_was_there(
    journal: Journal,
) -> None:
    inner, client = scripted(["one", "two", "three", "four"])
    model = (await a_log(journal, Counting())).wrap(inner)
    await ask(model, "a")
    await ask(model, "b")
    model = (await a_log(journal, Counting())).wrap(inner)
    assert await ask(model, "c") == "three"
    assert await ask(model, "b") == "two", "the same request, at the same place"
    assert await ask(model, "a") == "four", "at another place it is another one"
    assert len(client.requests) == 4


async def test_a_call_without_a_reply_is_over_and_leaves_nothing(journal: Journal) -> None:
    inner, _ = scripted([EndpointOverloaded("It answered 500.", "Wait."), "one"])
    till = Counting()
    log = await a_log(journal, till)
    with pytest.raises(EndpointOverloaded):
        await ask(log.wrap(inner), "a")
    assert (till.begun, till.ended, till.bills, log.called) == (1, 1, [], 0)
    assert journal.spend() == []


async def test_answers_that_could_not_be_used_are_in_the_books_with_a_reply_and_without(
    journal: Journal,
) -> None:
    unusable = Usage(prompt_tokens=50, completion_tokens=5)
    failure = UnusableAnswer("It is no chat completion.", "Check it.")
    failure.billed, failure.unusable, failure.abandoned = unusable, 1, 2
    inner, client = scripted([failure, result("one", prompt=7, completion=1)])
    till = Counting()
    log = await a_log(journal, till)
    with pytest.raises(UnusableAnswer):
        await ask(log.wrap(inner), "a")
    assert till.bills == [(0, 55, 2)]
    answer = client.create

    async def create(*arguments: Any, **options: Any) -> Any:
        found: Any = await answer(*arguments, **options)
        found.billed, found.unusable, found.abandoned = unusable, 1, 1
        return found

    client.create = create  # type: ignore[method-assign]
    assert await ask(log.wrap(inner), "a") == "one"
    assert till.bills[1:] == [(8, 55, 1)]
    (row,) = journal.spend()
    assert (row.calls, row.unusable, row.abandoned) == (3, 2, 3)
    assert (row.prompt_tokens, row.completion_tokens) == (107, 11)


async def test_a_call_that_is_cancelled_while_its_reply_is_written_is_kept(
    journal: Journal,
) -> None:
    inner, client = scripted(["one"])
    log = await a_log(journal, Counting())
    disk = threading.Event()
    slow = asyncio.create_task(journal.write(lambda _: disk.wait(5)))  # the disk is slow
    await asyncio.sleep(0)
    asking = asyncio.create_task(ask(log.wrap(inner), "a"))
    await until(lambda: log.called)
    asking.cancel()
    disk.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await slow
    await journal.write(lambda _: None)
    assert await ask((await a_log(journal, CallGate.closed())).wrap(inner), "a") == "one"
    assert len(client.requests) == 1


async def test_once_halted_what_was_paid_for_is_given_and_nothing_else(journal: Journal) -> None:
    inner, client = scripted(["one"])
    await ask((await a_log(journal, Counting())).wrap(inner), "a")
    till = Counting()
    till.halt.set()
    for made in (till, CallGate.closed()):
        model = (await a_log(journal, made)).wrap(inner)
        assert await ask(model, "a") == "one"
        with pytest.raises(CallNotStarted):
            await ask(model, "b")
    assert len(client.requests) == 1


async def test_what_a_call_sets_reaches_the_model(journal: Journal) -> None:
    inner, client = scripted(["one"])
    token = CancellationToken()
    model = (await a_log(journal, Counting())).wrap(inner)
    await ask(model, "a", temperature=0.1, max_tokens=99, cancellation_token=token, reseed=3)
    arguments = asked(client)
    assert (arguments["temperature"], arguments["max_tokens"]) == (0.1, 99)
    assert arguments["seed"] == (inner.config.seed or 0) + 3
    assert arguments["response_format"] == FORM


def asked(client: ScriptedClient) -> dict[str, Any]:
    [arguments] = client.arguments
    return arguments
