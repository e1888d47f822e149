"""What a chat costs beside AutoGen's own group chat: `python -m tests.bench`, or `make bench`.

Both teams are given the same agents, the same condition and the same prompt, in one process, in
turns. No model is called: a scripted client answers, so that what is measured is the teams. Exits
with 1 if a target is missed.
"""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from autogen_agentchat.agents import BaseChatAgent
from autogen_agentchat.base import ChatAgent, Response, Team
from autogen_agentchat.conditions import MaxMessageTermination
from autogen_agentchat.messages import BaseChatMessage, TextMessage
from autogen_agentchat.teams import RoundRobinGroupChat
from autogen_core import CancellationToken
from autogen_core.models import CreateResult

from agents.models.model import Model
from agents.roles import make_agent
from orchestration.chat import DeliberationChat
from orchestration.recipe import load_recipe
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

CPU_BATCHES, CPU_CHATS = 10, 30
STALL_CHATS, STALL_CHATS_STOCK, REPLY_SECONDS = 1_000, 200, 0.2
MEMORY_CHATS = 500

CPU_TARGET = 0.1
STALL_TARGET = 0.25

OURS, STOCK = "DeliberationChat", "RoundRobinGroupChat"

MakeTeam = Callable[[type[Team]], Team]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    stock: str
    target: str = ""
    met: bool | None = None


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

    def __init__(self, delay: float = 0.0, hold_back: str = "") -> None:
        super().__init__(agreeable, delay)
        self._hold_back = hold_back
        self.release = asyncio.Event()
        self.all_wait = asyncio.Event()
        self._waiting = 0

    async def create(self, messages: Any, **options: Any) -> CreateResult:
        if kind_of_turn(messages) == self._hold_back:
            self._waiting += 1
            if self._waiting == MEMORY_CHATS:
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
        name: persona(name, roles.get(name, "deliberator"))  # type: ignore[arg-type]
        for name in (*roles, *recipe.circle)
    }
    return lambda names: [make_agent(personas[name], shared, [model]) for name in names]


def whole_chat(client: ScriptedClient) -> MakeTeam:
    """Opening, a circle that agrees at once, and closing: six turns, one after the other."""
    agents = policy_agents(client)
    names = ("intent_analyst", "drafter", *CIRCLE, "refiner")
    return lambda team_type: team_of(team_type, agents(names), len(names))


# CPU time of a chat


async def cpu_seconds(make: MakeTeam, team_type: type[Team]) -> float:
    gc.collect()
    started = time.process_time()
    for _ in range(CPU_CHATS):
        done = await make(team_type).run(task=PROMPT)
        assert len(done.messages) == 7
    return (time.process_time() - started) / CPU_CHATS


async def cpu_row(what: str, make: MakeTeam, target: float | None) -> Row:
    ours, stock = [], []
    for batch in range(CPU_BATCHES + 1):
        a = await cpu_seconds(make, DeliberationChat)
        b = await cpu_seconds(make, RoundRobinGroupChat)
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


async def cpu_rows() -> list[Row]:
    def trivial(team_type: type[Team]) -> Team:
        return team_of(team_type, [TrivialAgent(name, name) for name in CIRCLE], 6)

    agents = policy_agents(BenchClient())
    return [
        await cpu_row("3 agents, 2 rounds, trivial agents (the team alone)", trivial, CPU_TARGET),
        await cpu_row(
            "3 agents, 2 rounds, policy agents (their work included)",
            lambda team_type: team_of(team_type, agents(CIRCLE), 6),
            None,
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


async def stall_row() -> Row:
    stalls = [await stall(DeliberationChat, STALL_CHATS) for _ in range(3)]
    ours = sorted(stalls, key=lambda gap: gap.cpu)[1]
    stock = await stall(RoundRobinGroupChat, STALL_CHATS_STOCK)
    return Row(
        f"longest stall of the loop, chats at once, {REPLY_SECONDS * 1000:.0f} ms replies",
        f"{STALL_CHATS:,} chats: {ours}",
        f"{STALL_CHATS_STOCK:,} chats: {stock}",
        f"≤ {STALL_TARGET * 1000:.0f} ms of CPU",
        # What other processes take from the machine meanwhile is not the chats' doing.
        ours.cpu <= STALL_TARGET,
    )


# Memory of a chat in the middle of a turn


async def memory(team_type: type[Team]) -> float:
    client = BenchClient(hold_back="refinement")
    make = whole_chat(client)

    async def one() -> None:
        await make(team_type).run(task=PROMPT)

    await whole_chat(BenchClient())(team_type).run(task=PROMPT)  # what is made once
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.create_task(one()) for _ in range(MEMORY_CHATS)]
    await client.all_wait.wait()
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    client.release.set()
    await asyncio.gather(*tasks)
    return used / MEMORY_CHATS


async def memory_row() -> Row:
    ours = await memory(DeliberationChat)
    stock = await memory(RoundRobinGroupChat)
    return Row(
        f"memory a live chat in its last turn ({MEMORY_CHATS} chats)",
        f"{ours / 1000:.0f} kB",
        f"{stock / 1000:.0f} kB",
    )


# The table


def machine() -> str:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [n for n in info.read_text().splitlines() if n.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    packages = ", ".join(f"{p} {version(p)}" for p in ("aidsafe", "autogen-agentchat", "pydantic"))
    return (
        f"{cpu}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}, {packages}"
    )


def print_table(rows: Sequence[Row]) -> None:
    verdicts = {None: "", True: "met", False: "MISSED"}
    lines = [("", OURS, STOCK, "target", "")]
    lines += [(row.what, row.ours, row.stock, row.target, verdicts[row.met]) for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    print(machine())
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


async def measure() -> list[Row]:
    return [*await cpu_rows(), await stall_row(), await memory_row()]


def main() -> int:
    rows = asyncio.run(measure())
    print_table(rows)
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
