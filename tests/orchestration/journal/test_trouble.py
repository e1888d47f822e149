"""What the journal does in trouble: damage, full disks, other versions, other processes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, SCHEMA_VERSION, Journal, JournalError
from orchestration.journal.lock import LOCK_NAME, is_locked
from orchestration.journal.schema import COLUMNS
from orchestration.journal.writer import Writer
from tests.orchestration.journals import answer, fill, ids, opened, store_reply, tamper


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


def trouble(
    path: Path, write: bool = False, look: Callable[[Journal], Any] = lambda j: list(j.results())
) -> JournalError:
    """The error of looking into a journal."""

    def open_and_look() -> None:
        with closing(Journal(path, write=write)) as journal:
            look(journal)

    with pytest.raises(JournalError) as caught:
        open_and_look()
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


BITS = pytest.mark.parametrize(
    ("bit", "what"),
    [(0, "the checksum of a row does not match"), (7, "a row is not valid UTF-8")],
    ids=["another letter", "no UTF-8"],
)


@BITS
def test_a_flipped_bit_in_a_result_is_damage_and_not_another_result(
    bit: int, what: str, path: Path
) -> None:
    fill(path, "a")
    flip(path, b"The first response.", bit)
    error = trouble(path)
    assert f"is damaged ({what})" in error.cause
    assert f"aidsafe salvage {path.parent} --out" in error.remedy
    assert "is damaged" in trouble(path, look=lambda journal: journal.result(0)).cause
    assert "is damaged" in trouble(path, look=lambda journal: journal.find_results("a", 1)).cause


@BITS
def test_a_flipped_bit_in_a_reply_is_damage_and_not_another_reply(
    bit: int, what: str, path: Path
) -> None:
    fill(path, "alpha")
    flip(path, b"Of alpha.", bit)
    error = trouble(path, look=lambda journal: list(journal.replies(0)))
    assert f"is damaged ({what})" in error.cause
    assert "aidsafe salvage" in error.remedy


@BITS
def test_a_flipped_bit_in_a_prompt_is_damage_and_not_another_prompt(
    bit: int, what: str, path: Path
) -> None:
    fill(path, "alpha")
    flip(path, b"What of alpha?", bit)
    assert what in trouble(path, look=lambda journal: list(journal.prompts())).cause
    assert what in trouble(path, look=lambda journal: journal.prompt(0)).cause


LOOKS: dict[str, Callable[[Journal], Any]] = {
    "meta": lambda journal: journal.meta("kind"),
    "sources": lambda journal: journal.submit(
        lambda tx: tx.register_source("x", None, "")
    ).result(),
    "prompts": lambda journal: list(journal.prompts()),
    "progress": lambda journal: list(journal.prompts()),
    "calls": lambda journal: [list(journal.replies(chat)) for chat in (0, 1)],
    "results": lambda journal: list(journal.results()),
    "notes": lambda journal: list(journal.notes("lessons", "s")),
    "spend": lambda journal: journal.spend(),
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal with a row in each table."""
    path = tmp_path_factory.mktemp("full") / FILE_NAME
    fill(path, "a", "b")
    with closing(Journal(path, write=True)) as journal:
        journal.submit(lambda tx: tx.set_meta("kind", "records")).result()
        journal.submit(lambda tx: tx.add_note("lessons", "s", 0, "data")).result()
    return path.read_bytes()


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (table, column)
        for table, columns in COLUMNS.items()
        for column in (*columns, "checksum")
        # Such a row is not found.
        if (table, column) not in {("meta", "key"), ("notes", "topic"), ("notes", "scope")}
    ],
)
def test_a_changed_column_of_any_table_is_damage(
    table: str, column: str, path: Path, full: bytes
) -> None:
    path.write_bytes(full)
    new = f"CASE typeof({column}) WHEN 'integer' THEN {column} + 7 ELSE x'00' END"
    if (table, column) in {("results", "number"), ("progress", "number"), ("prompts", "number")}:
        tamper(path, f"DELETE FROM {table} WHERE number = 1")
        new = "1"  # of another prompt
    elif (table, column) == ("calls", "chat"):
        new = "1 - chat"
    kind = "AND key = 'kind'" if table == "meta" else ""
    where = f"rowid = (SELECT min(rowid) FROM {table} WHERE 1 {kind})"
    tamper(path, f"UPDATE {table} SET {column} = {new} WHERE {where}")
    error = trouble(path, write=True, look=LOOKS[table])
    found = ("the checksum of a row does not match", "disagrees with", "is missing")
    assert any(what in error.cause for what in found)
    assert "is damaged" in error.cause


def test_damage_in_one_result_does_not_hide_the_others(path: Path) -> None:
    fill(path, "a", "b")
    tamper(path, "UPDATE results SET checksum = 1 WHERE number = 1")
    with closing(Journal(path)) as journal:
        assert len(journal.find_results("a", 9)) == 1
        assert journal.outcomes() == {"completed": 2}


# Versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("write", [False, True])
def test_an_older_journal_is_refused_with_the_version_that_reads_it(
    version: str, write: bool, path: Path
) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        db.execute("CREATE TABLE records (number INTEGER PRIMARY KEY, record TEXT NOT NULL)")
        db.execute("INSERT INTO meta VALUES ('schema', ?)", (version,))
    error = trouble(path, write)
    assert error.cause == (
        f"The journal {path} has schema version {version}, "
        f"and this aidsafe reads version {SCHEMA_VERSION}."
    )
    assert error.remedy == "Use aidsafe 0.1 to read it, or start a new run folder."


def test_a_newer_journal_is_refused(path: Path) -> None:
    fill(path, "a")
    tamper(path, "REPLACE INTO meta VALUES ('schema', '99', checksum('meta', 'schema', '99'))")
    for write in (False, True):
        error = trouble(path, write)
        assert f"has schema version 99, and this aidsafe reads version {SCHEMA_VERSION}" in str(
            error
        )
        assert error.remedy == "Use the version of aidsafe that created it."


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

    stored = 0

    async def fill_up() -> None:
        nonlocal stored
        async with opened(path) as journal:
            while stored < 100:
                await store_reply(journal, 0, b"%d" % stored, answer("x" * 1000))
                stored += 1

    monkeypatch.setattr(Journal, "_connect_to_write", small)
    with pytest.raises(JournalError, match="cannot be written: database or disk is full") as caught:
        asyncio.run(fill_up())
    monkeypatch.setattr(Journal, "_connect_to_write", real)
    assert "Make room" in caught.value.remedy
    assert 0 < stored < 100
    assert ids(path) == ["a"]
    with closing(Journal(path)) as journal:
        assert len(list(journal.replies(0))) == 1 + stored
        assert journal.spend()[0].calls == 1 + stored, "a reply and its cost go together"


# Memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["_commit", "_apply", "_check_alone"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_writer_without_memory_fails_its_callers_and_does_not_let_them_wait(
    name: str, error: type[BaseException], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = getattr(Writer, name), 0

    def fail(self: Writer, *values: Any) -> Any:
        nonlocal times
        times += 1
        if times == 1:
            raise error
        return real(self, *values)

    with closing(Journal(path, write=True)) as journal:
        monkeypatch.setattr(Writer, name, fail)
        with pytest.raises(error):
            journal.submit(lambda tx: tx.set_meta("kind", "pairs")).result(5)
        journal.submit(lambda tx: tx.set_meta("kind", "records")).result(5)
        assert journal.meta("kind") == "records"
    Journal(path, write=True).close()


def test_a_caller_is_told_even_if_that_takes_more_memory_than_there_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = Future.set_exception, 0

    def fail(self: Future[Any], error: BaseException | None) -> None:
        nonlocal times
        times += 1
        if times < 4:
            raise MemoryError
        real(self, error)

    with closing(Journal(path, write=True)) as journal:
        monkeypatch.setattr(Future, "set_exception", fail)
        with pytest.raises((MemoryError, ZeroDivisionError)):
            journal.submit(lambda _: 1 / 0).result(5)
        monkeypatch.setattr(Future, "set_exception", real)
        journal.submit(lambda tx: tx.set_meta("kind", "records")).result(5)


# Other processes ---------------------------------------------------------------------------------


def test_only_one_process_writes_at_a_time(path: Path) -> None:
    journal = Journal(path, write=True)
    assert is_locked(path.parent)
    with pytest.raises(JournalError, match="Another process is writing"):
        Journal(path, write=True)
    journal.close()
    assert is_locked(path.parent) is False
    Journal(path, write=True).close()


def test_a_process_that_is_killed_leaves_no_lock(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from orchestration.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), write=True)\n"
        "print('open', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        assert is_locked(path.parent)
        with pytest.raises(JournalError, match="Another process is writing"):
            Journal(path, write=True)
        process.kill()
    assert is_locked(path.parent) is False
    Journal(path, write=True).close()


def test_whoever_only_reads_creates_no_lock(path: Path) -> None:
    fill(path, "a")
    (path.parent / LOCK_NAME).unlink()
    assert is_locked(path.parent) is False
    assert ids(path) == ["a"]
    assert not (path.parent / LOCK_NAME).exists()


async def test_asking_for_the_lock_does_not_stop_a_run_that_starts(path: Path) -> None:
    Journal(path, write=True).close()
    stop = False

    def ask() -> None:
        while not stop:
            is_locked(path.parent)

    asking = [asyncio.create_task(asyncio.to_thread(ask)) for _ in range(2)]
    for _ in range(20):
        (await asyncio.to_thread(Journal, path, write=True)).close()
    stop = True
    await asyncio.gather(*asking)


def test_two_processes_past_a_removed_lock_do_not_both_go_on(path: Path) -> None:
    with closing(Journal(path, write=True)) as first:
        (path.parent / LOCK_NAME).unlink()
        with closing(Journal(path, write=True)) as second:
            second.submit(lambda tx: tx.set_meta("kind", "records")).result()
            for _ in range(2):
                with pytest.raises(JournalError, match="Another process has written"):
                    first.submit(lambda tx: tx.set_meta("kind", "pairs")).result()
            second.submit(lambda tx: tx.set_meta("more", "x")).result()
            assert second.meta("kind") == "records"


def test_without_locks_a_run_goes_on_only_if_that_is_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("filelock.FileLock.acquire", unsupported)
    error = trouble(path, write=True)
    assert "has no locks (Operation not supported)" in error.cause
    assert "--no-lock" in error.remedy
    assert not path.exists()
    with closing(Journal(path, write=True, locking=False)) as journal:
        journal.submit(lambda tx: tx.set_meta("kind", "records")).result()
        (path.parent / LOCK_NAME).touch()
        assert is_locked(path.parent) is None


def test_a_journal_that_could_not_be_opened_is_not_locked(path: Path) -> None:
    path.write_bytes(b"no database" * 100)
    with pytest.raises(JournalError, match="damaged"):
        Journal(path, write=True)
    path.unlink()
    Journal(path, write=True).close()


def test_a_journal_for_reading_cannot_be_written(path: Path) -> None:
    fill(path, "a")
    journal = Journal(path)
    with pytest.raises(ValueError, match="not open for writing"):
        asyncio.run(store_reply(journal, 0, b"key", answer()))
    journal.close()
    journal.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can look into, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)
        Path(name).chmod(0o755)


def read_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    """Prints the numbers of a journal's results, as a user who cannot write into its folder."""
    path.parent.chmod(0o555)
    script = (
        "import os, sys; from pathlib import Path; from orchestration.journal import Journal\n"
        # Root may write anywhere, so it becomes another user, once all is imported.
        "if os.getuid() == 0: os.setuid(65534)\n"
        "print([number for number, _ in Journal(Path(sys.argv[1])).results()])"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_a_journal_in_a_read_only_folder_is_read(open_folder: Path) -> None:
    fill(open_folder / FILE_NAME, "a", "b")
    done = read_as_nobody(open_folder / FILE_NAME)
    assert done.stdout == "[0, 1]\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_an_unclosed_journal_in_such_a_folder_must_be_copied(open_folder: Path) -> None:
    path = open_folder / FILE_NAME
    fill(path, "a")
    path.with_name(f"{FILE_NAME}-wal").write_bytes(b"left by a process that was killed")
    done = read_as_nobody(path)
    assert "was not closed" in done.stderr
    assert "damaged" not in done.stderr
