"""The progress of a run: a live view on a terminal, a line at intervals elsewhere."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.models.usage import Usage
from orchestration.cli import progress as module
from orchestration.cli.progress import (
    duration,
    log_line,
    panel,
    print_summary,
    short,
    show_progress,
)
from orchestration.runs.status import EndpointState, LastError, Summary

USAGE = Usage(prompt_tokens=1_234_567, completion_tokens=45_600, cached_tokens=1_111_110)


def summary(**changes: Any) -> Summary:
    """A run in progress."""
    about: dict[str, Any] = {
        "prompts": 1000,
        "all_read": True,
        "kind": "records",
        "pending": 700,
        "active": 16,
        "outcomes": {"failed": 12, "completed": 288},
        "tallies": {
            "stopped_by": {"consensus": 280, "round_budget": 8},
            "consensus_in_round": {"1": 200, "2": 80},
        },
        "calls": 1800,
        "usage": USAGE,
        "unpriced_calls": 1800,
        "seconds": 120.4,
    }
    return Summary(**{**about, **changes})


def shown(renderable: object, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


# Lines -------------------------------------------------------------------------------------------


def test_a_line_holds_the_progress() -> None:
    assert log_line(summary()) == (
        "   120 s  300 of 1,000; 288 completed, 12 failed; "
        "stopped by: consensus 280, round_budget 8; 16 chats, "
        "1,800 calls, 1.23M tokens in (90% cached), 45.6k out"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"all_read": False}, "300 of 1,000 and more;"),
        (
            {"per_minute": 12.34, "seconds_left": 7200},
            "300 of 1,000 (12.3 a minute, 2 h 0 min left)",
        ),
        ({"per_minute": 12.34}, "300 of 1,000 (12.3 a minute);"),
        ({"phase": "stopping"}, "300 of 1,000, stopping: calls in flight are finished;"),
        ({"cost": {"USD": 1.5}, "unpriced_calls": 0}, "45.6k out; 1.5 USD"),
        ({"cost": {"USD": 1.5}}, "1.5 USD and 1,800 calls without a price"),
        (
            {"attempts": {"answered": 9, "throttled": 3, "timeout": 1}},
            "; failed requests: 3 throttled, 1 timeout",
        ),
    ],
)
def test_a_line_holds_more_if_there_is_more(changes: dict[str, Any], words: str) -> None:
    assert words in log_line(summary(**changes))


def test_a_line_holds_only_what_is_known() -> None:
    line = log_line(Summary(kind="records"))
    assert line == "     0 s  0 of 0 and more; 0 chats, 0 calls, 0 tokens in (0% cached), 0 out"


async def lines(seconds: float, looks: list[Summary]) -> list[str]:
    stream = io.StringIO()
    async with show_progress(Console(file=stream, width=200), lambda: looks[0]):
        await asyncio.sleep(seconds)
        looks[0] = summary()
    return stream.getvalue().splitlines()


async def test_without_a_terminal_there_is_a_line_after_a_second_and_then_every_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (module._FIRST_LINE, module._LINE_EVERY) == (1.0, 10.0)
    monkeypatch.setattr(module, "_FIRST_LINE", 0.01)
    assert await lines(0.05, [summary()]) == [log_line(summary())]
    monkeypatch.setattr(module, "_LINE_EVERY", 0.02)
    assert 3 <= len(await lines(0.1, [summary()])) <= 6


# The view ----------------------------------------------------------------------------------------


async def test_on_a_terminal_there_is_one_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REDRAW_EVERY", 0.02)
    stream = io.StringIO()
    looks = [summary()]
    console = Console(file=stream, force_terminal=True, width=100)
    async with show_progress(console, lambda: looks[0]):
        await asyncio.sleep(0.05)
        looks[0] = summary(pending=600)
        await asyncio.sleep(0.05)
    assert "300 of 1,000" in stream.getvalue()
    assert "400 of 1,000" in stream.getvalue()
    assert "\x1b[2K" in stream.getvalue(), "the view is redrawn in place"


def test_the_view_holds_all_facts() -> None:
    endpoint = EndpointState(endpoint="http://h/v1", limit=12, in_flight=9, waiting=4, pace=2.5)
    error = LastError(at="2025-05-28T12:34:56+00:00", cause="It answered 500.", times=3)
    text = shown(
        panel(
            summary(
                cost={"USD": 1.5, "EUR": 2},
                unpriced_calls=0,
                replayed=60,
                endpoints=[endpoint],
                attempts={"answered": 9, "server_error": 3},
                last_errors=[error],
            )
        )
    )
    for words in (
        "300 of 1,000",
        "288 completed, 12 failed",
        "consensus 280, round_budget 8",
        "consensus in round",
        "1: 200, 2: 80",
        "1,800 calls, 1.23M tokens in (90% cached), 45.6k out",
        "60 replies taken from the journal",
        "1.5 USD, 2 EUR",
        "9 of 12 calls in flight, 4 waiting, at most 2.5 a second",
        "3 server_error",
        "12:34:56",
        "It answered 500. (3 times)",
    ):
        assert words in text


def test_without_a_price_the_view_has_no_cost() -> None:
    assert "cost" not in shown(panel(summary()))


def test_the_view_of_a_new_run_can_be_drawn() -> None:
    assert "none yet" in shown(panel(Summary(kind="records")))


# The end -----------------------------------------------------------------------------------------


def ended(**changes: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_summary(console, Path("runs/my run"), summary(**{"pending": 0, **changes}))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_summary_holds_outcomes_and_next_steps() -> None:
    text = ended()
    assert "288" in text
    assert "Retry:    aidsafe retry 'runs/my run' --outcome failed" in text
    assert "Read:     aidsafe show 'runs/my run'" in text
    assert "Export:   aidsafe export 'runs/my run' --format sft" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pending": 7}, "993 of 1,000"),
        ({"replayed": 60}, "60 replies taken from the journal"),
        ({"cost": {"USD": 2.5}, "unpriced_calls": 0}, "2.5 USD"),
        ({"done_before": 30}, "30 prompts"),
        (
            {"duplicates": 2, "empty": 1, "left_out": [(3, "empty prompt")]},
            "2 duplicate and 1 empty prompts, such as row 3 (empty prompt)",
        ),
        (
            {"outcomes": {"over_budget": 1, "refused": 2, "truncated": 1}},
            "--outcome refused --outcome truncated\n",  # `run` resumes what a limit interrupted
        ),
    ],
)
def test_the_summary_holds_more_if_there_is_more(changes: dict[str, Any], words: str) -> None:
    assert words in ended(**changes)
    assert words not in ended()


def test_the_summary_suggests_no_export_without_a_completed_record() -> None:
    assert "aidsafe export" not in ended(outcomes={"refused": 3}, tallies={"stopped_by": {}})


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999.6, "1000"), (12_345, "12.3k"), (4_560_000, "4.56M"), (2e9, "2G")],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45, "45 s"),
        (99.4, "99 s"),
        (720, "12 min"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_times_are_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
