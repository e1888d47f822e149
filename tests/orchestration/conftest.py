"""Fixtures of the tests of orchestration."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME, Journal
from tests.orchestration.journals import opened


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], None]:
    """Puts text or bytes into standard input."""

    def feed(content: str | bytes) -> None:
        raw = content.encode() if isinstance(content, str) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))

    return feed


@pytest.fixture
async def no_hang() -> AsyncIterator[None]:
    """Cancels a test that hangs, so that it fails instead."""
    # A timeout around the yield would not do: the test runs in another task than its fixtures.
    loop = asyncio.get_running_loop()

    def cancel_everything() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel("the test hangs")

    timer = loop.call_later(10, cancel_everything)
    yield
    timer.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a run's folder will be."""
    return tmp_path / "runs" / "first"


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    """A journal without prompts, open for writing."""
    async with opened(tmp_path / FILE_NAME) as made:
        yield made
