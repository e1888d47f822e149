"""Runs for tests: casts on scripted models and on the test endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from autogen_core.models import LLMMessage, UserMessage

from agents.models.config import EndpointConfig, ModelConfig
from agents.models.model import Model
from orchestration.deliberation.job import RECORDS, DeliberationJob
from orchestration.deliberation.recipe import Cast, load_recipe
from orchestration.deliberation.record import CoTRecord
from orchestration.journal import FILE_NAME, Journal
from orchestration.prompts.reader import Prompt
from orchestration.runs import Run
from orchestration.runs.intake import Source
from orchestration.runs.reader import RunReader
from orchestration.runs.status import Summary
from policies import load_policy_set
from tests.endpoint import Endpoint
from tests.scripted import ScriptedClient, agreeable

SOURCE = Source("test")
CALLS_PER_CHAT = 6  # intents, draft, three deliberators who agree, refinement


def prompts(number: int, start: int = 0) -> Iterator[Prompt]:
    return (Prompt(f"p{n}", f"Prompt {n}?") for n in range(start, start + number))


def agree(body: dict[str, Any]) -> dict[str, Any]:
    """The model of a chat in which everybody agrees, for an endpoint."""
    # In a correction, what is asked for stands before the reply that could not be used.
    asked = next((m for m in reversed(body["messages"]) if "This turn: " in m["content"]), None)
    if asked is None:
        return {"text": "ok"}  # to a probe
    messages = [UserMessage(content=asked["content"], source="user")]
    said: dict[str, Any] = agreeable(messages, {})
    return said


def cast_at(endpoint: Endpoint | str, **config: Any) -> Cast:
    """The default cast at an endpoint that is asked once a call, unless told otherwise."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    settings = EndpointConfig(
        base_url=url, **{"model": "m", "max_retries": 0, "timeout": 20, **config}
    )
    model = Model("default", ModelConfig(endpoint=settings))
    return Cast(load_recipe("default"), load_policy_set("aidsafe"), {"default": model})


async def execute(
    folder: Path, made: Cast, prompts: Iterator[Prompt], concurrency: int = 4, **options: Any
) -> Summary:
    """A session of a run, opened and closed."""
    async with opened(folder, made) as run:
        return await run.execute(prompts, concurrency, **options)


async def retry(folder: Path, made: Cast, *outcomes: str, **options: Any) -> Summary:
    """A session that takes prompts up again."""
    async with opened(folder, made, None) as run:
        return await run.retry(outcomes, 4, **options)


@asynccontextmanager
async def opened(folder: Path, made: Cast, source: Source | None = SOURCE) -> AsyncIterator[Run]:
    """A run that is closed in the end, with the connections of its models."""
    run = Run(folder, DeliberationJob(made), source)
    try:
        yield run
    finally:
        run.close()
        for model in made.models_in_use:
            await model.close()


class Held:
    """Holds calls of a scripted client until they are let go.

    Args:
        client: The client.
        when: Which calls; all if left out.
    """

    def __init__(
        self,
        client: ScriptedClient,
        when: Callable[[Sequence[LLMMessage]], bool] = lambda _: True,
    ) -> None:
        self.calls = 0
        """How many are, or were, held."""
        self._open = asyncio.Event()
        create = client.create

        async def hold(messages: Sequence[LLMMessage], **options: Any) -> Any:
            if when(messages):
                self.calls += 1
                await self._open.wait()
            return await create(messages, **options)

        client.create = hold  # type: ignore[method-assign]

    def let_go(self) -> None:
        """Lets them all be answered, and the later ones too."""
        self._open.set()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Returns once a condition holds; fails if it does not in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another thread, or of the disk
            await asyncio.sleep(0.002)


def records(folder: Path) -> list[CoTRecord]:
    with closing(Journal(folder / FILE_NAME)) as journal:
        return list(RunReader(journal, RECORDS))


def files_in(folder: Path) -> list[Path]:
    """Everything below a folder."""
    return sorted(folder.rglob("*"))


def everything_in(folder: Path) -> bytes:
    """The content of all files of a run."""
    return b"".join(file.read_bytes() for file in files_in(folder))
