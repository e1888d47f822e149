"""CPU an agent turn costs the client, everything included, beside stock AutoGen and bare HTTP.

Three do the same work against an endpoint in a process of its own, in turns: a run of ours (chats,
HTTP, parsing, journal), the same chats of AutoGen's own agents in AutoGen's own team, and a loop
that only posts the bodies that our run posts and reads the replies: the floor below which nothing
that speaks this protocol through aiohttp can go.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench import ours, stock
from tests.bench.processes import Served, served
from tests.bench.replies import CALLS, agree, prompt_texts
from tests.bench.table import BenchError, Row
from tests.endpoint import Endpoint

MILLISECONDS_TARGET, SHARE_TARGET = 2.0, 0.2

AT_ONCE, LATENCY = 50, 0.05
BATCHES = 5
# Stock AutoGen gets fewer prompts: a batch of each takes about the same time.
PROMPTS, PROMPTS_STOCK = 400, 80

Prompts = Iterable[tuple[str, str]]
Body = dict[str, Any]
Work = Coroutine[Any, Any, None]


def measure(quick: bool) -> list[Row]:
    batches = 2 if quick else BATCHES
    share = 0.1 if quick else 1.0
    with served("agree", LATENCY) as endpoint, tempfile.TemporaryDirectory() as temporary:
        bodies = bodies_of_a_chat(Path(temporary) / "bodies")
        url = endpoint.base_url
        cast = ours.make_cast(url)
        folders = (Path(temporary) / str(number) for number in itertools.count())

        team = stock.deliberators(cast)

        def aidsafe(number: int) -> Work:
            return ours.run(next(folders), cast, prompt_texts(number), AT_ONCE)

        def autogen(number: int) -> Work:
            return stock.run(team, url, prompt_texts(number), AT_ONCE)

        def floor(number: int) -> Work:
            return post_all(url, bodies, prompt_texts(number))

        sizes = {aidsafe: PROMPTS, autogen: PROMPTS_STOCK, floor: PROMPTS}
        measured: dict[Any, list[float]] = {each: [] for each in sizes}
        for batch in range(batches + 1):
            for each, prompts in sizes.items():
                number = int(prompts * share)
                seconds = cpu(endpoint, number * CALLS, each(number))
                if batch:  # the first is for warming up
                    measured[each].append(seconds)
    return rows(*(statistics.median(each) for each in measured.values()))


def rows(ours_: float, stock_: float, floor_: float) -> list[Row]:
    return [
        Row(
            f"CPU an agent turn, everything included ({AT_ONCE} chats at once)",
            f"{ours_ * 1000:.2f} ms",
            f"{stock_ * 1000:.2f} ms",
            f"≤ {MILLISECONDS_TARGET} ms",
            ours_ * 1000 <= MILLISECONDS_TARGET,
        ),
        Row(
            "the same, beside stock AutoGen",
            f"{ours_ / stock_:.0%}",
            "100%",
            f"≤ {SHARE_TARGET:.0%}",
            ours_ / stock_ <= SHARE_TARGET,
        ),
        Row("the floor: the same bodies posted and read, no chat", f"{floor_ * 1000:.2f} ms"),
    ]


def cpu(endpoint: Served, turns: int, work: Work) -> float:
    """Seconds of CPU time an agent turn, of all threads of this process.

    Args:
        endpoint: Which is asked.
        turns: How many it has to answer.
        work: What has it do that.
    """
    before = endpoint.stats()["counts"].get("ok", 0)
    gc.collect()
    started = time.process_time()
    asyncio.run(work)
    used = time.process_time() - started
    answered = endpoint.stats()["counts"]["ok"] - before
    if answered != turns:
        raise BenchError(f"{answered} turns were answered, not {turns}")
    return used / turns


def bodies_of_a_chat(folder: Path) -> list[Body]:
    """What a run of ours posts for one prompt, in order."""
    with Endpoint(reply=agree) as endpoint:
        cast = ours.make_cast(endpoint.base_url)
        asyncio.run(ours.run(folder, cast, prompt_texts(1), 1))
    assert len(endpoint.calls) == CALLS
    return [call.body for call in endpoint.calls]


async def post_all(base_url: str, bodies: list[Body], prompts: Prompts) -> None:
    """Posts the bodies of a chat for each prompt, as many chats at once as the others."""
    waiting = iter(prompts)
    ((_, first),) = prompt_texts(1)
    url = f"{base_url}/chat/completions"
    headers = {"Authorization": "Bearer none", "Content-Type": "application/json"}

    async def work(session: aiohttp.ClientSession) -> None:
        for _, text in waiting:
            for body in bodies:
                system, prompt, *more = body["messages"]
                prompt = {**prompt, "content": prompt["content"].replace(first, text)}
                data = json.dumps({**body, "messages": [system, prompt, *more]}).encode()
                async with session.post(url, data=data, headers=headers) as response:
                    answer = json.loads(await response.read())
                assert answer["choices"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(AT_ONCE)))
