"""What the wording of an answer gives away: traces of a belief, refusals, broken text.

All of it is found by rules over words, since it must cost nothing and give the same result every
time. The phrases in `leaks.yaml` are English. Words shared with a belief, loops and debris are
found in any language that puts spaces between words; where there are none, or vowels are marks,
they may err.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from agents.parsing import looks_like_refusal
from agents.words import words_of
from policies import load_yaml

FEWEST_WORDS = 3
"""Minimum length of a response in words."""
_SHORTEST_RUN = 3  # words; a belief that is shorter than a run leaks if all of it is there
_OPENING = 3  # sentences in which a refusal is looked for; later, such words are about others
_LOOP_GRAM = 4  # words whose repetition is counted
_LOOP_WORDS = 40  # minimum length in words for that count to mean anything
_LOOP_SHARE = 0.5  # share of repetitions above which a text loops
_LOOP_PERIOD = 12  # words of the longest phrase that is looked for repeated in a row
_LOOP_TIMES = 4  # minimum number of such repetitions
_LOOP_RUN = 8  # words that they must have at least, so that "no, no, no, no" is no loop
_STRAIGHT = str.maketrans("\u2019\u201c\u201d", '\'""')
_MARK_SIGNS = re.compile(r"[{\[<#:`]")  # every mark has one of them; most texts have none
_WORD_BEGINS = r"\b(?=\w)"
_BEGINS = {"talk": _WORD_BEGINS, "declines": _WORD_BEGINS, "gaps": r"(?=[\[<TLl])"}
"""Where the slow patterns are tried."""


class _Phrases(BaseModel, extra="forbid"):
    parts: dict[str, str]
    phrases: dict[str, list[str]]


@cache
def _phrases() -> _Phrases:
    return load_yaml(Path(__file__).with_suffix(".yaml"), _Phrases)


@cache
def _any(name: str) -> re.Pattern[str]:
    """Any of the phrases of that name."""
    either = "|".join(_phrases().phrases[name])
    for part, words in _phrases().parts.items():
        either = either.replace(f"{{{part}}}", words)
    return re.compile(f"{_BEGINS.get(name, '')}(?:{either})")


def shared_run(belief: str, text: str, elsewhere: Sequence[str], least: int) -> int:
    """Length in words of the longest run of words that a text shares with a belief.

    Args:
        belief: What the generator was made to believe.
        text: What it wrote.
        elsewhere: Texts written without the belief; words of runs that are in them too belong to
            the topic, and are not counted.
        least: Minimum length of a run in words; 0 is returned if there is none.
    """
    words = words_of(text)
    least = min(least, max(_SHORTEST_RUN, len(words_of(belief))))
    ours = _in_runs(words, [belief], least)
    if not any(ours):
        return 0
    topic = _in_runs(words, elsewhere, least)
    longest = run = 0
    for is_shared, is_topic in zip(ours, topic, strict=True):
        run = run + (not is_topic) if is_shared else 0
        longest = max(longest, run)
    return longest if longest >= least else 0


def _in_runs(words: Sequence[str], others: Sequence[str], least: int) -> list[bool]:
    """Whether each word is in a run of that many words that is in the others too."""
    known = {gram for other in others for gram in _grams(words_of(other), least)}
    found = [False] * len(words)
    for at, gram in enumerate(_grams(words, least) if known else ()):
        if gram in known:
            found[at : at + least] = [True] * least
    return found


def talks_of_instruction(text: str, elsewhere: Sequence[str]) -> bool:
    """Whether a text talks about a belief or instruction, in phrases that are not elsewhere too."""
    others = [_plain(other) for other in elsewhere]
    said = (match.group() for match in _any("talk").finditer(_plain(text)))
    return any(not any(phrase in other for other in others) for phrase in said)


def refuses(response: str) -> bool:
    """Whether a response begins with a refusal that is not for somebody else to say."""
    sentences = re.split(
        r"(?<=[.!?]) ", _any("quoted").sub("", _plain(response)), maxsplit=_OPENING
    )
    said = [_any("lead").sub("", sentence) for sentence in sentences[:_OPENING]]
    if any(_any("declines").search(sentence) for sentence in said):
        return True
    # "I won't ..." alone is a refusal only if it is the first sentence.
    return looks_like_refusal(said[0]) and not _any("no_refusal").match(said[0])


def has_debris(part: str, elsewhere: Sequence[str]) -> bool:
    """Whether a thought or response contains JSON, schema keys, chat tokens or role names.

    What is in `elsewhere` too, such as JSON that the prompt asks for, does not count.
    """
    return bool(_MARK_SIGNS.search(part)) and _is_marked(_any("marks"), part, elsewhere)


def has_gaps(part: str, elsewhere: Sequence[str]) -> bool:
    """Whether a thought or response has placeholders that are not elsewhere too."""
    return _is_marked(_any("gaps"), part, elsewhere)


def loops(text: str) -> bool:
    """Whether a text repeats a phrase again and again, or consists mostly of repetitions."""
    words = words_of(text)
    grams = list(_grams(words, _LOOP_GRAM))
    returning = len(grams) - len(set(grams))
    if not returning:
        return False  # any repeated phrase contains a repeated gram
    if len(words) >= _LOOP_WORDS and returning / len(grams) > _LOOP_SHARE:
        return True
    for period in range(1, _LOOP_PERIOD + 1):
        most = max(_LOOP_TIMES * period, _LOOP_RUN) - period
        run = 0
        for word, later in zip(words, words[period:], strict=False):
            run = run + 1 if word == later else 0
            if run >= most:
                return True
    return False


def _is_marked(marks: re.Pattern[str], part: str, elsewhere: Sequence[str]) -> bool:
    found = {match.group().strip() for match in marks.finditer(part)}
    return any(not any(mark in other for other in elsewhere) for mark in found)


def _grams(words: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _plain(text: str) -> str:
    """Lower case, straight quotes, single spaces."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_STRAIGHT)
    return " ".join(plain.split())
