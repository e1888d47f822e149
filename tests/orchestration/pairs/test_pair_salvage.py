"""What a damaged pair run promises: it is told of, and what is intact comes out and goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME, JournalError
from orchestration.journal.salvage import salvage
from tests.orchestration.pairs.chats import pair_cast
from tests.orchestration.pairs.pair_runs import lessons_of, pairs_of, prefer, records_run
from tests.orchestration.pairs.test_pair_run import rated


async def made(folder: Path, number: int = 6) -> Path:
    """The folder of a pair run."""
    await records_run(folder, number)
    await prefer(folder, pair_cast(rated(9))[0])
    return folder / "pairs"


def break_header(pairs: Path) -> None:
    file = pairs / FILE_NAME
    file.write_bytes(b"x" * 16 + file.read_bytes()[16:])


async def test_a_sound_pair_run_is_called_sound(folder: Path, tmp_path: Path) -> None:
    assert salvage(await made(folder), tmp_path / "saved") is None


async def test_pairs_and_lessons_come_out_and_nothing_is_asked_again(
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
    assert summary.kept == 6


@pytest.mark.parametrize("table", ["lessons", "begun"])
async def test_a_damaged_row_is_told_of_with_its_remedy(table: str, folder: Path) -> None:
    pairs = await made(folder)
    with closing(sqlite3.connect(pairs / FILE_NAME)) as db:
        db.execute(f"UPDATE {table} SET checksum = checksum + 1")
        db.execute("UPDATE prompts SET outcome = NULL WHERE number = 5")
        db.commit()
    with pytest.raises(JournalError, match="is damaged"):
        await prefer(folder, pair_cast(rated(9))[0])
