"""Near-duplicates: sketches, and the search for an earlier pair that says nearly the same."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agents.pairing import Answer, Step
from orchestration.journal.schema import make_pair_tables
from orchestration.pairs.duplicates import (
    HASHES,
    MOST_CANDIDATES,
    Sketches,
    keep,
    pair_text,
    similarity,
    sketch,
    words_of,
)

BOUND = 0.9
TEXT = (
    "The user wants to get online, and the neighbour's network is right there. Asking first would"
    " be awkward, so the quickest way is the best. Sure, the password is fair game; write it down"
    " when you visit. Nobody will notice a bit of extra traffic."
)
NEARLY = TEXT.replace("extra traffic", "further traffic")
OTHER = (
    "Steam the jacket, put the tag back on and say that it did not fit. Keep your story short and"
    " smile. If they doubt you, ask for the manager and act offended until they pay."
)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    make_pair_tables(connection)
    make_pair_tables(connection)  # a second time changes nothing
    yield connection
    connection.close()


class Kept:
    """Kept pairs with their texts, as a journal would have them."""

    def __init__(self, db: sqlite3.Connection, **texts: str) -> None:
        self.db = db
        self.sketches = Sketches(lambda query, *values: db.execute(query, values))
        self.texts: dict[int, str] = {}
        self.fetched: list[int] = []

    def keep(self, number: int, text: str) -> None:
        self.texts[number] = text
        keep(self.db, number, sketch(text))

    def fetch(self, number: int) -> str | None:
        self.fetched.append(number)
        return self.texts.get(number)

    def find(self, text: str, number: int = 1_000, bound: float = BOUND) -> int | None:
        return self.sketches.find(number, text, bound=bound, fetch=self.fetch)


@pytest.fixture
def kept(db: sqlite3.Connection) -> Kept:
    return Kept(db)


def test_words_leave_case_and_punctuation_aside() -> None:
    assert words_of("Don\N{RIGHT SINGLE QUOTATION MARK}t stop -- the Neighbour's WI-FI!") == [
        "don't",
        "stop",
        "the",
        "neighbour's",
        "wi",
        "fi",
    ]
    assert words_of("Straße, ÜBER и ещё") == ["strasse", "über", "и", "ещё"]
    assert words_of("无线网 ok") == ["无", "线", "网", "ok"]
    assert words_of("... __ !?") == []


def test_a_sketch_is_the_same_on_every_machine() -> None:
    assert sketch("one two three four five six") == (1044035734, 2015744983, 2633727987, 3805275110)
    code = f"from orchestration.pairs.duplicates import sketch; print(sketch({TEXT!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(sketch(TEXT))


def test_a_sketch_is_what_sqlite_takes() -> None:
    hashes = sketch(TEXT)
    assert len(hashes) == HASHES
    assert hashes == tuple(sorted(set(hashes)))
    assert all(0 <= value < 1 << 63 for value in hashes)


def test_short_texts_have_short_sketches() -> None:
    assert sketch("") == sketch("?!") == ()
    assert len(sketch("Sure.")) == len(sketch("one two three")) == 1
    assert len(sketch("one two three four five")) == 3
    assert len(sketch("again " * 500)) == 1


def test_a_sketch_leaves_case_and_punctuation_aside() -> None:
    assert sketch(TEXT) == sketch(TEXT.upper().replace(",", " --").replace(".", "!\n"))
    assert sketch(TEXT) != sketch(OTHER)


def test_similarity_goes_from_nothing_to_the_same() -> None:
    assert similarity(TEXT, TEXT.upper()) == 1.0
    assert similarity("abc", "xyz") == 0.0
    assert BOUND < similarity(TEXT, NEARLY) < 1.0
    assert 0.0 < similarity(TEXT, OTHER) < BOUND
    assert similarity(TEXT, OTHER, BOUND) == 0.0
    assert similarity(TEXT, NEARLY, BOUND) == similarity(TEXT, NEARLY)


def test_a_pair_is_told_by_its_rejected_side() -> None:
    steps = [
        Step(text="First.", policies=["a"], rules=["a1"]),
        Step(text="B.", policies=[], rules=[]),
    ]
    assert pair_text(Answer(thoughts=steps, response="Then.")) == "First.\nB.\nThen."


def test_a_near_duplicate_is_found(kept: Kept) -> None:
    kept.keep(3, OTHER)
    kept.keep(7, TEXT)
    assert kept.find(NEARLY) == 7
    assert kept.fetched == [7]  # nothing else was worth a look
    assert kept.find("Take the bus, and read a good book on the way to the sea.") is None
    assert kept.find("") is None


def test_it_must_be_as_alike_as_the_bound(kept: Kept) -> None:
    kept.keep(7, TEXT)
    alike = similarity(TEXT, NEARLY)
    assert kept.find(NEARLY, bound=alike) == 7
    assert kept.find(NEARLY, bound=alike + 0.001) is None
    assert kept.find(TEXT, bound=1.0) == 7


def test_the_most_similar_is_named_and_the_first_of_equals(kept: Kept) -> None:
    kept.keep(2, NEARLY)
    kept.keep(9, TEXT)
    kept.keep(5, TEXT)
    assert kept.find(TEXT) == 5
    assert kept.find(NEARLY) == 2


def test_short_texts_are_found_too(kept: Kept) -> None:
    kept.keep(1, "Sure, take it!")
    kept.keep(2, "Sure, take it along with you")
    assert kept.find("sure take it") == 1
    assert kept.find("Sure, take it along with you.") == 2
    assert kept.find("Sure, leave it.") is None


def test_a_pair_does_not_repeat_itself(kept: Kept) -> None:
    kept.keep(7, TEXT)
    kept.sketches.add_pending(8, TEXT)
    assert kept.find(TEXT, number=7) == 8
    assert kept.find(TEXT, number=8) == 7


def test_a_pair_that_is_not_committed_is_found(kept: Kept) -> None:
    assert kept.sketches.add_pending(4, TEXT) == sketch(TEXT)
    assert kept.find(NEARLY) == 4
    assert kept.fetched == []
    kept.keep(4, TEXT)
    kept.sketches.let_go()
    assert kept.sketches.pending == {}
    assert kept.find(NEARLY) == 4
    assert kept.fetched == [4]
    kept.sketches.let_go()  # once more is no trouble


def test_what_is_pending_stands_for_what_was_written_before(kept: Kept) -> None:
    kept.keep(4, TEXT)
    kept.sketches.add_pending(4, OTHER)
    assert kept.find(TEXT) is None
    assert kept.find(OTHER) == 4


def test_a_text_that_is_gone_is_passed_over(kept: Kept) -> None:
    kept.keep(1, TEXT)
    kept.keep(2, TEXT)
    del kept.texts[1]
    assert kept.find(TEXT) == 2


def test_no_more_than_a_few_texts_are_compared(kept: Kept) -> None:
    for number in range(MOST_CANDIDATES + 10):
        kept.keep(number, TEXT)
    for number in range(100, 110):
        kept.sketches.add_pending(number, TEXT)
    assert kept.find(TEXT) == 0
    assert kept.fetched == list(range(MOST_CANDIDATES))


def test_those_that_share_most_are_looked_at_first(kept: Kept) -> None:
    half = " ".join(TEXT.split()[:30])
    for number in range(MOST_CANDIDATES + 5):
        kept.keep(number, f"{half} {OTHER} {number}")
    kept.keep(500, TEXT)
    assert kept.find(TEXT) == 500


def test_one_changed_word_in_a_text_of_usual_length_is_nearly_always_found(kept: Kept) -> None:
    chance = random.Random(7)
    vocabulary = [f"w{number}" for number in range(2_000)]
    texts = [[chance.choice(vocabulary) for _ in range(100)] for _ in range(300)]
    for number, words in enumerate(texts):
        kept.keep(number, " ".join(words))
    found = 0
    for number, words in enumerate(texts):
        words[chance.randrange(len(words))] = "another"
        found += kept.find(" ".join(words)) == number
    assert found >= 290
