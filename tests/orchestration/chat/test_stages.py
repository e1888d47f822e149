"""Opening, circle, closing: who speaks when, who hears what, and how a chat is kept and moved."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
import yaml
from autogen_agentchat.agents import AssistantAgent
from autogen_agentchat.base import TaskResult, Team
from autogen_agentchat.conditions import MaxMessageTermination, TextMentionTermination
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.ui import Console
from autogen_ext.models.replay import ReplayChatCompletionClient

from agents.models.config import ModelConfig
from agents.models.model import Model
from agents.turns import TurnOutcome
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.deliberation.recipe import Cast, load_recipe
from orchestration.deliberation.termination import ConsensusTermination, RoundBudgetTermination
from policies import load_policy_set
from tests.orchestration.chat.speakers import (
    TASK,
    Speaker,
    Stage,
    Touchy,
    Voter,
    look,
    looks,
    said,
    stream_of,
    throw,
)
from tests.scripted import accepts, agreeable, cast, draft, intents, refines

pytestmark = pytest.mark.usefixtures("no_hang")


# Order


async def test_the_opening_speaks_once_then_the_circle_in_turns_then_the_closing() -> None:
    stage = Stage()
    done = await stage.chat.run(task=TASK)
    assert said(done.messages) == ["user", "o", "a", "b", "c", "a", "b", "c", "z"]
    assert done.stop_reason == "round_budget"


async def test_everybody_hears_everything_once_and_nobody_hears_itself() -> None:
    stage = Stage()
    done = await stage.chat.run(task=TASK)
    words = [f"{m.source}: {m.to_text()}" for m in done.messages if said([m])]
    assert stage.agents["z"].asked == [words[:8]]
    assert stage.agents["a"].asked == [words[:2], words[3:5]]
    assert stage.agents["c"].asked == [words[:4], words[5:7]]


async def test_a_further_run_does_not_repeat_the_opening() -> None:
    stage = Stage()
    await stage.chat.run(task=TASK)
    done = await stage.chat.run(task="And then?")
    assert said(done.messages) == ["user", "a", "b", "c", "a", "b", "c", "z"]


@pytest.mark.parametrize(
    ("condition", "speakers"),
    [
        (TextMentionTermination("Python"), ["user", "o", "p", "z"]),  # on the task
        (MaxMessageTermination(2), ["user", "o", "p", "z"]),  # on the first of the opening
        (MaxMessageTermination(3), ["user", "o", "p", "z"]),  # on the last of the opening
        (MaxMessageTermination(4), ["user", "o", "p", "a", "z"]),
    ],
)
async def test_a_condition_that_fires_early_skips_the_circle_but_not_the_closing(
    condition: Any, speakers: list[str]
) -> None:
    opening, closing = [Speaker("o"), Speaker("p")], [Speaker("z")]
    chat = DeliberationChat(
        [Speaker("a")], opening=opening, closing=closing, termination_condition=condition
    )
    done = await chat.run(task=TASK)
    assert said(done.messages) == speakers
    assert done.stop_reason
    assert not condition.terminated


async def test_max_turns_counts_the_circle_alone() -> None:
    chat = DeliberationChat(
        [Speaker("a"), Speaker("b")], opening=[Speaker("o")], closing=[Speaker("z")], max_turns=3
    )
    done = await chat.run(task=TASK)
    assert said(done.messages) == ["user", "o", "a", "b", "a", "z"]
    assert done.stop_reason == "Maximum number of turns 3 reached."


async def test_a_chat_without_a_circle_ends_by_itself() -> None:
    chat = DeliberationChat([], opening=[Speaker("o")], closing=[Speaker("z")])
    assert said((await chat.run(task=TASK)).messages) == ["user", "o", "z"]


@pytest.mark.parametrize("outcome", ["refused", "malformed", "truncated"])
@pytest.mark.parametrize("place", ["opening", "circle", "closing"])
async def test_a_turn_without_a_reply_ends_the_chat(outcome: TurnOutcome, place: str) -> None:
    names = {"opening": "o", "circle": "a", "closing": "y"}
    team = {name: Voter(name, "accepts") for name in ("o", "a", "b", "y", "z")}
    team[names[place]] = Voter(names[place], outcome)
    chat = DeliberationChat(
        [team["a"], team["b"]],
        opening=[team["o"]],
        closing=[team["y"], team["z"]],
        termination_condition=RoundBudgetTermination(["a", "b"], 1),
    )
    done = await chat.run(task=TASK)
    whole = ["user", "o", "a", "b", "y", "z"]
    assert said(done.messages) == whole[: whole.index(names[place]) + 1]
    assert done.stop_reason == outcome


async def test_our_own_agents_play_a_whole_chat() -> None:
    makes, _ = cast()
    done = await makes.make_chat().run(task=TASK)
    assert said(done.messages)[1:] == [
        "intent_analyst",
        "drafter",
        "policy_auditor",
        "helpfulness_advocate",
        "risk_analyst",
        "refiner",
    ]
    assert done.stop_reason == "consensus"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"circle": []}, "at least one agent"),
        ({"circle": [Speaker("a"), Speaker("a")], "max_turns": 1}, "names .* unique"),
        (
            {"circle": [Speaker("a")], "closing": [Speaker("a")], "max_turns": 1},
            "names .* unique",
        ),
        ({"circle": [Speaker("a")]}, "a circle needs a termination condition or max_turns"),
        ({"circle": [Speaker("a")], "max_turns": 0}, r"max_turns must be >= 1 \(got 0\)"),
        ({"circle": [Stage().chat], "max_turns": 1}, "not teams"),
    ],
)
def test_a_chat_that_cannot_be_is_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        DeliberationChat(**options)


# Guests


def guest(*words: str) -> AssistantAgent:
    return AssistantAgent("guest", ReplayChatCompletionClient(list(words)))


async def test_a_guest_takes_part_without_a_vote_and_is_heard() -> None:
    makes, client = cast()
    ours = makes.make_chat()
    names = [agent.name for agent in ours._circle]
    chat = DeliberationChat(
        [guest("CONSENSUS. I accept, verdict accept.", "A second word."), *ours._circle],
        opening=ours._opening,
        closing=ours._closing,
        termination_condition=ConsensusTermination(names)
        | RoundBudgetTermination(["guest", *names], 3),
    )
    done = await chat.run(task=TASK)
    assert said(done.messages)[3:] == ["guest", *names, "refiner"]
    assert done.stop_reason == "consensus"
    first_after_the_guest = client.requests[2]
    assert "CONSENSUS. I accept, verdict accept." in str(first_after_the_guest[-1].content)
    assert "CONSENSUS" not in "".join(str(m.content) for m in client.requests[1])


async def test_a_guest_understands_our_agents() -> None:
    makes, _ = cast()
    ours = makes.make_chat()
    listener = Speaker("listener")
    chat = DeliberationChat([listener], opening=ours._opening, max_turns=1)
    await chat.run(task=TASK)
    assert any("It is harmless." in words for words in listener.asked[0])


async def test_a_circle_of_guests_alone_reaches_no_consensus() -> None:
    chat = DeliberationChat(
        [guest("I accept.", "I accept.")],
        termination_condition=ConsensusTermination(["guest"])
        | RoundBudgetTermination(["guest"], 2),
    )
    assert (await chat.run(task=TASK)).stop_reason == "round_budget"


# AutoGen's console


async def test_autogens_console_shows_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    makes, _ = cast()
    shown = await Console(makes.make_chat().run_stream(task=TASK))
    assert isinstance(shown, TaskResult)
    printed = capsys.readouterr().out
    assert "---------- TurnMessage (drafter) ----------" in printed
    assert "It is harmless." in printed


# State


@pytest.mark.parametrize("place", ["o", "a", "b", "c", "z"])
async def test_a_chat_that_broke_off_goes_on_elsewhere(place: str) -> None:
    stage = Stage()
    stage.agents[place].fault = throw(OSError("the line is dead"))
    with pytest.raises(OSError, match="the line is dead"):
        await stage.chat.run(task=TASK)
    state = json.loads(json.dumps(await stage.chat.save_state()))

    elsewhere, undisturbed = Stage(), Stage()
    await elsewhere.chat.load_state(state)
    done = await elsewhere.chat.run()
    expected = await undisturbed.chat.run(task=TASK)
    assert looks(elsewhere.chat.messages) == looks(expected.messages)
    assert done.stop_reason == expected.stop_reason
    assert elsewhere.memories() == undisturbed.memories()


async def test_a_chat_of_our_own_agents_goes_on_elsewhere() -> None:
    calls = 0

    def breaks_off(messages: Any, arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return OSError("the line is dead") if calls == 4 else agreeable(messages, arguments)

    here, _ = cast(breaks_off)
    chat = here.make_chat()
    with pytest.raises(OSError, match="the line is dead"):
        await chat.run(task=TASK)
    state = json.loads(json.dumps(await chat.save_state()))

    there, client = cast()
    elsewhere = there.make_chat()
    await elsewhere.load_state(state)
    done = await elsewhere.run()
    undisturbed, _ = cast()
    expected = await undisturbed.make_chat().run(task=TASK)
    assert looks(elsewhere.messages) == looks(expected.messages)
    assert look(done)[2] == "consensus"
    assert len(client.requests) == 3


async def test_a_state_holds_every_message_once_however_many_have_not_heard_it() -> None:
    stage = Stage()
    stage.agents["o"].fault = throw(OSError("the line is dead"))
    with pytest.raises(OSError, match="the line is dead"):
        await stage.chat.run(task=TASK)
    assert json.dumps(await stage.chat.save_state()).count(TASK) == 1


async def test_a_state_may_be_saved_again_before_the_chat_goes_on() -> None:
    stage, between, elsewhere = Stage(), Stage(), Stage()
    stage.agents["b"].fault = throw(OSError())
    with pytest.raises(OSError):
        await stage.chat.run(task=TASK)
    state = await stage.chat.save_state()
    await between.chat.load_state(state)
    assert await between.chat.save_state() == state
    await elsewhere.chat.load_state(await between.chat.save_state())
    done = await elsewhere.chat.run()
    assert said(done.messages) == ["b", "c", "a", "b", "c", "z"]


async def test_a_state_from_a_larger_budget_ends_at_once_under_a_smaller_one() -> None:
    def chat(rounds: int) -> DeliberationChat:
        condition = RoundBudgetTermination(["a"], rounds)
        return DeliberationChat(
            [Speaker("a")], closing=[Speaker("z")], termination_condition=condition
        )

    large = chat(9)
    async with aclosing(large.run_stream(task=TASK)) as stream:
        for _ in range(5):
            await anext(stream)
    small = chat(2)
    await small.load_state(await large.save_state())
    done = await small.run()
    assert (said(done.messages), done.stop_reason) == (["z"], "round_budget")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ({"type": "RoundRobinManagerState"}, "not the state of a DeliberationChat"),
        ({"version": 2}, "not the state of a DeliberationChat"),
        ({"agents": {"x": {}}}, "a chat of x, and here are o, a, b, c, z"),
        ({"thread": [{"type": "Nonsense"}]}, "Unknown message type: Nonsense"),
    ],
)
async def test_a_foreign_state_is_refused_and_changes_nothing(
    spoil: dict[str, Any], problem: str
) -> None:
    stage = Stage()
    await stage.chat.run(task=TASK)
    state = await stage.chat.save_state()
    with pytest.raises(ValueError, match=problem):
        await stage.chat.load_state({**state, **spoil})
    assert await stage.chat.save_state() == state


async def test_a_message_that_could_not_be_read_back_is_not_saved() -> None:
    class Whisper(TextMessage):
        pass

    stage = Stage()
    await stage.chat.run(task=Whisper(content=TASK, source="user"))
    with pytest.raises(ValueError, match=r"a message of user cannot be saved.*Whisper"):
        await stage.chat.save_state()


# Components


async def test_a_chat_of_our_own_agents_goes_through_yaml_and_runs() -> None:
    # One reply that is all four kinds at once, since every agent is read with a client of its own.
    reply = {**intents("To know."), **accepts(), **draft("So help."), **refines()}
    reply["response"] = "Like this."
    replies = ReplayChatCompletionClient([json.dumps(reply)])
    component = replies.dump_component().model_dump(mode="json")
    model = Model("default", ModelConfig(component=component))
    makes = Cast(load_recipe("default"), load_policy_set("aidsafe"), {"default": model})
    chat = makes.make_chat()

    written = yaml.safe_dump(chat.dump_component().model_dump(mode="json"))
    read = Team.load_component(yaml.safe_load(written))
    assert isinstance(read, DeliberationChat)
    assert read.dump_component() == chat.dump_component()
    assert (read.name, read.description) == (chat.name, chat.description)
    done = await read.run(task=TASK)
    assert len(done.messages) == 7
    assert done.stop_reason == "consensus"


async def test_a_chat_that_was_read_from_yaml_runs() -> None:
    chat = DeliberationChat(
        [Speaker("a", thinks=True), Speaker("b", streams=True)],
        opening=[Speaker("o")],
        closing=[Speaker("z")],
        termination_condition=RoundBudgetTermination(["a", "b"], 2) | MaxMessageTermination(9),
        max_turns=7,
        name="talk",
        description="They talk.",
    )
    written = yaml.safe_dump(chat.dump_component().model_dump(mode="json"))
    read = Team.load_component(yaml.safe_load(written))
    assert looks(await stream_of(read, task=TASK)) == looks(await stream_of(chat, task=TASK))


def test_what_cannot_be_dumped_says_so() -> None:
    chat = DeliberationChat([Speaker("a")], termination_condition=Touchy(MaxMessageTermination(2)))
    with pytest.raises(NotImplementedError):
        chat.dump_component()


# Pausing


async def test_pause_and_resume_reach_every_agent() -> None:
    told: list[str] = []

    class Listening(Speaker):
        async def on_pause(self, cancellation_token: Any) -> None:
            told.append(f"{self.name} pauses")

        async def on_resume(self, cancellation_token: Any) -> None:
            told.append(f"{self.name} resumes")

    chat = DeliberationChat([Listening("a")], closing=[Listening("z")], max_turns=1)
    await chat.pause()
    await chat.resume()
    assert told == ["a pauses", "z pauses", "a resumes", "z resumes"]
