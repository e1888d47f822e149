"""Promises of a damaged pair run: damage is reported, and intact data can be saved and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME, JournalError
from orchestration.journal.salvage import salvage
from tests.orchestration.journals import tamper
from tests.orchestration.pairs.chats import pair_cast
from tests.orchestration.pairs.pair_runs import (
    lessons_of,
    pairs_of,
    prefer,
    records_run,
    reopen,
)
from tests.orchestration.pairs.scripts import rated


async def made(folder: Path, number: int = 6) -> Path:
    """The folder of a pair run."""
    await records_run(folder, number)
    await prefer(folder, pair_cast(rated(9))[0])
    return folder / "pairs"


def break_header(pairs: Path) -> None:
    file = pairs / FILE_NAME
    file.write_bytes(b"x" * 16 + file.read_bytes()[16:])


async def test_nothing_is_saved_from_an_intact_pair_run(folder: Path, tmp_path: Path) -> None:
    assert salvage(await made(folder), tmp_path / "saved") is None


async def test_pairs_and_lessons_are_saved_and_no_call_is_repeated(
    folder: Path, tmp_path: Path
) -> None:
    pairs, saved = await made(folder), tmp_path / "saved"
    before, lessons = pairs_of(folder), lessons_of(folder)
    break_header(pairs)
    assert salvage(pairs, saved) is not None
    assert pairs_of(folder, saved) == before
    assert lessons_of(folder, saved) == lessons
    cast, client = pair_cast(rated(9))
    summary = await prefer(folder, cast, folder=saved)
    assert client.requests == []
    assert summary.tallies["audit"] == {"kept": 6}


@pytest.mark.parametrize("topic", ["lessons", "beginnings"])
async def test_a_damaged_note_is_reported(topic: str, folder: Path) -> None:
    pairs = await made(folder)
    await reopen(pairs)
    tamper(pairs / FILE_NAME, f"UPDATE notes SET checksum = checksum + 1 WHERE topic = '{topic}'")
    with pytest.raises(JournalError, match="is damaged"):
        await prefer(folder, pair_cast(rated(9))[0])
