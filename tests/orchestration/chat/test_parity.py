"""A circle alone says what AutoGen's own `RoundRobinGroupChat` says, to the last stream item."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from autogen_agentchat.base import TaskResult, Team, TerminationCondition
from autogen_agentchat.conditions import (
    ExternalTermination,
    MaxMessageTermination,
    SourceMatchTermination,
    TextMentionTermination,
)
from autogen_agentchat.messages import TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat

from agents.deliberation.agents import Deliberator
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.deliberation.termination import (
    ConsensusTermination,
    RoundBudgetTermination,
    TokenBudgetTermination,
)
from tests.orchestration.chat.speakers import TASK, Speaker, Voter, look, looks, stream_of
from tests.scripted import accepts, briefing, persona, revises, scripted, thought

NAMES = ("a", "b", "c")

Agents = Callable[[], Sequence[Any]]
Conditions = Callable[[], TerminationCondition | None]
Step = Callable[[Team, TerminationCondition | None], Awaitable[list[Any]]]


pytestmark = pytest.mark.usefixtures("no_hang")


def run(**options: Any) -> Step:
    async def step(team: Team, _: TerminationCondition | None) -> list[Any]:
        return await stream_of(team, **options)

    return step


async def reset(team: Team, _: TerminationCondition | None) -> list[Any]:
    await team.reset()
    return []


async def request_end(_: Team, condition: TerminationCondition | None) -> list[Any]:
    assert isinstance(condition, ExternalTermination)
    condition.set()
    return []


async def end(team: Team, condition: TerminationCondition | None) -> list[Any]:
    await request_end(team, condition)
    assert condition is not None
    await condition([])
    return []


def three() -> Sequence[Speaker]:
    return [Speaker(name) for name in NAMES]


def thoughtful() -> Sequence[Speaker]:
    return [Speaker("a", thinks=True), Speaker("b", streams=True), Speaker("c", True, True)]


def agreeing() -> Sequence[Voter]:
    return [
        Voter("a", "revises", "accepts"),
        Voter("b", "neither", "accepts"),
        Voter("c", "accepts"),
    ]


def deliberators() -> Sequence[Deliberator]:
    """Our own agents: `a` adds a thought, then all accept."""
    replies = {"a": [revises(add=[thought("It helps.", "RH1")]), accepts()]}
    return [
        Deliberator(
            persona(name), briefing(), [scripted(replies.get(name, [accepts(), accepts()]))[0]]
        )
        for name in NAMES
    ]


def messages(*texts: str) -> list[TextMessage]:
    return [TextMessage(content=text, source="user") for text in texts]


@dataclass(frozen=True)
class Case:
    """What both teams are put through."""

    condition: Conditions
    agents: Agents = three
    max_turns: int | None = None
    steps: Sequence[Step] = field(default_factory=lambda: [run(task=TASK)])


CASES = {
    "a number of messages": Case(lambda: MaxMessageTermination(6)),
    "inner events count": Case(
        lambda: MaxMessageTermination(6, include_agent_event=True), thoughtful
    ),
    "a text is mentioned": Case(
        lambda: TextMentionTermination("done"),
        lambda: [Speaker("a"), Speaker("b", says=["not yet", "done"])],
    ),
    "a source has spoken": Case(lambda: SourceMatchTermination(["b"])),
    "turns alone": Case(lambda: None, max_turns=5),
    "turns before the condition": Case(lambda: MaxMessageTermination(9), max_turns=2),
    "the condition before the turns": Case(lambda: MaxMessageTermination(3), max_turns=5),
    "condition and turns at once": Case(lambda: MaxMessageTermination(4), max_turns=3),
    "consensus": Case(lambda: ConsensusTermination(NAMES), agreeing),
    "consensus of a quorum": Case(lambda: ConsensusTermination(NAMES, 2), agreeing),
    "consensus of our own agents": Case(lambda: ConsensusTermination(NAMES), deliberators),
    "rounds": Case(lambda: RoundBudgetTermination(NAMES, 2)),
    "tokens": Case(lambda: TokenBudgetTermination(22), agreeing),
    "ours or theirs": Case(
        lambda: ConsensusTermination(NAMES) | MaxMessageTermination(4), agreeing
    ),
    "two at once": Case(
        lambda: RoundBudgetTermination(NAMES, 2) | MaxMessageTermination(7), agreeing
    ),
    "ours and theirs": Case(
        lambda: RoundBudgetTermination(NAMES, 1) & MaxMessageTermination(6), agreeing
    ),
    "a mixture": Case(
        lambda: (
            (ConsensusTermination(NAMES, 1) & MaxMessageTermination(3))
            | TokenBudgetTermination(500)
        ),
        agreeing,
    ),
    "a single agent": Case(lambda: MaxMessageTermination(4), lambda: [Speaker("a")]),
    "events and chunks": Case(lambda: MaxMessageTermination(7), thoughtful),
    "the task is a message": Case(
        lambda: MaxMessageTermination(3), steps=[run(task=messages(TASK)[0])]
    ),
    "the task is a list": Case(
        lambda: MaxMessageTermination(5), steps=[run(task=messages(TASK, "Please."))]
    ),
    "the task is not put out": Case(
        lambda: MaxMessageTermination(4), steps=[run(task=TASK, output_task_messages=False)]
    ),
    "no task at all": Case(lambda: MaxMessageTermination(4), steps=[run()]),
    "the task ends it": Case(lambda: TextMentionTermination("kill")),
    "the task ends it, then another": Case(
        lambda: TextMentionTermination("kill") | MaxMessageTermination(3),
        steps=[run(task=TASK), run(task="And then?")],
    ),
    "once more without a task": Case(
        lambda: MaxMessageTermination(3), steps=[run(task=TASK), run(), run()]
    ),
    "once more with a task": Case(
        lambda: MaxMessageTermination(3), thoughtful, steps=[run(task=TASK), run(task="And?")]
    ),
    "once more by turns": Case(lambda: None, max_turns=2, steps=[run(task=TASK), run(), run()]),
    "rounds once more": Case(
        lambda: RoundBudgetTermination(NAMES, 1), steps=[run(task=TASK), run(task="And?"), run()]
    ),
    "reset, then again": Case(
        lambda: MaxMessageTermination(4), thoughtful, steps=[run(task=TASK), reset, run(task=TASK)]
    ),
    "our own agents, reset, then again": Case(
        lambda: RoundBudgetTermination(NAMES, 1),
        deliberators,
        steps=[run(task=TASK), reset, run(task=TASK)],
    ),
    "reset before the first run": Case(
        lambda: MaxMessageTermination(2), steps=[reset, run(task=TASK)]
    ),
    "ended from outside": Case(ExternalTermination, steps=[request_end, run(task=TASK)]),
    "terminated already": Case(ExternalTermination, steps=[end, run(task=TASK), run(task=TASK)]),
    "terminated already, then reset": Case(
        ExternalTermination, steps=[end, run(task=TASK), reset, request_end, run(task=TASK)]
    ),
}


async def put_through(
    team_type: Callable[..., Team], case: Case
) -> tuple[list[Any], list[list[Any]]]:
    """What a team yields in all steps, and what each agent was given."""
    agents = case.agents()
    given: list[list[Any]] = [[] for _ in agents]
    for agent, seen in zip(agents, given, strict=True):
        _record_inputs(agent, seen)
    condition = case.condition()
    team = team_type(agents, termination_condition=condition, max_turns=case.max_turns)
    items: list[Any] = []
    for step in case.steps:
        items += await step(team, condition)
    return looks(items), given


def _record_inputs(agent: Any, seen: list[Any]) -> None:
    speak = agent.on_messages_stream

    def recording(messages: Sequence[Any], token: Any) -> Any:
        seen.append(looks(messages))
        return speak(messages, token)

    agent.on_messages_stream = recording


@pytest.mark.parametrize("name", CASES)
async def test_says_and_hears_the_same(name: str) -> None:
    case = CASES[name]
    ours, given_by_ours = await put_through(DeliberationChat, case)
    theirs, given_by_theirs = await put_through(RoundRobinGroupChat, case)
    assert ours == theirs
    assert given_by_ours == given_by_theirs


@pytest.mark.parametrize("name", ["a number of messages", "events and chunks"])
async def test_run_gives_the_last_item_of_the_stream(name: str) -> None:
    case = CASES[name]
    stream, _ = await put_through(DeliberationChat, case)
    team = DeliberationChat(case.agents(), termination_condition=case.condition())
    assert look(await team.run(task=TASK)) == stream[-1]


async def test_the_cases_say_something() -> None:
    """A comparison of nothing with nothing would prove nothing."""
    silent = set()
    for name, case in CASES.items():
        items, given = await put_through(DeliberationChat, case)
        assert items[-1][0] == "result", name
        if not any(given):
            silent.add(name)
    assert silent == {
        "the task ends it",
        "ended from outside",
        "terminated already",
        "terminated already, then reset",
    }


@pytest.mark.parametrize("task", [[], [TASK], 7, {"task": TASK}])
async def test_refuses_what_is_no_task_like_autogen(task: Any) -> None:
    for team_type in (DeliberationChat, RoundRobinGroupChat):
        team = team_type(list(three()), termination_condition=MaxMessageTermination(3))
        with pytest.raises(ValueError):
            await team.run(task=task)
        result = await team.run(task=TASK)
        assert isinstance(result, TaskResult)
        assert len(result.messages) == 3
