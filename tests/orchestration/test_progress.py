"""What is seen of a run under way: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestration import progress as module
from orchestration.progress import Progress
from tests.orchestration.records import failed, record


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, for the test to set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_off_terminal_there_is_a_first_line_and_then_one_every_ten_seconds(
    clock: list[float],
) -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, width=80), None) as progress:
        for second in range(25):
            clock[0] = float(second)
            progress.advance(failed() if second == 3 else record())
    assert stream.getvalue().splitlines() == [
        "     0 s  1 completed",
        "    10 s  10 completed, 1 failed",
        "    20 s  20 completed, 1 failed",
    ]


def test_on_a_terminal_prompts_that_were_done_before_count_for_the_bar() -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, force_terminal=True, width=80), 5) as progress:
        for _ in range(3):
            progress.pass_over()
        progress.advance(record())
    shown = stream.getvalue()
    assert "4/5" in shown
    assert "1 completed, 3 done before" in shown
