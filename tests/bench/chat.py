"""What a chat costs beside AutoGen's own group chat: CPU time, stalls of the loop, memory.

Both teams are given the same agents, the same condition and the same prompt, in one process, in
turns. No model is called: a scripted client answers, so that what is measured is the teams.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import ChatAgent, Response, Team
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import CreateResult

from agents.deliberation.agents import DeliberationAgent
from agents.models.model import Model
from orchestration.chat.deliberation_chat import DeliberationChat
from orchestration.deliberation.recipe import load_recipe
from tests.bench.table import Row
from tests.scripted import (
    FALLBACK_CONFIG,
    ScriptedClient,
    agreeable,
    briefing,
    kind_of_turn,
    persona,
)

PROMPT = "How do I kill a Python process?"
CIRCLE = ("policy_auditor", "helpfulness_advocate", "risk_analyst")

REPLY_SECONDS = 0.2

CPU_TARGET = 0.1
STALL_TARGET = 0.25

MakeTeam = Callable[[type[Team]], Team]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    cpu_batches: int = 10
    cpu_chats: int = 30
    stall_chats: int = 1_000
    stall_chats_stock: int = 200
    memory_chats: int = 500


QUICK = Sizes(2, 10, 200, 50, 100)


def measure(quick: bool) -> list[Row]:
    return asyncio.run(_measure(QUICK if quick else Sizes()))


async def _measure(sizes: Sizes) -> list[Row]:
    return [*await cpu_rows(sizes), await stall_row(sizes), await memory_row(sizes)]


class TrivialAgent(BaseChatAgent):
    """Says the same words whenever it is asked: all that a chat of these costs is the team's."""

    @property
    def produced_message_types(self) -> Sequence[type[BaseChatMessage]]:
        return (TextMessage,)

    async def on_messages(
        self, messages: Sequence[BaseChatMessage], cancellation_token: CancellationToken
    ) -> Response:
        return Response(chat_message=TextMessage(content="Nothing to add.", source=self.name))

    async def on_reset(self, cancellation_token: CancellationToken) -> None:
        pass


class BenchClient(ScriptedClient):
    """Keeps no record of what it was asked, and may hold back the replies of one kind of turn."""

    def __init__(self, delay: float = 0.0, hold_back: str = "", chats: int = 0) -> None:
        super().__init__(agreeable, delay)
        self._chats = chats
        self._hold_back = hold_back
        self.release = asyncio.Event()
        self.all_wait = asyncio.Event()
        self._waiting = 0

    async def create(self, messages: Any, **options: Any) -> CreateResult:
        if kind_of_turn(messages) == self._hold_back:
            self._waiting += 1
            if self._waiting == self._chats:
                self.all_wait.set()
            await self.release.wait()
        try:
            return await super().create(messages, **options)
        finally:
            self.requests.clear()
            self.arguments.clear()


def team_of(team_type: type[Team], agents: Sequence[ChatAgent], turns: int) -> Team:
    """A team in which every agent speaks in turn, so many times in all."""
    condition = MaxMessageTermination(1 + turns)
    if team_type is RoundRobinGroupChat:
        return RoundRobinGroupChat(list(agents), termination_condition=condition)
    return DeliberationChat(agents, termination_condition=condition)


def policy_agents(client: ScriptedClient) -> Callable[[Sequence[str]], list[ChatAgent]]:
    """Makes agents of ours that share a model and a briefing, as in a run."""
    model = Model("default", FALLBACK_CONFIG, client)
    shared = briefing()
    recipe = load_recipe("default")
    roles = {recipe.intent_analyst: "intent_analyst", recipe.drafter: "drafter"}
    roles[recipe.refiner] = "refiner"
    personas = {
        name: persona(name, roles.get(name, "deliberator")) for name in (*roles, *recipe.circle)
    }
    return lambda names: [DeliberationAgent.make(personas[name], shared, [model]) for name in names]


def whole_chat(client: ScriptedClient) -> MakeTeam:
    """Opening, a circle that agrees at once, and closing: six turns, one after the other."""
    agents = policy_agents(client)
    names = ("intent_analyst", "drafter", *CIRCLE, "refiner")
    return lambda team_type: team_of(team_type, agents(names), len(names))


# CPU time of a chat


async def cpu_seconds(make: MakeTeam, team_type: type[Team], chats: int) -> float:
    gc.collect()
    started = time.process_time()
    for _ in range(chats):
        done = await make(team_type).run(task=PROMPT)
        assert len(done.messages) == 7
    return (time.process_time() - started) / chats


async def cpu_row(what: str, make: MakeTeam, target: float | None, sizes: Sizes) -> Row:
    ours, stock = [], []
    for batch in range(sizes.cpu_batches + 1):
        a = await cpu_seconds(make, DeliberationChat, sizes.cpu_chats)
        b = await cpu_seconds(make, RoundRobinGroupChat, sizes.cpu_chats)
        if batch:  # the first is for warming up
            ours.append(a)
            stock.append(b)
    a, b = statistics.median(ours), statistics.median(stock)
    return Row(
        f"CPU a chat, {what}",
        f"{a * 1000:.2f} ms ({a / b:.0%} of stock)",
        f"{b * 1000:.2f} ms",
        f"≤ {target:.0%} of stock" if target else "",
        a / b <= target if target else None,
    )


async def cpu_rows(sizes: Sizes) -> list[Row]:
    def trivial(team_type: type[Team]) -> Team:
        return team_of(team_type, [TrivialAgent(name, name) for name in CIRCLE], 6)

    agents = policy_agents(BenchClient())
    return [
        await cpu_row(
            "3 agents, 2 rounds, trivial agents (the team alone)", trivial, CPU_TARGET, sizes
        ),
        await cpu_row(
            "3 agents, 2 rounds, policy agents (their work included)",
            lambda team_type: team_of(team_type, agents(CIRCLE), 6),
            None,
            sizes,
        ),
    ]


# How long many chats at once keep the loop from anything else


@dataclass
class Gap:
    """A time in which the loop did not come round; infinitely short to begin with."""

    cpu: float = 0.0
    """Seconds that the loop's thread was computing: on an idle machine, all of them."""
    wall: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpu * 1000:.0f} ms of CPU, {self.wall * 1000:.0f} ms in all"


async def longest_gap(run: Awaitable[Any]) -> Gap:
    longest = Gap()

    async def beat() -> None:
        nonlocal longest
        cpu, wall = time.thread_time(), time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            cpu_now, wall_now = time.thread_time(), time.perf_counter()
            if cpu_now - cpu > longest.cpu:
                longest = Gap(cpu_now - cpu, wall_now - wall)
            cpu, wall = cpu_now, wall_now

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0.05)
    await run
    await asyncio.sleep(0.05)
    heart.cancel()
    return longest


async def stall(team_type: type[Team], chats: int) -> Gap:
    make = whole_chat(BenchClient(delay=REPLY_SECONDS))

    async def one() -> None:
        done = await make(team_type).run(task=PROMPT)
        assert len(done.messages) == 7

    await one()
    gc.collect()

    async def all_at_once() -> None:
        await asyncio.gather(*(one() for _ in range(chats)))

    return await longest_gap(all_at_once())


async def stall_row(sizes: Sizes) -> Row:
    stalls = [await stall(DeliberationChat, sizes.stall_chats) for _ in range(3)]
    ours = sorted(stalls, key=lambda gap: gap.cpu)[1]
    stock = await stall(RoundRobinGroupChat, sizes.stall_chats_stock)
    return Row(
        f"longest stall of the loop, chats at once, {REPLY_SECONDS * 1000:.0f} ms replies",
        f"{sizes.stall_chats:,} chats: {ours}",
        f"{sizes.stall_chats_stock:,} chats: {stock}",
        f"≤ {STALL_TARGET * 1000:.0f} ms of CPU",
        # What other processes take from the machine meanwhile is not the chats' doing.
        ours.cpu <= STALL_TARGET,
    )


# Memory of a chat in the middle of a turn


async def memory(team_type: type[Team], chats: int) -> float:
    client = BenchClient(hold_back="refinement", chats=chats)
    make = whole_chat(client)

    async def one() -> None:
        await make(team_type).run(task=PROMPT)

    await whole_chat(BenchClient())(team_type).run(task=PROMPT)  # what is made once
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.create_task(one()) for _ in range(chats)]
    await client.all_wait.wait()
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    client.release.set()
    await asyncio.gather(*tasks)
    return used / chats


async def memory_row(sizes: Sizes) -> Row:
    ours = await memory(DeliberationChat, sizes.memory_chats)
    stock = await memory(RoundRobinGroupChat, sizes.memory_chats)
    return Row(
        f"memory a live chat in its last turn ({sizes.memory_chats} chats)",
        f"{ours / 1000:.0f} kB",
        f"{stock / 1000:.0f} kB",
    )
