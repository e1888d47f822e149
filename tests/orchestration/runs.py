"""Runs for tests: casts on scripted models and on the test endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autogen_core.models import UserMessage

from agents.models.endpoint import EndpointConfig
from agents.models.model import Model, ModelConfig
from orchestration.journal import FILE_NAME, Journal
from orchestration.prompts import Prompt
from orchestration.recipe import Cast, load_recipe
from orchestration.record import CoTRecord
from orchestration.run import Run, Summary
from policies import load_policy_set
from tests.endpoint import Endpoint
from tests.scripted import agreeable

SOURCE: dict[str, Any] = {"source": "test"}
CALLS_PER_CHAT = 6  # intents, draft, three deliberators who agree, refinement


def prompts(number: int, start: int = 0) -> Iterator[Prompt]:
    return (Prompt(f"p{n}", f"Prompt {n}?") for n in range(start, start + number))


def agree(body: dict[str, Any]) -> dict[str, Any]:
    """The model of a chat in which everybody agrees, for an endpoint."""
    messages = [UserMessage(content=body["messages"][-1]["content"], source="user")]
    said: dict[str, Any] = agreeable(messages, {})
    return said


def cast_at(endpoint: Endpoint | str, **config: Any) -> Cast:
    """The default cast at an endpoint that is asked once a call, unless told otherwise."""
    url = endpoint if isinstance(endpoint, str) else endpoint.base_url
    settings = EndpointConfig(
        base_url=url, model="m", **{"max_retries": 0, "timeout": 20, **config}
    )
    model = Model("default", ModelConfig(endpoint=settings))
    return Cast.load(load_recipe("default"), load_policy_set("aidsafe"), {"default": model})


async def execute(
    folder: Path, made: Cast, source: Iterator[Prompt], concurrency: int = 4, **options: Any
) -> Summary:
    """A session of a run, opened and closed."""
    run = Run(folder, made, SOURCE)
    try:
        return await run.execute(source, concurrency, **options)
    finally:
        run.close()
        for model in made.models_in_use:
            await model.close()


def records(folder: Path) -> list[CoTRecord]:
    journal = Journal(folder / FILE_NAME)
    found = list(journal.records())
    journal.close()
    return found


def everything_in(folder: Path) -> bytes:
    """The content of all files of a run."""
    return b"".join(file.read_bytes() for file in folder.iterdir())
