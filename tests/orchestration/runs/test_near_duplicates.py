"""Promises of the bands and the similarity of texts, by which near-duplicates are found."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from agents.words import words_of
from orchestration.runs.near_duplicates import BANDS, bands_of, similarity

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
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgk" for b in ("an", "e", "ist", "o") for c in "lmnrt"]


def shared(a: str, b: str) -> int:
    """How many bands two texts have in common."""
    return len(set(bands_of(a)) & set(bands_of(b)))


def test_words_ignore_case_and_punctuation() -> None:
    words = words_of("Don\N{RIGHT SINGLE QUOTATION MARK}t stop -- the Neighbour's WI-FI!")
    assert words == ("don't", "stop", "the", "neighbour's", "wi", "fi")
    assert words_of("Straße, ÜBER и ещё") == ("strasse", "über", "и", "ещё")
    assert words_of("无线网 ok") == ("无", "线", "网", "ok")
    assert words_of("... __ !?") == ()


def test_bands_are_the_same_on_every_machine() -> None:
    # They are stored in journals: if a new version of the library changes them, its range in
    # pyproject.toml must not admit it before old indexes are rebuilt.
    assert bands_of("one two three four five six")[:2] == (
        -3827896963161370026,
        -3168954866381787436,
    )
    assert bands_of("Straße 无线网 ещё раз")[:2] == (
        -8229740351878561421,
        -3550820076620452395,
    )
    code = f"from orchestration.runs.near_duplicates import bands_of; print(bands_of({TEXT!r}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == str(bands_of(TEXT))


def test_bands_are_integers_that_sqlite_takes() -> None:
    bands = bands_of(TEXT)
    assert len(bands) == len(set(bands)) == BANDS
    assert all(-(1 << 63) <= band < 1 << 63 for band in bands)


def test_a_text_without_words_has_no_bands() -> None:
    assert bands_of("") == bands_of("?!") == ()


@pytest.mark.parametrize("text", ["Sure.", "Not now.", "one two three", "again " * 500, "是"])
def test_short_and_repetitive_texts_have_bands_too(text: str) -> None:
    assert len(bands_of(text)) == BANDS


def test_bands_ignore_case_and_punctuation() -> None:
    assert bands_of(TEXT) == bands_of(TEXT.upper().replace(",", " --").replace(".", "!\n"))


def test_near_duplicates_share_many_bands_and_other_texts_none() -> None:
    assert shared(TEXT, NEARLY) > BANDS / 2
    assert shared(TEXT, OTHER) == 0
    assert shared("Sure, take it!", "sure take it") == BANDS


def test_similarity_is_0_for_nothing_in_common_and_1_for_the_same_words() -> None:
    assert similarity(TEXT, TEXT.upper()) == 1.0
    assert similarity("abc", "xyz") == 0.0
    assert BOUND < similarity(TEXT, NEARLY) < 1.0
    assert 0.0 < similarity(TEXT, OTHER) < BOUND
    assert similarity(TEXT, OTHER, BOUND) == 0.0
    assert similarity(TEXT, NEARLY, BOUND) == similarity(TEXT, NEARLY)


def edited(words: list[str], chance: random.Random) -> list[str]:
    """The words with scattered changes, so many that the texts are hardly 0.9 alike."""
    changed = list(words)
    while similarity(" ".join(words), " ".join(changed)) > BOUND + 0.03:
        at = chance.randrange(len(changed))
        changed[at : at + 1] = chance.choice(
            ([], [chance.choice(VOCABULARY)], [changed[at], chance.choice(VOCABULARY)])
        )
    return changed


@pytest.mark.parametrize(("length", "least"), [(10, 0.85), (20, 0.95), (60, 0.97), (200, 0.98)])
def test_of_texts_that_are_0_9_alike_nearly_all_share_a_band(length: int, least: float) -> None:
    chance = random.Random(length)
    pairs = 0
    found = 0
    while pairs < 200:
        words = [chance.choice(VOCABULARY) for _ in range(length)]
        a, b = " ".join(words), " ".join(edited(words, chance))
        if similarity(a, b) >= BOUND:
            pairs += 1
            found += shared(a, b) > 0
    assert found / pairs >= least


def test_hardly_any_texts_on_other_matters_share_a_band() -> None:
    chance = random.Random(7)
    texts = [" ".join(chance.choices(VOCABULARY, k=100)) for _ in range(200)]
    numbers: dict[int, int] = {}
    for number, text in enumerate(texts):
        for band in bands_of(text):
            assert numbers.setdefault(band, number) == number
