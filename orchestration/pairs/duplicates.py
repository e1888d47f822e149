"""Finds an earlier kept pair whose rejected side a new one nearly repeats.

Prompts are not compared: a rejected side that recurs would be learnt by DPO whatever the prompt is.
The index is in the journal, so that a search takes the same time and memory in a run of any size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from orchestration.journal import Journal, Transaction
from orchestration.runs.near_duplicates import bands_of, similarity

MOST_CANDIDATES = 20
"""Texts that are compared in full, those with most bands in common first."""
_NEWEST = 500  # pairs of a band that are looked at: over-refusals often begin alike
_RECENT = 200  # added pairs in memory, before those that are committed are dropped
_BATCH = 200  # pairs that are indexed again in one transaction


class DuplicateIndex:
    """The rejected sides of a run's kept pairs.

    Args:
        journal: Of the run.
        text_of: Returns a stored pair's rejected text by its number; None if it is not kept.
    """

    def __init__(self, journal: Journal, text_of: Callable[[int], str | None]) -> None:
        self._journal = journal
        self._text_of = text_of
        self.recent: dict[int, str] = {}
        """Texts of pairs that may not be committed yet, by their numbers."""
        self._recent_bands: dict[int, frozenset[int]] = {}
        self._most_recent = _RECENT

    async def restore(self, numbers: Sequence[int]) -> None:
        """Adds stored pairs that are missing in the index."""
        for start in range(0, len(numbers), _BATCH):
            texts = {number: self._text_of(number) for number in numbers[start : start + _BATCH]}
            bands = {number: bands_of(text) for number, text in texts.items() if text}

            def add(tx: Transaction, bands: dict[int, tuple[int, ...]] = bands) -> None:
                for number, of_pair in bands.items():
                    tx.add_to_buckets(number, of_pair)

            await self._journal.write(add)

    def add(self, number: int, text: str) -> tuple[int, ...]:
        """Adds a kept pair that is not committed yet; returns the bands to store with it."""
        if len(self.recent) >= self._most_recent:
            self.drop_committed()
        bands = bands_of(text)
        self.recent[number], self._recent_bands[number] = text, frozenset(bands)
        return bands

    def drop_committed(self) -> None:
        """Drops the pairs from memory that are in the journal."""
        for number in [n for n in self.recent if self._journal.prompt(n)[1] is not None]:
            del self.recent[number], self._recent_bands[number]
        self._most_recent = len(self.recent) + _RECENT

    def find(self, number: int, text: str, bound: float) -> int | None:
        """Looks for a kept pair that a rejected side nearly repeats.

        Args:
            number: Number of the text's own pair, which is left out.
            text: The rejected side.
            bound: Minimum `similarity`.

        Returns:
            Number of the most similar pair, the lowest of equals; None if there is none.
        """
        matches: list[tuple[float, int]] = []
        for candidate in self._candidates(number, text):
            other = self.recent.get(candidate) or self._text_of(candidate)
            if other is not None and (alike := similarity(text, other, bound)) >= bound:
                matches.append((-alike, candidate))
        return min(matches)[1] if matches else None

    def _candidates(self, number: int, text: str) -> list[int]:
        bands = bands_of(text)
        # What is in memory is newer than what the journal has of the same pair.
        stored = self._journal.numbers_in(bands, _NEWEST)
        shared = Counter(found for found in stored if found not in self.recent)
        for recent, its_bands in self._recent_bands.items():
            shared[recent] = len(its_bands.intersection(bands))
        del shared[number]
        shared = +shared  # without those that share none
        return sorted(shared, key=lambda found: (-shared[found], found))[:MOST_CANDIDATES]
