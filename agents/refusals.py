"""Whether prose that came instead of a typed reply reads like a refusal to take part."""

from __future__ import annotations

import re

from agents.parsing import without_thinking

_REFUSAL = re.compile(
    r"""\W*(
        ((i'?m|i\ am)\ ((so|very|really|truly)\ )?)?sorry\b(?!\ for\ the\b)
      | i\ (do\ |must\ )?apologi[sz]e\b(?!\ for\ the\b)
      | (as\ an?\ (ai|assistant|language\ model)\b[^.]{0,40}?,?\ )?
        (unfortunately,?\ |i'?m\ afraid\ (that\ )?)?
        (i|we)\ ?(\w+ly\ |must\ |have\ to\ )*
        ( can(no|')t | can\ not | won't | will\ not | decline
        | ('m|\ am|am|\ are)\ ?(unable|not\ able|not\ comfortable|not\ willing) )
        # Finding nothing is no refusal, only the wrong form of a reply.
        (?!(\ to)?\ (see|find|think|spot|identify|detect|add|improve|tell)\b)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def looks_like_refusal(text: str) -> bool:
    """Whether a text begins like a refusal.

    Asked only of replies that could not be parsed: it decides between two failures, never about
    the content of a chat. `refused` goes to the fallback models, `malformed` to a correction turn.
    In doubt it says no, since a correction turn costs little and a model that does refuse will do
    so again. So "I am not able to see a problem" is no refusal: that is a deliberator at work.
    """
    said = without_thinking(text).strip()[:200].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return bool(_REFUSAL.match(said))
