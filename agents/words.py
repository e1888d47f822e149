"""The words of a text, for whatever is counted or compared in words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:'[^\W_{_UNSPACED}]+)*")


@lru_cache(maxsize=32)  # an audit asks for the words of a few texts again and again
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, case and punctuation aside; of Chinese and Japanese, the characters."""
    plain = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return tuple(_WORD.findall(plain.casefold()))
