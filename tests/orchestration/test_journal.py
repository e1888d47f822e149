"""What the journal promises: nothing that it took is lost, and trouble is one clear error."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal, JournalError
from tests.orchestration.records import failed, record

record()  # made once, outside of any event loop, since it takes a chat


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def fill(path: Path, *ids: str) -> None:
    async def add_all() -> None:
        with closing(Journal(path, write=True)) as journal:
            for number, name in enumerate(ids):
                await journal.add(number, record(name))

    asyncio.run(add_all())


def ids(path: Path) -> list[str]:
    journal = Journal(path)
    found = [each.id for each in journal.records()]
    journal.close()
    return found


# Durability --------------------------------------------------------------------------------------


async def test_a_record_is_on_disk_once_add_returns(path: Path) -> None:
    journal = Journal(path, write=True)
    await journal.add(0, record("a"))
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT prompt_id FROM records").fetchall() == [("a",)]
    other.close()
    journal.close()


def test_nothing_that_add_returned_for_is_lost_when_the_process_is_killed(path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, signal
        from pathlib import Path
        from orchestration.journal import Journal
        from tests.orchestration.records import record
        record()
        async def main():
            journal = Journal(Path({str(path)!r}), write=True)
            await asyncio.gather(*(journal.add(n, record(f"p{{n}}")) for n in range(20)))
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    died = subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False)
    assert died.returncode == -signal.SIGKILL
    assert ids(path) == [f"p{n}" for n in range(20)]


def test_the_journal_syncs_to_disk_with_every_commit(path: Path) -> None:
    journal = Journal(path, write=True)
    connection = journal._connect_to_write()
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    journal.close()


async def test_what_waits_together_is_committed_together(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    real = Journal._commit

    def count(self: Journal, db: Any, writes: list[Any], errors: Any) -> None:
        batches.append(len(writes))
        real(self, db, writes, errors)

    monkeypatch.setattr(Journal, "_commit", count)
    journal = Journal(path, write=True)
    await asyncio.gather(*(journal.add(n, record(f"p{n}")) for n in range(200)))
    journal.close()
    assert sum(batches) == 200
    assert len(batches) < 100
    assert len(ids(path)) == 200


async def test_a_record_whose_caller_was_cancelled_is_kept_all_the_same(path: Path) -> None:
    journal = Journal(path, write=True)
    adding = asyncio.create_task(journal.add(0, record("a")))
    await asyncio.sleep(0)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    journal.close()
    assert ids(path) == ["a"]


# Reading -----------------------------------------------------------------------------------------


async def test_others_read_while_it_is_written(path: Path) -> None:
    writing = Journal(path, write=True)
    await writing.add(0, record("a"))
    reading = Journal(path)
    records = reading.records()
    await writing.add(1, record("b"))
    await writing.add(2, failed("c"))
    assert next(records).id == "a"
    records.close()  # type: ignore[attr-defined]
    assert reading.outcomes() == {"completed": 2, "failed": 1}
    reading.close()
    writing.close()


async def test_records_come_in_the_order_of_their_prompts_not_of_their_end(path: Path) -> None:
    journal = Journal(path, write=True)
    for number in (2, 0, 3, 1):
        await journal.add(number, record(f"p{number}"))
    assert [each.id for each in journal.records()] == ["p0", "p1", "p2", "p3"]
    journal.close()


async def test_records_can_be_had_by_outcome_and_by_id_as_they_were(path: Path) -> None:
    journal = Journal(path, write=True)
    await journal.add(0, record("a"))
    await journal.add(1, failed("b"))
    assert [each.id for each in journal.records("failed")] == ["b"]
    assert journal.record("a") == record("a")
    assert journal.record("none") is None
    kept = journal.kept("b")
    assert kept is not None
    assert (kept.outcome, kept.prompt) == ("failed", "How are you?")
    assert journal.kept("none") is None
    journal.close()


@pytest.mark.parametrize("odd", ["a b/c", "'; DROP TABLE records; --", "-x", "\x1b[31m", "ä%_"])
def test_any_text_can_be_an_id(odd: str, path: Path) -> None:
    fill(path, odd)
    assert ids(path) == [odd]


# Ids ---------------------------------------------------------------------------------------------


async def test_a_second_record_of_one_prompt_is_refused_and_hurts_no_other(path: Path) -> None:
    journal = Journal(path, write=True)
    await journal.add(0, record("a"))
    results = await asyncio.gather(
        journal.add(1, failed("a")), journal.add(2, record("b")), return_exceptions=True
    )
    assert isinstance(results[0], JournalError)
    assert "a record of prompt 'a' already" in results[0].cause
    assert results[1] is None
    assert journal.outcomes() == {"completed": 2}
    journal.close()


async def test_a_record_can_take_the_place_of_an_earlier_one(path: Path) -> None:
    journal = Journal(path, write=True)
    await journal.add(0, failed("a"))
    await journal.add(0, record("a"), replace=True)
    assert journal.outcomes() == {"completed": 1}
    journal.close()


# Trouble -----------------------------------------------------------------------------------------


def trouble(path: Path, write: bool = False) -> JournalError:
    def read() -> None:
        list(Journal(path, write=write).records())

    with pytest.raises(JournalError) as caught:
        read()
    assert caught.value.exit_code == 5
    assert caught.value.remedy
    return caught.value


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
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE other (x)")
    db.close()
    assert "is damaged (no such table: meta)" in trouble(path).cause


def test_a_journal_with_a_broken_page_is_damaged(path: Path) -> None:
    fill(path, *(f"p{n}" for n in range(10)))
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    assert "is damaged" in trouble(path).cause


def test_a_record_that_is_none_is_damage_too(path: Path) -> None:
    fill(path, "a")
    db = sqlite3.connect(path)
    db.execute("""UPDATE records SET record = '{"id": "a"}'""")
    db.commit()
    db.close()
    assert "is damaged (a record is malformed)" in trouble(path).cause


def test_another_version_is_named(path: Path) -> None:
    fill(path, "a")
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '99'")
    db.commit()
    db.close()
    assert "has schema version 99, and this aidsafe reads version 1" in trouble(path).cause


def test_a_full_disk_is_one_clear_error_and_keeps_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(path, "a")
    real = Journal._connect_to_write

    def small(self: Journal) -> sqlite3.Connection:
        db = real(self)
        db.execute("PRAGMA max_page_count = 20")  # SQLite then says what it says on a full disk
        return db

    monkeypatch.setattr(Journal, "_connect_to_write", small)
    with pytest.raises(JournalError, match="cannot be written: database or disk is full") as caught:
        fill(path, *(f"p{number}" for number in range(100)))
    assert caught.value.exit_code == 5
    assert "Make room" in caught.value.remedy
    assert ids(path)[0] == "a"


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
        asyncio.run(journal.add(1, record("b")))
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
