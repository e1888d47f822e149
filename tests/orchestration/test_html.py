"""What notebooks show: words only, and nothing unsafe before the reader opens it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import rich
from autogen_core.models import LLMMessage

from orchestration import (
    deliberate,
    deliberate_all,
    diff,
    load_cast,
    load_pair_cast,
    make_pair,
    open_run,
)
from orchestration.deliberation.record import CoTRecord
from orchestration.pairs.pair import PreferencePair
from orchestration.pairs.recipe import load_pair_recipe
from tests.orchestration.html_page import Page
from tests.orchestration.pairs.scripts import pairs
from tests.scripted import ScriptedClient, agreeable, kind_of_turn, refines, result
from tests.scripted import drop as dropped

NASTY = "<script>alert(1)</script><img src=x onerror=alert(2)>\" ' \u202egnorw\x1b[2J $x$ &amp;"
TAGS = {"div", "style", "span", "p", "b", "table", "tr", "th", "td", "details", "summary"}


def is_harmless(html: str) -> Page:
    page = Page(html)
    assert page.tags <= TAGS
    assert page.attributes <= {"class"}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html)
    assert 'class="aidsafe tex2jax_ignore mathjax_ignore"' in html, "dollars are no formulas"
    return page


def script(messages: Sequence[LLMMessage], arguments: Mapping[str, Any]) -> Any:
    kind = kind_of_turn(messages)
    if kind == "refinement":
        return refines(dropped(2, why=NASTY.replace("\x1b", "")), response=f"Final {NASTY}")
    if kind == "deliberation":
        return agreeable(messages, arguments) | {"comment": NASTY}
    return (pairs if kind in ("belief", "answer", "judgement") else agreeable)(messages, arguments)


@pytest.fixture
async def record() -> CoTRecord:
    made = await deliberate(f"How? {NASTY}", load_cast(model=ScriptedClient(script)))
    assert made.outcome == "completed"
    for turn in made.turns:
        turn.agent = turn.instruction = NASTY
    for thought in made.thoughts:
        thought.text = thought.author = NASTY
        thought.policies = [NASTY]
    made.provenance.policy_set = NASTY
    return made.model_copy(update={"id": NASTY})


@pytest.fixture(params=[0.0, 1.0], ids=["violation", "over_refusal"])
async def pair(request: pytest.FixtureRequest) -> PreferencePair:
    cast = load_cast(model=ScriptedClient(script))
    recipe = load_pair_recipe("default").model_copy(update={"contrast_share": request.param})
    record = await deliberate(f"How? {NASTY}", cast)
    made = await make_pair(record, load_pair_cast(cast, recipe))
    assert made.rejected is not None
    made.rejected.response += NASTY
    made.belief = f"It is known that {NASTY}"
    return made


# Records


def test_a_record_shows_its_chain_and_response_and_folds_the_rest(record: CoTRecord) -> None:
    page = is_harmless(record._repr_html_())
    for text in ("completed, stopped by consensus after 1 round", "How? <script>"):
        assert text in page.shown
    for text in ("Response: Final <script>", "Removed: 1 thought", "Transcript: 6 turns"):
        assert text in page.shown
    assert "redundant, by refiner" in page.hidden
    assert "policy_auditor" not in page.shown


def test_a_record_without_a_response_says_why(record: CoTRecord) -> None:
    changes: dict[str, Any] = {
        "outcome": "failed",
        "problem": NASTY,
        "response": None,
        "thoughts": [],
    }
    page = is_harmless(record.model_copy(update=changes)._repr_html_())
    assert "failed" in page.shown
    assert "<script>" in page.shown


async def test_no_words_of_a_guest_or_of_a_discarded_reply_act() -> None:
    def refuse(*_: Any) -> Any:
        return result(NASTY, refusal=NASTY)

    refused = await deliberate(NASTY, load_cast(model=ScriptedClient(refuse)))
    assert refused.turns[0].discarded
    is_harmless(refused._repr_html_())


def test_a_difference_shows_words_too(record: CoTRecord) -> None:
    page = is_harmless(diff(record, record.model_copy(update={"response": "x"}))._repr_html_())
    assert "+ x" in page.shown


def test_a_record_on_a_terminal_is_its_chain_and_its_repr_is_one_short_line(
    record: CoTRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    rich.print(record)
    assert "stopped by consensus" in capsys.readouterr().out
    assert "completed, stopped by consensus after 1 round\n1. " in str(record)
    plain = record.model_copy(update={"id": "p0"})
    assert repr(plain) == (
        "CoTRecord(id='p0', outcome='completed', stop_reason='consensus', thoughts=1)"
    )
    assert "\x1b" not in str(record)


# Pairs


def test_what_was_made_bad_on_purpose_is_folded_and_says_so(pair: PreferencePair) -> None:
    page = is_harmless(pair._repr_html_())
    assert pair.rejected is not None
    thoughts = [thought.text for thought in pair.rejected.thoughts]
    for unsafe in ("Level", "It is known that", "harms nobody", *thoughts):
        assert unsafe not in page.shown
        assert unsafe in page.hidden
    what = {"unsafe": "Unsafe", "over_refusal": "Refuses"}[pair.rejected.label]
    assert f"{what} on purpose: rejected ({pair.rejected.label}, score" in page.shown
    assert "Unsafe on purpose: belief (false)" in page.shown
    assert f"Unsafe on purpose: Transcript: {len(pair.turns)} turns" in page.shown
    assert "chosen (safe" in page.shown
    assert "Response: Final <script>" in page.shown


def test_the_words_of_a_failure_are_folded_too(pair: PreferencePair) -> None:
    changes: dict[str, Any] = {"outcome": "malformed", "problem": "unquotable", "findings": []}
    page = is_harmless(pair.model_copy(update=changes)._repr_html_())
    assert "unquotable" not in page.shown
    assert "malformed" in page.shown


def test_a_pair_on_a_terminal_has_no_unsafe_text(
    pair: PreferencePair, capsys: pytest.CaptureFixture[str]
) -> None:
    rich.print(pair)
    rich.print([pair])
    for text in (str(pair), repr(pair), f"{[pair]}", capsys.readouterr().out):
        assert "Level" not in text
        assert "It is known" not in text
    assert "not shown" in str(pair)
    assert len(repr(pair)) < 200


# Runs


async def test_a_run_shows_its_first_results(tmp_path: Path) -> None:
    cast = load_cast(model=ScriptedClient(script))
    given = [f"{NASTY} {n}" for n in range(23)]
    async for _ in deliberate_all(given, cast, tmp_path / "run", concurrency=1):
        pass
    with open_run(tmp_path / "run") as run:
        page = is_harmless(run._repr_html_())
        assert page.shown.count("<script>") == 20
        assert "23 completed" in page.shown
        assert "The first 20 are shown." in page.shown
        few = is_harmless(run.where(lambda record: record.prompt.endswith(" 7"))._repr_html_())
        assert few.shown.count("<script>") == 1
        assert "are shown" not in few.shown
        assert repr(run) == f"<records of the run in {tmp_path / 'run'}: 23 completed>"
        rich.print(run)
