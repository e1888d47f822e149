"""Pairs that nearly repeat an earlier one: found by sketches in SQLite, told by their texts.

A text's sketch is the smallest few hashes of its shingles (bottom-k MinHash, Broder 1997). Texts
that share enough of them are compared in full. Only the sketches of pairs that are not committed
yet are in memory, so the search stays flat for any number of pairs.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias
from zlib import crc32

from rapidfuzz import fuzz

from agents.pairing import Answer
from agents.words import words_of

SHINGLE, HASHES = 3, 16
"""Words of a shingle; hashes of a sketch."""
SHARED, MOST_CANDIDATES = 4, 20
"""Hashes that texts must share to be compared, or all if there are fewer; texts compared. Texts of
100 words that are 0.9 alike share about 9, so hardly one is missed; at 0.8 every other one is."""

_NEWEST = 500
"""Of the texts that share a hash, so many are looked at, the newest: over-refusals begin alike."""

Sketch: TypeAlias = tuple[int, ...]


def similarity(a: str, b: str, bound: float = 0.0) -> float:
    """How alike two texts are, case, punctuation and line breaks aside.

    Args:
        a: A text.
        b: Another.
        bound: What is below it is of no interest, and given as 0; that saves most of the work.

    Returns:
        0 (nothing in common) to 1 (the same words).
    """
    ratio = fuzz.ratio(" ".join(words_of(a)), " ".join(words_of(b)), score_cutoff=100 * bound)
    return ratio / 100


@lru_cache(maxsize=4)  # looked for, then kept
def sketch(text: str) -> Sketch:
    """The smallest hashes of a text's shingles, rising; none if it has no words."""
    words = [word.encode() for word in words_of(text)]
    size = min(SHINGLE, len(words))
    shingles = zip(*(words[at:] for at in range(size)), strict=False)
    # 32 bits are enough: texts that share hashes by chance are told apart by their words.
    return tuple(sorted({crc32(b" ".join(shingle)) for shingle in shingles})[:HASHES])


def pair_text(rejected: Answer) -> str:
    """What of a pair is compared: DPO would learn a text that recurs, whatever the prompt is."""
    return rejected.text


def keep(db: sqlite3.Connection, number: int, hashes: Sketch) -> None:
    """Writes the sketch of a kept pair; the caller commits."""
    rows = [(value, number) for value in hashes]
    db.executemany("INSERT OR IGNORE INTO sketches VALUES (?, ?)", rows)


class Sketches:
    """The texts of kept pairs, to look for one that is nearly the same.

    Args:
        rows: Gives the rows of a query with its values, where the table `sketches` is.
    """

    def __init__(self, rows: Callable[..., Iterable[tuple[Any, ...]]]) -> None:
        self.pending: dict[int, tuple[Sketch, str]] = {}
        """Kept pairs that may not be in the database yet."""
        self._pending_of: defaultdict[int, set[int]] = defaultdict(set)  # by their hashes
        self._rows = rows

    def add_pending(self, number: int, text: str) -> Sketch:
        """Lets a kept pair be found before it is committed; returns its sketch, for `keep`."""
        self._forget(number)
        hashes = sketch(text)
        self.pending[number] = (hashes, text)
        for value in hashes:
            self._pending_of[value].add(number)
        return hashes

    def _forget(self, number: int) -> None:
        hashes, _ = self.pending.pop(number, ((), ""))
        for value in hashes:
            self._pending_of[value].discard(number)
            if not self._pending_of[value]:
                del self._pending_of[value]

    def let_go(self) -> None:
        """Forgets the pending pairs that are found in the database."""
        query = "SELECT 1 FROM sketches WHERE hash = ? AND number = ?"
        for number, (hashes, _) in list(self.pending.items()):
            if not hashes or any(self._rows(query, hashes[0], number)):
                self._forget(number)

    def find(
        self, number: int, text: str, *, bound: float, fetch: Callable[[int], str | None]
    ) -> int | None:
        """Looks for a kept pair that a text nearly repeats.

        Args:
            number: Of the text's own pair, which is passed over.
            text: What `pair_text` gives.
            bound: The `similarity` from which on it repeats the other.
            fetch: Gives a committed pair's text by its number; None if it is there no more.

        Returns:
            Number of the most similar pair, the lowest of equals; None if there is none.
        """
        matches: list[tuple[float, int]] = []
        for candidate in self._candidates(number, sketch(text)):
            pending = self.pending.get(candidate)
            other = pending[1] if pending else fetch(candidate)
            if other is not None and (alike := similarity(text, other, bound)) >= bound:
                matches.append((-alike, candidate))
        return min(matches)[1] if matches else None

    def _candidates(self, number: int, hashes: Sketch) -> list[int]:
        """Pairs worth comparing, those that share most hashes first."""
        if not hashes:
            return []
        each = "SELECT * FROM (SELECT number FROM sketches WHERE hash = ? ORDER BY 1 DESC LIMIT ?)"
        query = " UNION ALL ".join([each] * len(hashes))
        values = [value for of_one in hashes for value in (of_one, _NEWEST)]
        # A pending pair's sketch is newer than what is written of the same pair.
        written = (number for (number,) in self._rows(query, *values) if number not in self.pending)
        shared = Counter(written)
        for value in hashes:
            shared.update(self._pending_of.get(value, ()))
        least = min(SHARED, len(hashes))
        worth = (at for at, count in shared.items() if count >= least and at != number)
        return sorted(worth, key=lambda at: (-shared[at], at))[:MOST_CANDIDATES]
