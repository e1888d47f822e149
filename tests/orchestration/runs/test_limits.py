"""Limits over hundreds of workloads: on an endpoint in virtual time, to the token."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from autogen_core.models import LLMMessage, UserMessage

from agents.models.config import EndpointConfig, ModelConfig, Price
from agents.models.context import CALL, CallContext
from agents.models.errors import CallNotStarted
from agents.models.usage import Usage
from orchestration.runs.budget import Budget, Limits
from orchestration.runs.call_gate import CallGate, LimitNotHeld
from tests.agents.models.clock import run


@dataclass
class Workload:
    """What many chats do at an endpoint."""

    seed: int
    billed: Usage = field(default_factory=Usage)
    largest: dict[int, float] = field(default_factory=dict)
    """What the dearest call of each chat took, in the unit of the limit."""
    calls: int = 0

    def __post_init__(self) -> None:
        draw = self.draw = random.Random(self.seed)
        self.price = Price(
            prompt=draw.choice([0, 0.1, 3, 75]),
            completion=draw.choice([0.4, 15, 600]),
            cached=draw.choice([None, 0, 0.3]),
        )
        self.chats = draw.choice([1, 3, 20, 100])
        self.per_token = draw.choice([0.5, 2.5, 4, 6])
        self.counts = draw.random() > 0.2
        self.in_cost = draw.random() < 0.5
        self.max_tokens = draw.choice([None, 256, 4096])
        self.cached = draw.random() < 0.5

    @property
    def name(self) -> str:
        return "default"

    @property
    def config(self) -> ModelConfig:
        endpoint = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m")
        return ModelConfig(endpoint=endpoint, price=self.price, max_tokens=self.max_tokens)

    def amount(self, usage: Usage) -> float:
        return self.price.cost(usage) if self.in_cost else float(usage.tokens)

    async def ask(self, chat: int, messages: Sequence[LLMMessage]) -> Usage:
        """A call at the endpoint, which bills what it says."""
        size, draw = len(str(messages[0].content)), self.draw
        await asyncio.sleep(draw.uniform(0.1, 30))
        prompt = int(size / self.per_token * draw.uniform(0.9, 1.1)) + 1
        reply = min(int(10 ** draw.uniform(0, 3)), self.max_tokens or 10**9)
        estimated = 0 if self.counts else prompt + reply
        usage = Usage(
            prompt_tokens=prompt,
            completion_tokens=reply,
            cached_tokens=int(prompt * draw.random()) if self.cached else 0,
            estimated_tokens=estimated,
        )
        self.billed += usage
        self.calls += 1
        self.largest[chat] = max(self.largest.get(chat, 0.0), self.amount(usage))
        return usage


async def chat(number: int, work: Workload, gate: CallGate) -> None:
    CALL.set(CallContext(number, gate.stop_signal))
    size = int(10 ** work.draw.uniform(1, 5))
    for _ in range(work.draw.randint(1, 12)):
        size += work.draw.randint(0, 200)
        messages: list[LLMMessage] = [UserMessage(content="x" * size, source="user")]
        model: Any = work
        with await gate.begin(model, messages, None) as call:
            usage = await work.ask(number, messages)
            call.paid(usage, Usage())


@pytest.mark.parametrize("seed", range(300))
def test_a_limit_is_passed_by_one_call_a_chat_at_most_and_spending_is_what_was_billed(
    seed: int,
) -> None:
    work = Workload(seed)
    limit = 10 ** work.draw.uniform(1, 5.5)
    limits = (
        Limits(cost=limit / 1e4, estimates=True)
        if work.in_cost
        else Limits(tokens=int(limit), estimates=True)
    )
    bound = limit / 1e4 if work.in_cost else int(limit)
    model: Any = work
    budget = Budget(limits, [model])
    gate = CallGate(budget)

    async def main() -> list[Any]:
        chats = [chat(number, work, gate) for number in range(work.chats)]
        return await asyncio.gather(*chats, return_exceptions=True)

    ends = run(main())
    assert {type(end) for end in ends} <= {type(None), CallNotStarted}
    assert budget.usage == work.billed
    assert budget.calls == work.calls
    assert budget.costs["USD"] == pytest.approx(work.price.cost(work.billed))
    spent = budget.costs["USD"] if work.in_cost else budget.usage.tokens
    assert spent <= bound + sum(work.largest.values())
    stopped = CallNotStarted in {type(end) for end in ends}
    assert stopped == (gate.limit_reached is not None)
    assert budget.in_flight == 0


def test_an_endpoint_that_counts_no_tokens_stops_a_run_whose_limit_would_be_a_guess() -> None:
    work = Workload(0)
    work.counts = False
    model: Any = work

    async def main(limits: Limits) -> None:
        await chat(1, work, CallGate(Budget(limits, [model])))

    with pytest.raises(LimitNotHeld, match="does not count tokens") as caught:
        run(main(Limits(tokens=10**9)))
    assert "--estimate-tokens" in caught.value.remedy
    run(main(Limits(tokens=10**9, estimates=True)))
    run(main(Limits()))
