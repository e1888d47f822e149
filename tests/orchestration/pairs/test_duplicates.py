"""Promises of the search for an earlier kept pair that a rejected side nearly repeats."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME, Journal, Transaction
from orchestration.pairs.duplicates import MOST_CANDIDATES, DuplicateIndex
from orchestration.runs.near_duplicates import bands_of, similarity
from tests.orchestration.journals import opened
from tests.orchestration.runs.test_near_duplicates import BOUND, NEARLY, OTHER, TEXT

FEW = [f"p{number}" for number in range(10)]


class Kept:
    """Kept pairs with their texts, and the index of them."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.index = DuplicateIndex(journal, self.fetch)
        self.texts: dict[int, str] = {}
        self.fetched: list[int] = []

    async def store(self, number: int, text: str) -> None:
        await self.store_all({number: text})

    async def store_all(self, texts: dict[int, str]) -> None:
        self.texts |= texts
        for number, text in texts.items():
            add = partial(Transaction.add_to_buckets, number=number, buckets=bands_of(text))
            await self.journal.write(add)

    async def complete(self, number: int) -> None:
        await self.journal.write(lambda tx: tx.store_result(number, "completed", "kept/1", "{}"))

    def fetch(self, number: int) -> str | None:
        self.fetched.append(number)
        return self.texts.get(number)

    def find(self, text: str, number: int = 1_000, bound: float = BOUND) -> int | None:
        return self.index.find(number, text, bound)


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    async with opened(tmp_path / FILE_NAME, *FEW) as journal:
        yield Kept(journal)


async def test_a_near_duplicate_is_found(kept: Kept) -> None:
    await kept.store(3, OTHER)
    await kept.store(7, TEXT)
    assert kept.find(NEARLY) == 7
    assert kept.fetched == [7]  # the other is no candidate
    assert kept.find("Take the bus, and read a good book on the way to the sea.") is None
    assert kept.find("") is None


async def test_it_must_be_as_similar_as_the_bound(kept: Kept) -> None:
    await kept.store(7, TEXT)
    alike = similarity(TEXT, NEARLY)
    assert kept.find(NEARLY, bound=alike) == 7
    assert kept.find(NEARLY, bound=alike + 0.001) is None
    assert kept.find(TEXT, bound=1.0) == 7


async def test_the_most_similar_is_named_and_the_first_of_equals(kept: Kept) -> None:
    await kept.store_all({2: NEARLY, 9: TEXT, 5: TEXT})
    assert kept.find(TEXT) == 5
    assert kept.find(NEARLY) == 2


async def test_short_texts_are_found_too(kept: Kept) -> None:
    await kept.store_all({1: "Sure, take it!", 2: "Sure, take it along with you"})
    assert kept.find("sure take it") == 1
    assert kept.find("Sure, take it along with you.") == 2
    assert kept.find("Sure, leave it.") is None


async def test_a_pair_does_not_repeat_itself(kept: Kept) -> None:
    await kept.store(7, TEXT)
    kept.index.add(8, TEXT)
    assert kept.find(TEXT, number=7) == 8
    assert kept.find(TEXT, number=8) == 7


async def test_a_pair_that_is_not_committed_is_found(kept: Kept) -> None:
    assert kept.index.add(4, TEXT) == bands_of(TEXT)
    assert kept.find(NEARLY) == 4
    kept.index.drop_committed()
    assert kept.index.recent == {4: TEXT}
    assert kept.find(NEARLY) == 4
    assert kept.fetched == []


async def test_a_pair_that_is_committed_is_dropped_from_memory_and_still_found(kept: Kept) -> None:
    kept.index.add(4, TEXT)
    await kept.store(4, TEXT)
    await kept.complete(4)
    kept.index.drop_committed()
    assert kept.index.recent == {}
    assert kept.find(NEARLY) == 4
    assert kept.fetched == [4]
    kept.index.drop_committed()


async def test_memory_is_freed_while_pairs_are_added(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(1_000)]
    async with opened(tmp_path / FILE_NAME, *names) as journal:
        kept, most = Kept(journal), 0
        for number, name in enumerate(names):
            text = f"{name} {OTHER}"
            kept.index.add(number, text)
            await kept.store(number, text)
            await kept.complete(number)
            most = max(most, len(kept.index.recent))
        assert most <= 200


async def test_what_is_in_memory_replaces_what_was_stored_before(kept: Kept) -> None:
    await kept.store(4, TEXT)
    kept.index.add(4, OTHER)
    assert kept.find(TEXT) is None
    assert kept.find(OTHER) == 4


async def test_a_pair_that_is_no_longer_kept_is_skipped(kept: Kept) -> None:
    await kept.store_all({1: TEXT, 2: TEXT})
    del kept.texts[1]
    assert kept.find(TEXT) == 2


async def test_only_a_few_texts_are_compared(kept: Kept) -> None:
    await kept.store_all({number: TEXT for number in range(MOST_CANDIDATES + 10)})
    for number in range(100, 110):
        kept.index.add(number, TEXT)
    assert kept.find(TEXT) == 0
    assert kept.fetched == list(range(MOST_CANDIDATES))


async def test_those_that_share_most_bands_are_compared_first(kept: Kept) -> None:
    half = " ".join(TEXT.split()[:30])
    numbers = range(MOST_CANDIDATES + 5)
    await kept.store_all({number: f"{half} {OTHER} {number}" for number in numbers})
    await kept.store(500, TEXT)
    assert kept.find(TEXT) == 500


async def test_a_lost_index_is_restored(kept: Kept) -> None:
    await kept.store_all({1: TEXT, 2: OTHER})
    await kept.journal.write(lambda tx: tx.clear_buckets())
    assert kept.find(TEXT) is None
    await kept.index.restore([1, 2])
    assert kept.find(TEXT) == 1
    assert kept.find(OTHER) == 2


async def test_one_changed_word_in_a_text_of_usual_length_is_always_found(kept: Kept) -> None:
    chance = random.Random(7)
    vocabulary = [f"w{number}" for number in range(2_000)]
    texts = [[chance.choice(vocabulary) for _ in range(100)] for _ in range(300)]
    await kept.store_all({number: " ".join(words) for number, words in enumerate(texts)})
    for number, words in enumerate(texts):
        words[chance.randrange(len(words))] = "another"
        assert kept.find(" ".join(words)) == number
