"""What the journal does in trouble: damage, full disks, other versions, other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, SCHEMA_VERSION, Journal, JournalError
from orchestration.record import CoTRecord
from tests.orchestration.journals import answer, fill, ids, opened, tamper
from tests.orchestration.records import record

record()  # made once, outside of any event loop, since it takes a chat


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def trouble(
    path: Path, write: bool = False, look: Callable[[Journal], Any] = lambda j: list(j.records())
) -> JournalError:
    """The error of looking into a journal."""

    def open_and_look() -> None:
        with closing(Journal(path, write=write)) as journal:
            look(journal)

    with pytest.raises(JournalError) as caught:
        open_and_look()
    assert caught.value.exit_code == 5
    assert caught.value.remedy
    return caught.value


# Damage ------------------------------------------------------------------------------------------


def test_a_folder_without_a_journal_is_no_run(path: Path) -> None:
    assert trouble(path).cause == f"There is no run in {path.parent}."
    assert not path.exists()


@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_is_no_database_is_damaged_and_left_alone(path: Path, write: bool) -> None:
    content = b"this is not a database, " * 100
    path.write_bytes(content)
    assert "is damaged" in trouble(path, write).cause
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_damaged(path: Path) -> None:
    tamper(path, "CREATE TABLE other (x)")
    assert "is damaged (no such table: meta)" in trouble(path).cause


def test_a_journal_with_a_broken_page_is_damaged(path: Path) -> None:
    fill(path, *(f"p{n}" for n in range(10)))
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    assert "is damaged" in trouble(path).cause


def flip(path: Path, inside: bytes, bit: int) -> None:
    """Flips a bit of a text in the file, as a failing disk does: SQLite does not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(inside) + 1] ^= 1 << bit
    path.write_bytes(content)


BITS = pytest.mark.parametrize("bit", [0, 7], ids=["another letter", "no UTF-8 any more"])


@BITS
def test_a_flipped_bit_in_a_record_is_damage_and_not_another_record(bit: int, path: Path) -> None:
    fill(path, "a")
    flip(path, b"The first response.", bit)
    error = trouble(path)
    assert "is damaged (a row is not as it was written)" in error.cause
    assert f"aidsafe salvage {path.parent} --out" in error.remedy
    assert "is damaged" in trouble(path, look=lambda journal: journal.record(0)).cause
    assert "is damaged" in trouble(path, look=lambda journal: journal.find(CoTRecord, "a", 1)).cause


@BITS
def test_a_flipped_bit_in_a_reply_is_damage_and_not_another_reply(bit: int, path: Path) -> None:
    fill(path, "alpha")
    flip(path, b"Of alpha.", bit)
    error = trouble(path, look=lambda journal: journal.answers(0))
    assert "is damaged (a row is not as it was written)" in error.cause
    assert "aidsafe salvage" in error.remedy


@BITS
def test_a_flipped_bit_in_a_prompt_is_damage_and_not_another_prompt(bit: int, path: Path) -> None:
    fill(path, "alpha")
    flip(path, b"What of alpha?", bit)
    assert "is damaged" in trouble(path, look=lambda journal: list(journal.prompts())).cause
    assert "is damaged" in trouble(path, look=lambda journal: journal.prompt(0)).cause


@pytest.mark.parametrize(
    "column", ["key = 'other'", "model = 'other'", "checksum = 1", "prompt = 0"]
)
def test_a_reply_to_another_request_is_damage_too(column: str, path: Path) -> None:
    fill(path, "a", "b")
    tamper(path, f"UPDATE calls SET {column} WHERE call = 2")
    number = 0 if "prompt" in column else 1
    assert "is damaged" in trouble(path, look=lambda journal: journal.answers(number)).cause


def test_a_record_of_another_prompt_is_damage_too(path: Path) -> None:
    fill(path, "a", "b")
    tamper(path, "DELETE FROM records WHERE number = 0")
    tamper(path, "UPDATE records SET number = 0")
    assert "is damaged" in trouble(path).cause


def test_a_record_that_is_none_is_damage_too(path: Path) -> None:
    fill(path, "a")
    tamper(path, """UPDATE records SET record = '{"id": "a"}', checksum = 0""")
    assert "is damaged" in trouble(path).cause


@pytest.mark.parametrize("value", ["'{\"n\": '", "CAST(x'7b80' AS TEXT)"])
def test_a_prompt_that_cannot_be_read_is_damage_too(value: str, path: Path) -> None:
    fill(path, "a")
    tamper(path, f"UPDATE prompts SET metadata = {value}")
    assert "is damaged" in trouble(path, look=lambda journal: list(journal.prompts())).cause


def test_damage_in_one_record_does_not_hide_the_others(path: Path) -> None:
    fill(path, "a", "b")
    tamper(path, "UPDATE records SET checksum = 1 WHERE number = 1")
    with closing(Journal(path)) as journal:
        assert [each.id for each in journal.find(CoTRecord, "a", 9)] == ["a"]
        assert journal.outcomes() == {"completed": 2}


def test_another_version_is_named(path: Path) -> None:
    fill(path, "a")
    tamper(path, "UPDATE meta SET value = '99' WHERE key = 'schema'")
    said = f"has schema version 99, and this aidsafe reads version {SCHEMA_VERSION}"
    assert said in trouble(path).cause
    assert said in trouble(path, write=True).cause


# The disk ----------------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, "a")
    real = Journal._connect_to_write

    def small(self: Journal) -> sqlite3.Connection:
        db = real(self)
        db.execute("PRAGMA max_page_count = 25")  # SQLite then says what it says on a full disk
        return db

    kept = 0

    async def fill_up() -> None:
        nonlocal kept
        async with opened(path) as journal:
            while kept < 100:
                await journal.keep_call(0, b"%d" % kept, "m", "", answer("x" * 1000))
                kept += 1

    monkeypatch.setattr(Journal, "_connect_to_write", small)
    with pytest.raises(JournalError, match="cannot be written: database or disk is full") as caught:
        asyncio.run(fill_up())
    monkeypatch.setattr(Journal, "_connect_to_write", real)
    assert caught.value.exit_code == 5
    assert "Make room" in caught.value.remedy
    assert 0 < kept < 100
    assert ids(path) == ["a"]
    with closing(Journal(path)) as journal:
        assert len(journal.answers(0)) == 1 + kept
        assert journal.spend()[0].calls == 1 + kept, "a reply and its cost are kept together"


# Other processes ---------------------------------------------------------------------------------


def test_only_one_process_writes_at_a_time(path: Path) -> None:
    journal = Journal(path, write=True)
    with pytest.raises(JournalError, match="Another process is writing"):
        Journal(path, write=True)
    journal.close()
    Journal(path, write=True).close()


def test_a_journal_that_could_not_be_opened_is_not_locked(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(JournalError, match="damaged"):
        Journal(path, write=True)
    path.unlink()
    Journal(path, write=True).close()


def test_a_journal_for_reading_takes_nothing(path: Path) -> None:
    fill(path, "a")
    journal = Journal(path)
    with pytest.raises(ValueError, match="not open for writing"):
        asyncio.run(journal.keep_record(0, record("a")))
    journal.close()
    journal.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


def read_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    """Prints the ids in a journal, as somebody who may not write into its folder."""
    path.parent.chmod(0o555)
    script = (
        "import os, sys; from pathlib import Path; from orchestration.journal import Journal\n"
        # Root may write anywhere, so it becomes somebody else, once all is imported.
        "if os.getuid() == 0: os.setuid(65534)\n"
        "print([r.id for r in Journal(Path(sys.argv[1])).records()])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_journal_in_a_folder_that_may_only_be_read_is_read(open_folder: Path) -> None:
    fill(open_folder / FILE_NAME, "a", "b")
    done = read_as_nobody(open_folder / FILE_NAME)
    assert done.stdout == "['a', 'b']\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_an_unclosed_journal_in_such_a_folder_is_to_be_copied(open_folder: Path) -> None:
    path = open_folder / FILE_NAME
    fill(path, "a")
    path.with_name(f"{FILE_NAME}-wal").write_bytes(b"left by a process that was killed")
    done = read_as_nobody(path)
    assert "was not closed" in done.stderr
    assert "damaged" not in done.stderr
