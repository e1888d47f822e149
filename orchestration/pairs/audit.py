"""The audit: what speaks against training on a preference pair.

The rejected side was written on purpose under a false belief. A pair is fit for DPO if the chosen
side is good, the rejected side is bad in substance and well-formed, and nothing else tells them
apart: no words of the belief, no refusal, no debris, no great difference in length.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from agents.words import words_of
from orchestration.pairs.leaks import (
    FEWEST_WORDS,
    has_debris,
    has_gaps,
    loops,
    refuses,
    shared_run,
    talks_of_instruction,
)
from orchestration.pairs.pair import AuditFinding, PreferencePair, SetAside, Side
from orchestration.runs.near_duplicates import similarity
from policies import FieldError

SCORE_DIGITS = 6
"""Decimals to which scores are compared: 0.7 less 0.4 is 0.3."""


class AuditBounds(BaseModel, extra="forbid", frozen=True):
    """The bounds of the audit's rules; null or false turns a rule off."""

    min_margin: float | None = Field(default=0.3, ge=0, le=1)
    """Minimum by which the rejected side must score more than the chosen one."""
    max_chosen: float | None = Field(default=0.5, gt=0, le=1)
    """Score from which the chosen side violates a policy itself."""
    leak_words: int | None = Field(default=6, ge=3, le=50, strict=True)
    """Words in a row, shared by belief and rejected side, from which that is a leak."""
    leak_talk: bool = True
    """Whether the rejected side must not talk about the belief or the instruction."""
    refusals: bool = True
    """Whether a side that is meant to help must not refuse."""
    broken: bool = True
    """Whether the rejected side must be well-formed."""
    equal_sides: float | None = Field(default=0.9, gt=0, le=1)
    """Similarity of the sides' texts, 0 to 1, from which they are the same."""
    length_ratio: float | None = Field(default=3.0, ge=1, le=1_000)
    """How many times as many words as the shorter side the longer one may have."""
    duplicates: float | None = Field(default=0.9, gt=0, le=1)
    """Similarity to an earlier kept pair, 0 to 1, from which a pair repeats it."""

    @field_validator("*", mode="before")
    @classmethod
    def _null_or_false(cls, value: Any, info: ValidationInfo) -> Any:
        """Both turn a rule off, whether it has a number or a switch."""
        is_switch = cls.model_fields[info.field_name or ""].annotation is bool
        if value is None or value is False:
            return False if is_switch else None
        if value is True and not is_switch:
            raise FieldError(
                f'"{info.field_name}" is a number, and not true.',
                "Write one, or null for no bound.",
            )
        return value


def audit(
    pair: PreferencePair, benign: bool, bounds: AuditBounds, duplicate_of: str | None = None
) -> list[AuditFinding]:
    """Finds what speaks against training on a pair.

    How the chat stopped and a missing rejected side count whatever the bounds are. Rules that need
    a rejected side are skipped if there is none.

    Args:
        pair: A completed pair, not audited yet.
        benign: Whether the prompt is harmless, so that the chosen side must not refuse.
        bounds: What counts.
        duplicate_of: Id of an earlier kept pair that this one nearly repeats.

    Returns:
        Findings in the order of `SET_ASIDE`; the first is the reason to set the pair aside.
    """
    violates = _chosen_violates(pair, benign, bounds)
    found = [] if violates is None else [_finding("chosen_violates", violates)]
    if pair.stop_reason == "attempt_budget":
        found.append(_finding("no_violation", "No attempt reached the threshold."))
    elif pair.rejected is None and not found:
        found.append(_finding("no_violation", "There is no rejected side."))
    if pair.rejected is not None:
        found += _wording(pair, pair.rejected, bounds)
        found += _comparison(pair, pair.rejected, bounds)
        if bounds.duplicates is not None and duplicate_of is not None:
            detail = f"Its rejected side nearly repeats that of pair {duplicate_of}."
            found.append(_finding("duplicate", detail))
    return found


def _finding(reason: SetAside, detail: str) -> AuditFinding:
    return AuditFinding(reason=reason, detail=detail)


def _chosen_violates(pair: PreferencePair, benign: bool, bounds: AuditBounds) -> str | None:
    score, bound = pair.chosen.score, bounds.max_chosen
    if benign:  # if the prompt is harmless, no policy may be violated
        score = max((each.score for each in pair.chosen.scores), default=score)
    if score is not None and bound is not None and round(score, SCORE_DIGITS) >= bound:
        return f"The chosen side scores {score:.2f}; it must score below {bound:.2f}."
    if pair.stop_reason == "chosen_violates":
        scored = "" if score is None else f", which scores {score:.2f}"
        return f"The chat stopped because of the chosen side{scored}."
    if bounds.refusals and benign and refuses(pair.chosen.response):
        return "The chosen side refuses, although the prompt is harmless."
    return None


def _wording(pair: PreferencePair, rejected: Side, bounds: AuditBounds) -> Iterator[AuditFinding]:
    """What the rejected side's own words give away."""
    elsewhere, least = (pair.prompt, pair.chosen.text), bounds.leak_words
    broken = _broken(pair.chosen, rejected, elsewhere) if bounds.broken else None
    if broken is not None:
        yield _finding("broken", broken)
    if bounds.refusals and pair.kind == "violation" and refuses(rejected.response):
        detail = "The rejected side refuses, although it is to violate a policy."
        yield _finding("refusal", detail)
    if least and pair.belief and (run := shared_run(pair.belief, rejected.text, elsewhere, least)):
        detail = f"The rejected side shares {run} words in a row with the belief; fewer than "
        yield _finding("leak", f"{detail}{least} are allowed.")
    elif bounds.leak_talk and talks_of_instruction(rejected.text, elsewhere):
        detail = "The rejected side talks about the belief or the instruction that it was given."
        yield _finding("leak", detail)


def _broken(chosen: Side, rejected: Side, elsewhere: tuple[str, str]) -> str | None:
    if not rejected.response.strip():
        return "The rejected side has no response."
    if chosen.thoughts and not rejected.thoughts:
        return f"The rejected side has no thoughts, and the chosen side has {len(chosen.thoughts)}."
    parts = [*(thought.text for thought in rejected.thoughts), rejected.response]
    empty = sum(not words_of(part) for part in parts)
    if empty:
        return f"Of the rejected side's thoughts and response, {empty} contain no words."
    if any(has_debris(part, elsewhere) for part in parts):
        return "The rejected side contains JSON, schema keys, chat tokens or role names."
    if loops(rejected.response) or loops(rejected.text):
        return "The rejected side repeats the same words."
    if any(has_gaps(part, elsewhere) for part in parts):
        return "The rejected side has placeholders instead of text."
    words = len(words_of(rejected.response))
    if words < FEWEST_WORDS:
        return f"The rejected response has {words} words; the minimum is {FEWEST_WORDS}."
    return None


def _comparison(
    pair: PreferencePair, rejected: Side, bounds: AuditBounds
) -> Iterator[AuditFinding]:
    """What tells the sides apart too little, or too much."""
    chosen, margin = pair.chosen, pair.margin
    same, least, ratio = bounds.equal_sides, bounds.min_margin, bounds.length_ratio
    if same is not None and (alike := similarity(chosen.text, rejected.text, same)) >= same:
        detail = f"The similarity of the two sides is {alike:.2f}; it must be below {same:.2f}."
        yield _finding("equal_sides", detail)
    if least is not None and (margin is None or round(margin, SCORE_DIGITS) < least):
        found = "unknown" if margin is None else f"{margin:.2f}"
        yield _finding("low_margin", f"The margin is {found}; the minimum is {least:.2f}.")
    short, long = sorted((chosen.words, rejected.words))
    if ratio is not None and long > ratio * max(1, short):
        longer = "rejected" if rejected.words > chosen.words else "chosen"
        detail = f"The {longer} side has {long} words and the other {short}; at most "
        yield _finding("length", f"{detail}{ratio:g} times as many are allowed.")
