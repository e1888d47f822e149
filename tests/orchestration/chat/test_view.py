"""What a reader of turns and records sees: the words as they are, and nothing that acts."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from orchestration.chat.view import clean, narrowed, plain, table
from orchestration.cli.console import err, out
from orchestration.cli.console import print_error as show_error
from orchestration.deliberation.job import RECORDS
from orchestration.deliberation.record import CoTRecord
from policies import InputError
from tests.orchestration.records import failed, record

NASTY = (
    "\x1b[2J\x1b]0;title\x07 \x9b31m \r overwritten \u202e gnorw [bold]markup[/nonsense] :smile:"
)
ESCAPES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def nasty() -> CoTRecord:
    """A record with nasty words wherever a prompt, a model or a file could put them."""
    made = record(NASTY, prompt=NASTY, response=NASTY)
    for turn in made.turns:
        turn.instruction = turn.raw = turn.agent = NASTY
        turn.reply = None
        turn.outcome, turn.problem = "malformed", NASTY
    for thought in made.thoughts:
        thought.text = thought.author = NASTY
        thought.policies = [NASTY]
    made.provenance.policy_set = made.provenance.started_at = NASTY
    return made


def printed(made: CoTRecord, width: int = 80, terminal: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=terminal,
        markup=False,
        emoji=False,
        highlight=False,
    )
    RECORDS.show(console, made, instructions=True, show_unsafe=False)
    return stream.getvalue()


def test_clean_text_keeps_words_lines_and_tabs() -> None:
    assert clean("a\tb\r\nc\nä 日本 👩‍🚀") == "a\tb\nc\nä 日本 👩‍🚀"


def test_control_characters_become_visible() -> None:
    assert not ESCAPES.search(clean(NASTY))
    assert clean("\x1b[31m").endswith("[31m")


def test_nothing_in_a_record_reaches_the_terminal_as_a_command() -> None:
    assert not ESCAPES.search(printed(nasty()))
    # On a terminal there are colours, but ours alone.
    coloured = printed(nasty(), terminal=True)
    assert not ESCAPES.search(re.sub(r"\x1b\[[0-9;]*m", "", coloured))
    assert "\x1b[2J" not in coloured


def test_markup_and_emoji_codes_are_words() -> None:
    text = " ".join(printed(nasty(), width=2000).split())
    assert "[bold]markup[/nonsense] :smile:" in text


def test_a_table_takes_any_words(capsys: pytest.CaptureFixture[str]) -> None:
    out().print(table(("id", "prompt"), [(NASTY, NASTY)]))
    shown = capsys.readouterr().out
    assert "[bold]markup[/nonsense] :smile:" in shown
    assert not ESCAPES.search(shown)


def test_an_error_takes_any_words(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(InputError(f"There is no {NASTY}.", f"Try {NASTY}."))
    shown = capsys.readouterr().err
    assert shown.startswith("Error: There is no ")
    assert shown.count("[bold]markup[/nonsense] :smile:") == 2
    assert not ESCAPES.search(shown)


def test_in_a_pipe_there_are_no_colours_no_rules_and_no_broken_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "word " * 5000
    RECORDS.show(out(), record(prompt=long), instructions=False, show_unsafe=False)
    err().print(plain(long, "bold red"))
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert long.strip() in shown.out
    assert long.strip() in shown.err
    assert not re.search(r"[─━═]{3}|-{20}|  {200}", shown.out)


@pytest.mark.parametrize("width", [10, 20, 40])
def test_a_narrow_terminal_shows_all_the_words(width: int) -> None:
    lines = printed(record(), width=width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert "".join(["The", "first", "response."]) in "".join("".join(lines).split())


def test_a_list_on_a_terminal_of_80_columns_is_one_line_a_record() -> None:
    stream = io.StringIO()
    columns = ("id", "outcome", "stopped by", "rounds", "thoughts", "removed", "prompt")
    row = ("p1a2b3c4d5e6", "completed", "round_budget", "3", "12", "4", "How do I " * 8)
    Console(file=stream, width=80).print(table(columns, [row, row], one_line=True))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 3
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("p1a2b3c4d5e6  completed  round_budget  3 ")
    assert lines[1].rstrip().endswith("…")


@pytest.mark.parametrize(
    ("width", "heads"),
    [(80, 7), (60, 5), (40, 3), (30, 2), (12, 1), (5, 1)],
)
def test_on_a_narrow_terminal_columns_are_left_out_but_ids_are_whole(
    width: int, heads: int
) -> None:
    columns = ("id", "outcome", "stopped", "rounds", "thoughts", "removed", "prompt")
    row = ("p1a2b3c4d5e6", "completed", "round_budget", "3", "12", "4", "How do I " * 8)
    left, rows = narrowed(columns, [row], width)
    assert (left[0], rows[0][0]) == ("id", row[0])
    assert len(left) == heads
    assert left == [*columns[: heads - 1], "prompt"] or left == ["id"]
    stream = io.StringIO()
    Console(file=stream, width=max(width, 12)).print(table(left, rows, one_line=True))
    assert stream.getvalue().splitlines()[1].split()[0] == row[0]


def test_a_list_that_is_read_wraps_its_last_column() -> None:
    stream = io.StringIO()
    rows = [("risk_analyst", "Weighs what could go wrong. " * 5)]
    Console(file=stream, width=60).print(table(("name", "description"), rows))
    lines = stream.getvalue().splitlines()
    assert lines[1].startswith("risk_analyst  Weighs")
    assert "".join(lines).count("wrong") == 5


def test_a_record_without_response_says_why() -> None:
    shown = printed(failed())
    assert "failed: The endpoint gave out." in shown
    assert "Response:" not in shown.rpartition("record")[2]
