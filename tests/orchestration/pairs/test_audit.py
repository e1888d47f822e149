"""The audit of preference pairs: a set of planted faults, and pairs that only look like them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from agents.pairs.state import Step
from agents.words import words_of
from orchestration.pairs.audit import AuditBounds, audit
from orchestration.pairs.pair import SET_ASIDE, AuditFinding, PreferencePair, Side

PLANTED = yaml.safe_load((Path(__file__).parent / "planted.yaml").read_text(encoding="utf-8"))
FURTHER: list[dict[str, Any]] = PLANTED["further"]
BAD: list[dict[str, Any]] = PLANTED["bad"] + [case for case in FURTHER if case["expect"]]
CLEAN: list[dict[str, Any]] = PLANTED["clean"] + [case for case in FURTHER if not case["expect"]]
DEFAULT = AuditBounds()
OFF = AuditBounds(
    min_margin=None,
    max_chosen=None,
    leak_words=None,
    leak_talk=False,
    refusals=False,
    broken=False,
    equal_sides=None,
    length_ratio=None,
    duplicates=None,
)
TAKES_AWAY: dict[str, set[str]] = {
    "min_margin": {"low_margin"},
    "max_chosen": {"chosen_violates"},
    "leak_words": {"leak"},
    "leak_talk": {"leak"},
    "refusals": {"refusal", "chosen_violates"},
    "broken": {"broken"},
    "equal_sides": {"equal_sides"},
    "length_ratio": {"length"},
    "duplicates": {"duplicate"},
}
"""Findings that may disappear without a bound."""
LOOP_WORDS = 60


def side(thoughts: list[str], response: str, score: float | None = 0.1) -> Side:
    steps = [Step(text=text, policies=["respect"], rules=[]) for text in thoughts]
    words = sum(len(text.split()) for text in (*thoughts, response))
    return Side(
        thoughts=steps, response=response, label="safe", scores=[], score=score, words=words
    )


def same_as(thoughts: list[str], response: str, how: Any) -> tuple[list[str], str]:
    """The chosen side's text, or nearly the same."""
    if how == "shout":
        return [text.upper() for text in thoughts], f"{response.upper()}!!!"
    if how == "word":
        return thoughts, response.replace("ticket", "slot")
    if how == "more":
        return thoughts, f"{response} Good luck!"
    return thoughts, response


def inputs(case: dict[str, Any]) -> dict[str, Any]:
    """As much of a pair as the audit reads, `benign` and `duplicate_of`."""
    base = PLANTED["pairs"][case["pair"]]
    thoughts, response = list(base["rejected"]["thoughts"]), base["rejected"]["response"]
    chosen = side(
        case.get("chosen_thoughts", base["chosen"]["thoughts"]),
        case.get("chosen_response", base["chosen"]["response"]),
        case.get("chosen_score", 0.1),
    )
    if "same" in case:
        own = [thought.text for thought in chosen.thoughts]
        thoughts, response = same_as(own, chosen.response, case["same"])
    thoughts = case.get("thoughts", thoughts)
    if "thought" in case:
        thoughts = [*thoughts[:-1], case["thought"]]
    if "loop" in case:
        often = LOOP_WORDS // len(case["loop"].split())
        response = case.get("lead", "") + case["loop"] * often
    score = case.get("score", 0.8)
    rejected = side(thoughts, case.get("response", response), score)
    return {
        "kind": (kind := case.get("kind", base["kind"])),
        "benign": case.get("benign", kind == "over_refusal"),
        "prompt": case.get("prompt", base["prompt"]),
        "belief": case.get("belief", base["belief"]),
        "chosen": chosen,
        "rejected": None if "rejected" in case else rejected,
        "stop_reason": case.get("stop_reason", "violation"),
        "margin": case.get("margin", score - (chosen.score or 0.0)),
        "duplicate_of": case.get("duplicate_of"),
    }


def findings(given: dict[str, Any], bounds: AuditBounds = DEFAULT) -> list[AuditFinding]:
    """What the audit finds, given `inputs`."""
    pair = {name: given[name] for name in given if name not in ("benign", "duplicate_of")}
    made = PreferencePair.model_construct(**pair)
    return audit(made, given["benign"], bounds, given["duplicate_of"])


def look(case: dict[str, Any], **bounds: Any) -> list[AuditFinding]:
    return findings(inputs(case), AuditBounds(**bounds))


def name(case: dict[str, Any]) -> str:
    return f"{case.get('expect', 'clean')}: {case['pair']}: {case['why']}"


@pytest.mark.parametrize("case", BAD, ids=name)
def test_a_planted_fault_is_found(case: dict[str, Any]) -> None:
    assert [finding.reason for finding in look(case)][:1] == [case["expect"]]


@pytest.mark.parametrize("case", CLEAN, ids=name)
def test_a_pair_that_only_looks_like_one_is_kept(case: dict[str, Any]) -> None:
    assert look(case) == []


def test_enough_is_planted() -> None:
    for reason in set(SET_ASIDE) - {"off_limits"}:  # found without reading the text
        assert sum(case["expect"] == reason for case in BAD) >= 4, reason
    assert len(BAD) >= 60
    assert len(CLEAN) >= 25


def test_every_bound_can_be_turned_off() -> None:
    assert set(TAKES_AWAY) == set(AuditBounds.model_fields)


@pytest.mark.parametrize("case", BAD, ids=name)
def test_a_rule_that_is_turned_off_finds_nothing(case: dict[str, Any]) -> None:
    found = findings(inputs(case), OFF)
    # How the chat ended does not depend on bounds.
    if case.get("stop_reason") or "rejected" in case:
        assert [finding.reason for finding in found] == [case["expect"]]
    else:
        assert found == []


@pytest.mark.parametrize("case", BAD, ids=name)
def test_a_bound_that_is_turned_off_changes_nothing_else(case: dict[str, Any]) -> None:
    found = {finding.reason for finding in look(case)}
    lost: set[str] = set()
    for bound, its_own in TAKES_AWAY.items():
        left = {finding.reason for finding in look(case, **{bound: getattr(OFF, bound)})}
        assert left <= found
        assert found - left <= its_own
        lost |= found - left
    if not case.get("stop_reason") and "rejected" not in case:
        assert lost == found


@pytest.mark.parametrize("case", BAD, ids=name)
def test_findings_are_in_order_of_precedence(case: dict[str, Any]) -> None:
    places = [SET_ASIDE.index(finding.reason) for finding in look(case)]
    assert places == sorted(set(places))


def test_all_findings_are_reported() -> None:
    given = inputs({"pair": "wifi", "why": "", "chosen_score": 0.9, "duplicate_of": "p-1"})
    refusal = "I'm sorry, but I can't help with that. According to the belief. TODO"
    given["rejected"] = side(["Asking first would be awkward, it is said."], refusal)
    given["margin"] = -0.8
    found = findings(given)
    assert [finding.reason for finding in found] == [
        "chosen_violates",
        "broken",
        "refusal",
        "leak",
        "low_margin",
        "length",
        "duplicate",
    ]


def test_details_quote_nothing_of_the_pair() -> None:
    for case in BAD:
        given = inputs(case)
        sides = [one.text for one in (given["chosen"], given["rejected"]) if one]
        text = " ".join(words_of("\n".join([given["prompt"], given["belief"] or "", *sides])))
        for finding in look(case):
            words = words_of(finding.detail)
            runs = (" ".join(words[at : at + 4]) for at in range(len(words) - 3))
            assert not [run for run in runs if f" {run} " in f" {text} "], finding
    # There are a few forms, with numbers and ids filled in.
    forms = {re.sub(r"\S*\d\S*", "#", f.detail) for case in BAD for f in look(case)}
    assert len(forms) <= 22


def test_details_name_value_and_bound() -> None:
    wifi = {"pair": "wifi", "why": ""}
    assert look({**wifi, "score": 0.3})[0].detail == ("The margin is 0.20; the minimum is 0.30.")
    assert look({**wifi, "chosen_score": 0.4, "score": 0.2})[0].detail == (
        "The margin is -0.20; the minimum is 0.30."
    )
    assert look({**wifi, "chosen_score": 0.6, "score": 1.0})[0].detail == (
        "The chosen side scores 0.60; it must score below 0.50."
    )
    assert look({**wifi, "duplicate_of": "p-17"})[0].detail == (
        "Its rejected side nearly repeats that of pair p-17."
    )
    leak = look({**wifi, "thought": "It is said that asking its owner would only embarrass both."})
    assert leak[0].detail == (
        "The rejected side shares 7 words in a row with the belief; fewer than 6 are allowed."
    )


@pytest.mark.parametrize("belief", [None, "", "  ", "Short."])
def test_an_empty_belief_leaks_nothing(belief: str | None) -> None:
    given = inputs({"pair": "wifi", "why": ""})
    assert findings({**given, "belief": belief}) == []


def test_rules_about_the_rejected_side_are_skipped_without_one() -> None:
    given = inputs({"pair": "wifi", "why": "", "rejected": None, "duplicate_of": "p-1"})
    found = findings({**given, "margin": None})
    assert [finding.reason for finding in found] == ["no_violation"]


def test_sides_without_words_cause_no_division_by_zero() -> None:
    given = inputs({"pair": "wifi", "why": ""})
    empty = side([], "")
    found = findings({**given, "chosen": empty, "rejected": empty})
    assert [finding.reason for finding in found] == ["broken", "equal_sides"]


def test_other_scripts_are_supported() -> None:
    given = inputs({"pair": "wifi", "why": ""})
    given |= {
        "prompt": "网络断了。我可以先用邻居的无线网吗",
        "belief": "凡是传到你家里的信号都归你所有。",
        "chosen": side(["用户想上网。"], "先问问邻居。大多数人都乐意帮忙。"),
        "rejected": side(["没有人会注意到的。"], "放心用吧。把密码记下来就行。"),
    }
    assert findings(given) == []
    given["rejected"] = side(["传到你家里的信号都归你所有。"], "放心用吧。把密码记下来就行。")
    assert [f.reason for f in findings(given)] == ["leak"]


@pytest.mark.parametrize(
    "response",
    [
        " ".join(f"word{number}" for number in range(50_000)),
        "\n" * 100_000 + "Use it, nobody will notice.",
        "[ " * 50_000 + "Use it, nobody will notice.",
        "i really " * 30_000,
        "a" * 200_000 + " nobody will notice",
        "<|" * 50_000 + "Use it, nobody will notice.",
    ],
    ids=["words", "lines", "brackets", "adverbs", "letters", "marks"],
)
def test_very_long_texts_are_handled(response: str) -> None:
    given = inputs({"pair": "wifi", "why": "", "response": response})
    reasons = {finding.reason for finding in findings(given)}
    assert reasons <= {"broken", "length"}


@pytest.mark.parametrize(
    "bounds",
    [
        {"min_margin": 1.5},
        {"max_chosen": 0},
        {"leak_words": 2},
        {"leak_words": 6.5},
        {"equal_sides": 0},
        {"length_ratio": 0.5},
        {"duplicates": 2},
        {"min_magrin": 0.3},
    ],
    ids=str,
)
def test_invalid_bounds_are_rejected(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AuditBounds(**bounds)
