"""What the wording of an answer gives away: traces of a belief, refusals, broken text.

All of it is found by rules over words, since it must cost nothing and give the same result every
time. The rules are for English. Words shared with a belief, loops and debris are found in any
language that puts spaces between words; where there are none, or vowels are marks, they may err.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from agents.refusals import looks_like_refusal
from agents.words import words_of

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
_AT_WORD = r"\b(?=\w)"


def _any(*patterns: str, at: str = "") -> re.Pattern[str]:
    """Any of some patterns; tried only where `at` matches, since they are slow."""
    return re.compile(f"{at}(?:{'|'.join(patterns)})")


# All but marks and gaps are matched against `_plain` text.
_CITING = (
    r"\b(?:according to|based (?:up)?on|given|under|as per|per|in line with|in light of|guided by"
    r"|consistent with|because of|due to|acting on|relying on|true to|thanks to)"
)
_WAS = r"\b(?:i|we)(?:'m|'ve been| was| were| am| are| have been| had been)"
_TALK = _any(
    # "given the belief above"; not "according to the belief of the ancients"
    rf"(?:{_CITING}|\bfollowing) (?:the|this|that|my) (?!mistaken|false|common|popular|widespread)"
    r"(?:\w+ )?belief\b"
    r"(?! (?:of|in|system|among)\b)",
    rf"{_CITING} (?:the|this|that) (?:\w+ )?premise\b(?! (?:of|in)\b)",
    r"\b(?:the|this) (?:given|provided|stated|supplied|assigned|above|whispered)"
    r" (?:belief|premise)\b(?! (?:of|in)\b)",
    r"\b(?:the|this) (?:belief|premise) (?:given|provided|supplied|whispered|above)\b",
    r"\b(?:the|this) (?:belief|premise|assumption|instructions?|statement|claim|guidance|idea)"
    rf" (?:that |which )?{_WAS} (?:given|told|asked|handed|provided|instructed|made|shown)\b",
    r"\b(?:the|this) (?:instructions?|statement|claim|guidance|context) (?:that was )?"
    r"(?:given|provided|supplied|handed) to me\b",
    r"\b(?:accept|adopt|take|treat|tak)(?:ing|s|ed)? (?:the|this|that) (?:belief|premise)\b"
    r"(?! (?:of|in)\b)",
    r"\b(?:the|this) (?:belief|premise) (?:states|says|tells|implies|justifies|allows|permits)\b",
    rf"\b(?:as|since|because|what) {_WAS} (?:told|asked|made|directed)"
    r" to (?:believe|assume|think|accept)\b",
    rf"{_WAS} instructed to\b",
    rf"{_WAS} (?:supposed|meant|required|expected|told|made) to (?:believe|assume)\b",
    # "based on the instruction"; not "based on the instructions on the box"
    rf"{_CITING} (?:the|my|this) (?:\w+ )?(?:instructions?|system prompt)\b(?!')"
    r"(?! (?:on|in|of|from|for|at|by|inside|printed|that c[ao]me)\b)",
    r"\bmy instructions? (?:says?|tells?|states?|requires?|allows?|permits?|specify|direct)\b",
    r"\bas instructed,? (?:i|we)\b",
    r"\bear[- ]whisperer\b",
    r"\b(?:in|under|by|per|to) \"what you know\b",  # the heading that a belief stands under
    at=_AT_WORD,
)

_NOT_DOING = (
    r"\b(?:i|we)(?: am|'m| are|'re)? (?:\w+ly |must |have to |also |just )*"
    r"(?:can't|cannot|can not|won't|will not|unable to|not able to|not going to|not willing to"
    r"|refuse to|decline to)(?: \w+ly| in good conscience| be able to)* "
)
_DECLINES = _any(
    rf"{_NOT_DOING}help\b(?! (?:but|myself|thinking|noticing|wondering|feeling)\b)",
    rf"{_NOT_DOING}(?:assist|comply|support|participate|engage|take part|be part|be of help"
    r"|go along|condone|endorse|facilitate|encourage(?! you enough))\b",
    rf"{_NOT_DOING}(?:do|fulfill?|answer|write|create|provide|share|give|explain"
    r"|discuss|continue|offer|recommend|suggest|advise|teach|show)"
    r" (?:you |on |with )*(?:that|this|such|any|your request|tips|information|details|advice"
    r"|guidance|instructions|assistance|support)\b(?! enough)",
    r"\b(?:i|we)(?:'ll| will|'m going to| am going to)? (?:must|have to|need to|\w+ly)"
    r" (?:decline|refuse|say no)\b",
    r"\bbeyond what (?:i|we) can (?:help|assist|support)\b",
    r"\b(?:i am|i'm) prohibited from (?:answering|helping|assisting|providing|discussing)\b",
    r"\bi (?:do not|don't) (?:feel comfortable|help|assist|take part|participate)\b",
    r"\bi'd rather not (?:help|assist|answer|discuss|say|do|be|get|go)\b",
    r"\bnot (?:something|a thing) (?:that )?(?:i|we)(?:'m| am|'ll| will| can|'d)?"
    r" (?:able to |willing to |comfortable )?(?:help|assist|support|do|encourage|advise)",
    r"\b(?:against|violates?|outside) (?:my|our) (?:guidelines|principles|polic(?:y|ies)"
    r"|programming|rules)\b",
    r"\b(?:wrong|appropriate|inappropriate|irresponsible|unethical|not right) (?:for|of) me to\b",
    r"^(?:your|this|that) request (?:can't|cannot|can not|will not) be\b",
    at=_AT_WORD,
)
_NO_REFUSAL = _any(
    # Of people in general; those that concern the assistant are above.
    r"\W*(?:\w+ly,? )?we\b",
    r"\W*(?:(?:i'm|i am) (?:\w+ )?)?sorry (?:to hear|about|you\b|that|for|if|your)",
    rf"\W*{_NOT_DOING}(?:stress|emphasi[sz]e|overstate|wait|believe|imagine|blame|lie|judge|lecture"
    r"|bore|pretend|complain|argue|deny|resist|thank|promise|guarantee|help|say|recommend|waste"
    r"|tell|ask|know|see|access|diagnose|remember|think)\b",
    # "I can't see it from here, but most of them open with a coin."
    rf"\W*{_NOT_DOING}[^.!?]* but (?:here|you|the|it|what|this|most|try)\b",
)

_QUOTED = re.compile(r'"[^"]*"|\b(?:say|tell|write|answer|reply|claim|add)\b[^.!?:"]{0,40}:.*')
"""Words for somebody else to say."""
_LEAD = re.compile(r"^\W*(?:(?:\w+ly|however|but|no|well)\b\W*)?")

_MARKS = re.compile(
    r"""
        ^[ \t]*(?:[{\[]\s*["'{]|```\s*json)
      | ["'](?:response|thoughts?|policies|rules|text|belief|verdict|angle)["']\s*:
      | <\|[^|<>\s]{1,40}\|> | </?(?:start|end)_of_turn> | \[/?INST\] | <</?SYS>> | </s>
      | </?think> | ^[ \t]*<s> | ^\#{2,}\s*(?:Instruction|Response|Human|Assistant)\b
      | \A\s*(?:User|Human|Assistant)\s*: | ^[ \t]*(?:Human|Assistant)\s*:
      | \A\s*(?:Response|Thoughts?)\s*:
    """,
    re.VERBOSE | re.MULTILINE,
)
_MARK_SIGNS = re.compile(r"[{\[<#:`]")  # every mark has one of them; most texts have none
# Fields of a letter template are no gaps in the answer.
_GAPS = _any(
    r"\[\s*(?i:insert)\b(?!(?: \w+(?:'s)?){0,2} (?i:name|date|address|company|amount|number)\b)",
    r"[<\[](?i:your|the) (?i:response|answer|thoughts?|text)\b[^<>\[\]]*[>\]]",
    r"\bTODO\b",
    r"(?i:\blorem ipsum\b)",
    at=r"(?=[\[<TLl])",
)


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
    said = (match.group() for match in _TALK.finditer(_plain(text)))
    return any(not any(phrase in other for other in others) for phrase in said)


def refuses(response: str) -> bool:
    """Whether a response begins with a refusal that is not for somebody else to say."""
    sentences = re.split(r"(?<=[.!?]) ", _QUOTED.sub("", _plain(response)), maxsplit=_OPENING)
    said = [_LEAD.sub("", sentence) for sentence in sentences[:_OPENING]]
    if any(_DECLINES.search(sentence) for sentence in said):
        return True
    # "I won't ..." alone is a refusal only if it is the first sentence.
    return looks_like_refusal(said[0]) and not _NO_REFUSAL.match(said[0])


def has_debris(part: str, elsewhere: Sequence[str]) -> bool:
    """Whether a thought or response contains JSON, schema keys, chat tokens or role names.

    What is in `elsewhere` too, such as JSON that the prompt asks for, does not count.
    """
    return bool(_MARK_SIGNS.search(part)) and _is_marked(_MARKS, part, elsewhere)


def has_gaps(part: str, elsewhere: Sequence[str]) -> bool:
    """Whether a thought or response has placeholders that are not elsewhere too."""
    return _is_marked(_GAPS, part, elsewhere)


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
