"""The state: what a reply does to intents, thoughts and response, and which stance it takes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest

from agents.deliberation.agents import summary
from agents.deliberation.replies import DeliberationReply, DraftReply, IntentReply, RefinementReply
from agents.deliberation.state import DeliberationState
from agents.parsing import parse_reply
from agents.prompt_texts import default_prompts
from agents.replies import Citation, Role
from agents.turns import Stance, Turn, state_after
from tests.scripted import accepts, briefing, draft, drop, intents, refines, revises, thought

CONTRACT = briefing()
TYPES: dict[str, Any] = {
    "intent_analyst": IntentReply,
    "drafter": DraftReply,
    "deliberator": DeliberationReply,
    "refiner": RefinementReply,
}


def turn(reply: dict[str, Any] | None, agent: str = "", role: Role | None = None) -> Turn:
    """A turn with that reply; the role follows from its form."""
    kinds: dict[str, Role] = {
        "intents": "intent_analyst",
        "thoughts": "drafter",
        "verdict": "deliberator",
        "decisions": "refiner",
    }
    role = role or next(kinds[key] for key in reply or () if key in kinds)
    raw = json.dumps(reply)
    return Turn(
        agent=agent or role,
        persona=agent or role,
        role=role,
        round=2 if role == "deliberator" else 0,
        model="default",
        raw=raw,
        finish_reason="stop",
        reply=parse_reply(raw, TYPES[str(role)], CONTRACT) if reply else None,
    )


def fold(turns: Sequence[Turn]) -> DeliberationState:
    return state_after(DeliberationState(CONTRACT), turns)


def after(*replies: dict[str, Any]) -> DeliberationState:
    return fold([turn(reply) for reply in replies])


def numbers(state: DeliberationState) -> list[int]:
    return [thought.id for thought in state.thoughts]


def correct(number: int, text: str = "Better.", *rules: str) -> dict[str, Any]:
    return {"thought": number, **thought(text, *rules)}


def rewrite(number: int, text: str = "Better.", *rules: str) -> dict[str, Any]:
    return {**correct(number, text, *rules), "decision": "rewrite", "why": "Badly put."}


def dispute(number: int) -> dict[str, Any]:
    return {"thought": number, "reason": "Is that so?"}


KEEP = {"thought": 1, "decision": "keep"}


def test_a_draft_gives_thoughts_numbers_from_one_and_a_response() -> None:
    state = after(intents("To know."), draft("One.", "Two.", response="Yes."))

    assert [intent.text for intent in state.intents] == ["To know."]
    assert [(t.id, t.text, t.author, t.round) for t in state.thoughts] == [
        (1, "One.", "drafter", 0),
        (2, "Two.", "drafter", 0),
    ]
    assert (state.response, state.response_by) == ("Yes.", "drafter")


def test_a_number_is_never_used_twice() -> None:
    state = after(
        draft("One.", "Two."),
        revises(correct=[correct(2)], add=[thought("Three.")]),
        refines(drop(4), drop(3)),
        revises(add=[thought("Four.")]),
    )

    assert numbers(state) == [1, 5]
    assert sorted(numbers(state) + [gone.thought.id for gone in state.removed]) == [1, 2, 3, 4, 5]


def test_a_corrected_thought_keeps_its_place_and_the_old_wording_is_recorded() -> None:
    state = after(draft("One.", "Two.", "Three."), revises(correct=[correct(2, "Two, rightly.")]))

    assert [t.text for t in state.thoughts] == ["One.", "Two, rightly.", "Three."]
    assert (state.thoughts[1].id, state.thoughts[1].replaces) == (4, 2)
    (gone,) = state.removed
    assert (gone.thought.text, gone.reason, gone.why) == ("Two.", "corrected", "")
    assert (gone.by, gone.round, gone.replaced_by) == ("deliberator", 2, 4)


def test_the_policy_of_a_cited_rule_is_added_once_after_those_cited() -> None:
    fraud = CONTRACT.policy_set.owners["FD1"]
    state = after(draft(), revises(add=[thought("More.", "FD1", "FD2", "RH1")]))

    assert state.thoughts[-1].policies == ["respect_helpfulness", fraud]
    assert state.thoughts[-1].rules == ["FD1", "FD2", "RH1"]


def test_a_rule_that_the_policies_no_longer_have_adds_no_policy() -> None:
    old = Citation(text="One.", policies=["respect_helpfulness"], rules=["nope", "RH2"])
    reply = DraftReply(thoughts=[old], response="R.")
    state = fold([turn(draft()).model_copy(update={"reply": reply})])

    assert state.thoughts[0].policies == ["respect_helpfulness"]


def test_a_dispute_stays_with_the_thought_until_it_is_reworded() -> None:
    state = after(draft("One.", "Two."), revises(dispute=[dispute(1), dispute(2)]))
    assert [(o.by, o.round, o.reason) for o in state.thoughts[0].objections] == [
        ("deliberator", 2, "Is that so?")
    ]

    state.apply(turn(revises(correct=[correct(1)])))
    assert [len(t.objections) for t in state.thoughts] == [0, 1]
    assert len(state.removed[0].thought.objections) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"correct": [correct(7)]},
        {"correct": [correct(0)]},
        {"correct": [correct(-1)]},
        {"dispute": [dispute(10**30)]},
        # Numbers of the same reply are not known to its writer.
        {"add": [thought("Three.")], "dispute": [dispute(3)]},
        {"correct": [correct(1), correct(3, "Again.")]},
        {"correct": [correct(1), correct(1, "Again.")]},
        {"correct": [correct(1)], "dispute": [dispute(1)]},
    ],
)
def test_a_reference_to_an_unknown_thought_is_ignored_and_counted(
    changes: dict[str, Any],
) -> None:
    state = after(draft("One.", "Two."), revises(**changes))

    assert state.ignored_references == 1
    assert "Again." not in [t.text for t in state.thoughts]
    assert not any(t.objections for t in state.thoughts)


def test_a_thought_that_was_corrected_earlier_is_unknown() -> None:
    state = after(draft("One."), revises(correct=[correct(1)]), revises(correct=[correct(1, "X.")]))

    assert [t.text for t in state.thoughts] == ["Better."]
    assert state.ignored_references == 1


CHANGES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "add": {"add": [thought("More.")]},
    "correct": {"correct": [correct(1)]},
    "response": {"response": "Another."},
    "same response": {"response": " The first response. "},
    "same thought": {"correct": [correct(1, "First.", "RH1")]},
    "no such thought": {"correct": [correct(9)]},
}
REAL = ("add", "correct", "response")


@pytest.mark.parametrize(
    ("verdict", "change", "disputes"),
    list(itertools.product(("accept", "revise"), CHANGES, (0, 2, 9))),
)
def test_the_stance_follows_from_what_a_turn_does_rather_than_from_its_verdict(
    verdict: str, change: str, disputes: int
) -> None:
    reply = {**accepts(), **CHANGES[change], "verdict": verdict}
    reply["dispute"] = [dispute(disputes)] if disputes else []
    state = after(draft("First.", "Second."))

    expected: Stance = "neither"
    if change in REAL:
        expected = "contests" if disputes == 2 else "revises"
    elif verdict == "accept" and disputes != 2:  # 9 does not exist, so nothing is disputed
        expected = "accepts"
    assert state.apply(turn(reply)) == expected
    assert (numbers(state) != [1, 2] or state.response != "The first response.") == (change in REAL)


def test_a_thought_repeated_with_another_citation_is_a_correction() -> None:
    state = after(draft("First."), revises(correct=[correct(1, "First.", "RH2")]))

    assert [(t.id, t.rules) for t in state.thoughts] == [(2, ["RH2"])]


@pytest.mark.parametrize("reply", [intents("x"), draft(), refines()])
def test_only_deliberators_take_a_stance(reply: dict[str, Any]) -> None:
    assert after(draft()).apply(turn(reply)) is None


@pytest.mark.parametrize("role", list(TYPES))
def test_a_turn_without_a_reply_changes_nothing(role: Role) -> None:
    state, same = after(draft("One.")), after(draft("One."))

    assert state.apply(turn(None, role=role)) is None
    assert state == same


def test_the_refiner_keeps_rewrites_and_drops_and_all_others_stay() -> None:
    state = after(
        draft("One.", "Two.", "Three.", "Four."),
        refines(KEEP, rewrite(2, "Two, well put.", "RH2"), drop(3, "deceptive", "It misleads.")),
    )

    assert [t.text for t in state.thoughts] == ["One.", "Two, well put.", "Four."]
    assert (state.thoughts[1].replaces, state.thoughts[1].author) == (2, "refiner")
    rewritten, dropped = state.removed
    assert (rewritten.reason, rewritten.why, rewritten.replaced_by) == (
        "rewritten",
        "Badly put.",
        5,
    )
    assert (dropped.reason, dropped.why, dropped.by) == ("deceptive", "It misleads.", "refiner")
    assert dropped.replaced_by is None


def test_the_first_decision_on_a_thought_counts() -> None:
    state = after(draft("One.", "Two."), refines(KEEP, drop(1), drop(2), rewrite(2), drop(9)))

    assert numbers(state) == [1]
    assert [gone.reason for gone in state.removed] == ["redundant"]
    assert state.ignored_references == 3


def test_a_rewrite_that_changes_nothing_keeps_the_thought() -> None:
    state = after(draft("One."), refines(rewrite(1, "One.", "RH1")))

    assert numbers(state) == [1]
    assert state.removed == []


@pytest.mark.parametrize("response", [None, "The first response."])
def test_a_response_that_the_refiner_does_not_change_keeps_its_author(response: str | None) -> None:
    assert after(draft(), refines(response=response)).response_by == "drafter"
    assert after(draft(), refines(response="Final.")).response_by == "refiner"


@pytest.mark.parametrize(
    ("decisions", "everything"),
    [
        ([drop(1), drop(2)], True),
        ([drop(1), drop(2), drop(9)], True),
        ([drop(1), drop(2), {**KEEP, "thought": 2}], True),
        ([drop(1), {**KEEP, "thought": 2}, drop(2)], False),
        ([drop(1)], False),
        ([drop(1), rewrite(2)], False),
        ([], False),
    ],
)
def test_dropping_everything_is_detected_in_advance(
    decisions: list[dict[str, Any]], everything: bool
) -> None:
    state = after(draft("One.", "Two."))
    reply = turn(refines(*decisions)).reply
    assert isinstance(reply, RefinementReply)

    assert state.drops_everything(reply) is everything
    state.apply(turn(refines(*decisions)))
    assert (state.thoughts == []) is everything


def test_without_thoughts_nothing_can_be_dropped() -> None:
    reply = turn(refines(drop(1))).reply
    assert isinstance(reply, RefinementReply)

    assert not after().drops_everything(reply)


def test_the_summary_of_a_turn_gives_the_numbering_and_no_text_of_any_model() -> None:
    state, texts = after(), default_prompts().section("deliberation").changes
    replies = (
        intents("SECRET"),
        draft("SECRET", "SECRET", response="SECRET"),
        accepts("SECRET"),
        revises(comment="SECRET"),
        revises(
            correct=[correct(2, "SECRET!")],
            add=[thought("SECRET")],
            dispute=[dispute(1), dispute(9)],
            response="SECRET!",
        ),
        refines(drop(1), rewrite(3, "SECRET?"), response="SECRET?"),
        refines(),
        draft("SECRET"),
    )
    summaries = []
    for reply in replies:
        state.apply(turn(reply))
        if state.last_agent is not None:
            summaries.append(summary(state, texts))

    assert summaries == [
        "drafter wrote thoughts 1, 2 and the response.",
        "deliberator accepted.",
        "deliberator changed nothing.",
        "deliberator corrected 2, now 3, added thought 4, rewrote the response, disputed 1.",
        "refiner dropped 1, rewrote 3, now 5, rewrote the response.",
        "refiner changed nothing.",
        "drafter wrote thought 6 and the response.",
    ]


def test_applying_turns_does_not_change_them_and_is_deterministic() -> None:
    turns = [turn(r) for r in (draft("One."), revises(dispute=[dispute(1)]), refines(rewrite(1)))]
    before = [t.model_dump_json() for t in turns]

    assert fold(turns) == fold(turns)
    assert [t.model_dump_json() for t in turns] == before


def test_adding_an_existing_thought_is_no_change() -> None:
    state = after(draft("First."))
    stance = state.apply(turn({**accepts(), "add": [thought("First.", "RH1")]}))
    assert stance == "accepts"
    assert [t.text for t in state.thoughts] == ["First."]


def test_changing_one_thought_and_disputing_another_is_contesting() -> None:
    state = after(draft("First.", "Second."))
    assert state.apply(turn(revises(correct=[correct(1)], dispute=[dispute(2)]))) == "contests"
