"""The audit: what there is against training on a preference pair.

The rejected side was written on purpose under a false belief. A pair is fit for DPO if the chosen
side is good, the rejected side is bad in substance and well-formed, and nothing else tells them
apart: no words of the belief, no refusal, no debris, no great difference in length.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agents.pairing import PairKind
from agents.words import has_words, words_of
from orchestration.pairs.duplicates import similarity
from orchestration.pairs.leaks import (
    FEWEST_WORDS,
    has_debris,
    has_gaps,
    loops,
    refuses,
    shared_run,
    talks_of_instruction,
)
from orchestration.pairs.pair import SET_ASIDE, Finding, SetAside, Side
from policies.problems import FieldError

SCORE_DIGITS = 6
"""Decimals to which scores are compared: 0.7 less 0.4 is 0.3."""


class AuditBounds(BaseModel):
    """From where on something counts against a pair; null or false leaves a rule out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _left_out(cls, value: Any, info: ValidationInfo) -> Any:
        """Null and false both leave a rule out, whether it is a number or a switch."""
        is_switch = cls.model_fields[info.field_name or ""].annotation is bool
        if value is None or value is False:
            return False if is_switch else None
        if value is True and not is_switch:
            raise FieldError(
                f'"{info.field_name}" is a number, and not true.',
                "Write one, or null for no bound.",
            )
        return value

    min_margin: float | None = Field(default=0.3, ge=0, le=1)
    """Least that the rejected side scores more than the chosen one."""
    max_chosen: float | None = Field(default=0.5, gt=0, le=1)
    """Score from which on the chosen side violates a policy itself."""
    leak_words: int | None = Field(default=6, ge=3, le=50, strict=True)
    """Words of a run that the belief and the rejected side share, from which on it is a leak."""
    leak_talk: bool = True
    """Whether the rejected side may not talk about the belief or the instruction."""
    refusals: bool = True
    """Whether a side may not refuse that is meant to help."""
    broken: bool = True
    """Whether the rejected side must be well-formed."""
    equal_sides: float | None = Field(default=0.9, gt=0, le=1)
    """Similarity of the sides' texts, 0 to 1, from which on they are the same."""
    length_ratio: float | None = Field(default=3.0, ge=1, le=1_000)
    """How many times as many words as the shorter side the longer one may have."""
    duplicates: float | None = Field(default=0.9, gt=0, le=1)
    """Similarity to an earlier kept pair, 0 to 1, from which on a pair repeats it."""


def audit(
    *,
    kind: PairKind,
    benign: bool,
    prompt: str,
    belief: str | None,
    chosen: Side,
    rejected: Side | None,
    stop_reason: str | None,
    margin: float | None,
    bounds: AuditBounds,
    duplicate_of: str | None = None,
) -> list[Finding]:
    """Looks for what there is against training on a pair.

    How the chat stopped, and a missing rejected side, count whatever the bounds are.

    Args:
        kind: What the rejected side was to do wrong.
        benign: Whether the prompt is harmless, so that the chosen side may not refuse.
        prompt: The prompt alone.
        belief: What the generator was made to believe; None where nobody whispered.
        chosen: The good side.
        rejected: The bad side; None if there is none, and then what needs one is left out.
        stop_reason: Why the chat ended.
        margin: Score of the rejected side less that of the chosen one.
        bounds: What counts.
        duplicate_of: Id of an earlier kept pair that this one nearly repeats.

    Returns:
        In the order of `SET_ASIDE`; the first is the reason to set the pair aside. Empty if
        there is nothing against it.
    """
    found: dict[SetAside, str | None] = {
        "chosen_violates": _chosen_violates(benign, chosen, stop_reason, bounds)
    }
    if stop_reason == "attempt_budget":
        found["no_violation"] = "No attempt scored as much as was asked for."
    elif rejected is None and not found["chosen_violates"]:
        found["no_violation"] = "There is no rejected side."
    if rejected is not None:
        found["broken"] = _broken(prompt, chosen, rejected) if bounds.broken else None
        if bounds.refusals and kind == "violation" and refuses(rejected.response):
            found["refusal"] = "The rejected side refuses, where it is to violate a policy."
        found["leak"] = _leak(prompt, belief, chosen, rejected, bounds)
        found["equal_sides"] = _equal_sides(chosen, rejected, bounds.equal_sides)
        found["low_margin"] = _low_margin(margin, bounds.min_margin)
        found["length"] = _length(chosen, rejected, bounds.length_ratio)
        if bounds.duplicates is not None and duplicate_of is not None:
            found["duplicate"] = f"Its rejected side nearly repeats that of pair {duplicate_of}."
    details = ((reason, found.get(reason)) for reason in SET_ASIDE)
    return [Finding(reason=reason, detail=detail) for reason, detail in details if detail]


def _chosen_violates(
    benign: bool, chosen: Side, stop_reason: str | None, bounds: AuditBounds
) -> str | None:
    score, bound = chosen.score, bounds.max_chosen
    if benign:  # where the prompt is harmless, no policy may be violated
        score = max((each.score for each in chosen.scores), default=score)
    if score is not None and bound is not None and _rounded(score) >= bound:
        return f"The chosen side scores {score:.2f}; less than {bound:.2f} is asked for."
    if stop_reason == "chosen_violates":
        scored = "" if score is None else f", which scores {score:.2f}"
        return f"The chat stopped because of the chosen side{scored}."
    if bounds.refusals and benign and refuses(chosen.response):
        return "The chosen side refuses, where the prompt is harmless."
    return None


def _broken(prompt: str, chosen: Side, rejected: Side) -> str | None:
    if not rejected.response.strip():
        return "The rejected side has no response."
    if chosen.thoughts and not rejected.thoughts:
        return f"The rejected side has no thoughts, and the chosen side has {len(chosen.thoughts)}."
    parts = [*(thought.text for thought in rejected.thoughts), rejected.response]
    empty = sum(not has_words(part) for part in parts)
    if empty:
        return f"Of the rejected side's thoughts and response, {empty} hold no words."
    elsewhere = (prompt, chosen.text)
    if any(has_debris(part, elsewhere) for part in parts):
        return "The rejected side holds JSON, a schema's keys, chat tokens or roles as prose."
    if loops(rejected.response) or loops(rejected.text):
        return "The rejected side says the same words again and again."
    if any(has_gaps(part, elsewhere) for part in parts):
        return "The rejected side has placeholders where text should be."
    words = len(words_of(rejected.response))
    if words < FEWEST_WORDS:
        return f"The rejected response has {words} words; at least {FEWEST_WORDS} are asked for."
    return None


def _leak(
    prompt: str, belief: str | None, chosen: Side, rejected: Side, bounds: AuditBounds
) -> str | None:
    elsewhere = (prompt, chosen.text)
    least = bounds.leak_words
    if belief and least is not None:
        run = shared_run(belief, rejected.text, elsewhere, least)
        if run:
            return (
                f"The rejected side shares a run of {run} words with the belief; fewer than {least}"
                " are asked for."
            )
    if bounds.leak_talk and talks_of_instruction(rejected.text, elsewhere):
        return "The rejected side talks about the belief or the instruction that it was given."
    return None


def _equal_sides(chosen: Side, rejected: Side, bound: float | None) -> str | None:
    if bound is None:
        return None
    alike = similarity(chosen.text, rejected.text, bound)
    if alike < bound:
        return None
    return f"The two sides are {alike:.2f} alike; less than {bound:.2f} is asked for."


def _low_margin(margin: float | None, bound: float | None) -> str | None:
    if bound is None:
        return None
    if margin is None:
        return f"Its margin is not known; at least {bound:.2f} is asked for."
    if _rounded(margin) >= bound:
        return None
    than = "more" if margin >= 0 else "less"
    return (
        f"It scores {abs(margin):.2f} {than} than the chosen side; at least {bound:.2f} more is"
        " asked for."
    )


def _length(chosen: Side, rejected: Side, bound: float | None) -> str | None:
    short, long = sorted((chosen.words, rejected.words))
    if bound is None or long <= bound * max(1, short):
        return None
    longer = "rejected" if rejected.words > chosen.words else "chosen"
    return (
        f"The {longer} side is the longer one with {long} words to {short}; at most {bound:g} times"
        " as many are asked for."
    )


def _rounded(score: float) -> float:
    return round(score, SCORE_DIGITS)
