"""Files of a run that do not belong together, or disagree: refused, and left as they are."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from orchestration.journal import FILE_NAME, Journal, JournalError, Transaction
from orchestration.journal.checks import log_of
from orchestration.journal.lock import LOCK_NAME
from orchestration.journal.salvage import salvage
from orchestration.prompts.reader import Prompt
from orchestration.runs.folder import open_journal
from tests.orchestration.damaged import chat, text_of
from tests.orchestration.journals import change, fill, tamper

MAIN, LOG = FILE_NAME, f"{FILE_NAME}-wal"
Files = dict[str, bytes]


def store(tx: Transaction, numbers: range) -> None:
    source = tx.register_source("test", None, "[0]").source
    for n in numbers:
        text = text_of(n)
        tx.insert_prompt(n, f"p{n}", Prompt("", text).digest, text, "{}", source)
        for call in range(3):
            key = bytes([n % 256, call]) * 8
            tx.store_reply(chat(n), key, "m", "", json.dumps({"text": f"Reply {n}."}), (9, 9, 0))


def sessions(folder: Path, first: int = 0) -> Iterator[Files]:
    """The files of a run as three sessions leave them: each is killed, and the next resumes."""
    path = folder / MAIN
    folder.mkdir()
    for session in range(3):
        with closing(Journal(path, write=True)) as journal:
            for batch in range(8):  # so that all tables grow in turns
                start = first + 40 * session + 5 * batch
                journal.submit(change(store, range(start, start + 5))).result()
            (folder / "run.yaml").write_text(f"run: '{journal.meta('run')}'\nkind: records\n")
            calls = sum(row.calls for row in journal.spend())
            (folder / "status.json").write_text(json.dumps({"calls": calls}))
            yield {
                file.name: file.read_bytes()
                for file in folder.iterdir()
                if not file.name.endswith("-shm")
            }


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    return list(sessions(tmp_path_factory.mktemp("ours") / "run"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> list[Files]:
    return list(sessions(tmp_path_factory.mktemp("theirs") / "run", first=1000))


def write_files(folder: Path, files: Files) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def state(folder: Path) -> Files:
    """All that counts: the index of the log can be made anew, and the lock is empty."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.name != LOCK_NAME and not file.name.endswith("-shm")
    }


def test_files_that_belong_together_are_opened(tmp_path: Path, ours: list[Files]) -> None:
    for number, files in enumerate(ours):
        folder = tmp_path / str(number)
        write_files(folder, files)
        with closing(open_journal(folder)) as journal:
            assert journal.count_prompts() == 40 * (number + 1)
        expected = {name: files[name] for name in files if name != LOCK_NAME}
        assert state(folder) == expected, "a reader changes nothing"
        with closing(open_journal(folder, write=True)) as journal:
            assert journal.spend()[0].calls == 120 * (number + 1)
        assert not log_of(folder / MAIN).exists()
        open_journal(folder, write=True).close()


MIXED: dict[str, tuple[Callable[[list[Files], list[Files]], Files], str]] = {
    "no log": (lambda o, _: {MAIN: o[0][MAIN]}, "has lost all"),
    "no log, later": (lambda o, _: {MAIN: o[2][MAIN]}, "has lost replies"),
    "an empty log": (lambda o, _: {MAIN: o[2][MAIN], LOG: b""}, "has lost replies"),
    "an older copy": (lambda o, _: {MAIN: o[1][MAIN], LOG: o[1][LOG]}, "has lost replies"),
    "an older log": (lambda o, _: {MAIN: o[2][MAIN], LOG: o[1][LOG]}, "belong together"),
    "the first log": (lambda o, _: {MAIN: o[2][MAIN], LOG: o[0][LOG]}, "belong together"),
    "an older journal": (lambda o, _: {MAIN: o[1][MAIN], LOG: o[2][LOG]}, "belong together"),
    "the first journal": (lambda o, _: {MAIN: o[0][MAIN], LOG: o[2][LOG]}, "has lost all"),
    "another's log": (lambda o, t: {MAIN: o[2][MAIN], LOG: t[2][LOG]}, "belong together"),
    "another's first log": (lambda o, t: {MAIN: o[0][MAIN], LOG: t[0][LOG]}, "belong together"),
    "another's log on an early journal": (
        lambda o, t: {MAIN: o[0][MAIN], LOG: t[2][LOG]},
        "belong together",
    ),
    "another's journal": (lambda o, t: {MAIN: t[2][MAIN], LOG: o[2][LOG]}, "belong together"),
    "another's files": (lambda _, t: {MAIN: t[2][MAIN], LOG: t[2][LOG]}, "is that of another run"),
    "another's journal alone": (lambda _, t: {MAIN: t[2][MAIN]}, "is that of another run"),
    "an empty journal": (lambda o, _: {MAIN: b"", LOG: o[2][LOG]}, "is damaged"),
    "an empty journal alone": (lambda _, __: {MAIN: b""}, "is damaged"),
    "half a header": (lambda o, _: {MAIN: o[2][MAIN][:50], LOG: o[2][LOG]}, "is damaged"),
    "a page": (lambda o, _: {MAIN: o[2][MAIN][:4096]}, "is damaged"),
    "half a journal": (lambda o, _: {MAIN: o[2][MAIN][: 4096 * 9]}, "is damaged"),
    "zeros": (lambda o, _: {MAIN: bytes(len(o[2][MAIN])), LOG: o[2][LOG]}, "is damaged"),
    "another's rollback": (
        lambda o, _: {MAIN: o[2][MAIN], LOG: o[2][LOG], f"{MAIN}-journal": b"x" * 4096},
        "which aidsafe does not write",
    ),
}


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("name", MIXED)
def test_files_that_do_not_are_refused_and_left_alone(
    name: str, write: bool, tmp_path: Path, ours: list[Files], theirs: list[Files]
) -> None:
    make, what = MIXED[name]
    made = make(ours, theirs)
    beside = {file: ours[2][file] for file in ("run.yaml", "status.json")}
    write_files(tmp_path, beside | made)
    for _ in range(2):
        with pytest.raises(JournalError) as caught:
            open_journal(tmp_path, write=write).close()
        assert what in caught.value.cause
        assert caught.value.remedy
        assert state(tmp_path) == beside | made


def test_a_loss_that_is_accepted_is_resumed_from(tmp_path: Path, ours: list[Files]) -> None:
    write_files(tmp_path, {name: ours[2][name] for name in (MAIN, "run.yaml")})
    open_journal(tmp_path, write=True).close()


def test_a_run_folder_that_was_removed_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("run: '0123456789abcdef'\n")
    with pytest.raises(JournalError, match="missing or empty"):
        open_journal(tmp_path, write=True)
    assert not (tmp_path / MAIN).exists()


def test_a_salvaged_run_is_the_same_run(tmp_path: Path, ours: list[Files]) -> None:
    for name, key in (("run", "run"), ("tally", "tally")):
        folder, to = tmp_path / name, tmp_path / f"{name}-saved"
        write_files(folder, ours[2])
        with closing(sqlite3.connect(folder / MAIN)) as db, db:
            db.execute("UPDATE meta SET checksum = 1 WHERE key = ?", (key,))
        with pytest.raises(JournalError, match="checksum of a row"):
            open_journal(folder, write=True)
        assert salvage(folder, to) is not None
        with closing(open_journal(to, write=True)) as journal:
            assert journal.spend()[0].calls == 360
            journal.submit(change(store, range(200, 201))).result()
        open_journal(to, write=True).close()


# Rows and indexes --------------------------------------------------------------------------------


def without_index(path: Path, index: str, statement: str) -> None:
    """Executes a statement while SQLite does not know of an index, which then disagrees."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        query = "SELECT * FROM sqlite_schema WHERE name = ?"
        row = db.execute(query, (index,)).fetchone()
        db.execute("DELETE FROM sqlite_schema WHERE name = ?", (index,))
    tamper(path, statement)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)


DISAGREEING: dict[str, tuple[str | None, str]] = {
    "a reply that the index lacks": (
        "calls_by_chat",
        "INSERT INTO calls SELECT * FROM temp_calls",
    ),
    "a reply of another chat": ("calls_by_chat", "UPDATE calls SET chat = chat + 1 WHERE call = 1"),
    "a prompt that is pending": (
        "progress_by_outcome",
        "UPDATE progress SET outcome = NULL WHERE number = 0",
    ),
    "a prompt that is done": (
        "progress_pending",
        "UPDATE progress SET outcome = 'completed' WHERE number = 5",
    ),
    "an outcome that is none": (
        None,
        "UPDATE progress SET outcome = 'completeD',"
        " checksum = checksum('progress', number, source, 'completeD', ending, tries)"
        " WHERE number = 0",
    ),
    "a prompt without progress": (None, "DELETE FROM progress WHERE number = 5"),
    "progress without a prompt": (None, "DELETE FROM prompts WHERE number = 5"),
    "a reply that is missing": (None, "DELETE FROM calls WHERE call = 1"),
    "spend": (None, "UPDATE spend SET prompt_tokens = 1"),
    "settings": (None, "UPDATE meta SET value = '{' WHERE key = 'settings'"),
    "counts of a source": (None, "UPDATE sources SET counts = '[1,'"),
}


@pytest.mark.parametrize("name", DISAGREEING)
def test_rows_that_disagree_are_found_before_anything_is_asked_again(
    name: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = run / MAIN
    fill(path, "a", "b")
    with closing(Journal(path, write=True)) as journal:
        journal.submit(lambda tx: tx.set_meta("settings", "{}")).result()
        journal.submit(change(store, range(5, 6))).result()
    open_journal(run, write=True).close()
    index, statement = DISAGREEING[name]
    if index is None:
        tamper(path, statement)
    elif "INSERT" in statement:  # the table has a row more than the index
        tamper(path, "CREATE TABLE temp_calls AS SELECT * FROM calls WHERE call = 1")
        tamper(path, "DELETE FROM calls WHERE call = 1")
        without_index(path, index, statement)
        tamper(path, "DROP TABLE temp_calls")
    elif "UPDATE calls" in statement:  # the table says something else than the index
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            found = db.execute("SELECT chat FROM calls WHERE call = 1").fetchone()[0]
        tamper(path, statement)
        without_index(path, index, f"UPDATE calls SET chat = {found} WHERE call = 1")
    else:
        without_index(path, index, statement)
    before = state(run)
    with pytest.raises(JournalError, match="is damaged"):
        open_journal(run, write=True)
    assert state(run) == before
    if name != "an outcome that is none":  # written as if it were right, which no disk does
        assert salvage(run, tmp_path / "saved") is not None


@pytest.mark.parametrize("table", ["results", "prompts"])
def test_a_missing_row_is_damage_where_it_is_read(table: str, tmp_path: Path) -> None:
    path = tmp_path / MAIN
    fill(path, "a", "b")
    tamper(path, f"DELETE FROM {table} WHERE number = 1")
    with closing(Journal(path)) as journal, pytest.raises(JournalError, match="is missing"):
        list(journal.results() if table == "results" else journal.prompts())


# Places ------------------------------------------------------------------------------------------


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def move(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def replace(folder: Path) -> None:
    move(folder)
    folder.mkdir()
    shutil.copy(folder.with_name("moved") / MAIN, folder / MAIN)


def restore_copy(folder: Path) -> None:
    shutil.copy(folder / MAIN, folder / "copy")
    (folder / "copy").rename(folder / MAIN)


def remove_log(folder: Path) -> None:
    log_of(folder / MAIN).unlink()


@pytest.mark.parametrize("happening", [remove, move, replace, restore_copy, remove_log])
def test_a_journal_whose_files_are_gone_is_written_no_further(
    happening: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with closing(open_journal(folder, write=True)) as journal:
        journal.submit(change(store, range(5))).result()
        assert journal.is_in_place()
        happening(folder)
        assert not journal.is_in_place()
        with pytest.raises(JournalError, match="was removed, moved or replaced"):
            journal.submit(change(store, range(5, 6))).result()


def test_a_log_that_was_removed_is_saved_in_the_end(tmp_path: Path) -> None:
    with closing(open_journal(tmp_path, write=True)) as journal:
        journal.submit(change(store, range(5))).result()
        remove_log(tmp_path)
    with closing(open_journal(tmp_path)) as journal:
        assert journal.spend()[0].calls == 15


def link_folder(run: Path, other: Path) -> None:
    other.rmdir()
    other.symlink_to(run)


def link_roundabout(run: Path, other: Path) -> None:
    other.rmdir()
    other.symlink_to(run / ".." / run.name)


def link_journal(run: Path, other: Path) -> None:
    (other / MAIN).symlink_to(run / MAIN)


@pytest.mark.parametrize("link", [link_journal, link_folder, link_roundabout])
def test_two_names_of_a_journal_are_locked_together(
    link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    other.mkdir()
    open_journal(run, write=True).close()
    link(run, other)
    for first, second in ((run, other), (other, run)):
        with closing(open_journal(first, write=True)) as journal:
            with pytest.raises(JournalError, match="Another process is writing"):
                open_journal(second, write=True)
            journal.submit(lambda tx: tx.set_meta("kind", "records")).result()
            with closing(open_journal(second)) as reading:
                assert reading.meta("kind") == "records"


def test_a_link_to_a_journal_that_is_not_there_yet_creates_it_there(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    run.mkdir()
    disk.mkdir()
    (run / MAIN).symlink_to(disk / MAIN)
    open_journal(run, write=True).close()
    assert (run / MAIN).is_symlink()
    assert (disk / MAIN).is_file()


def test_a_hard_link_to_a_journal_is_refused_for_writing(tmp_path: Path) -> None:
    open_journal(tmp_path, write=True).close()
    os.link(tmp_path / MAIN, tmp_path / "backup")
    with pytest.raises(JournalError, match="hard link"):
        open_journal(tmp_path, write=True)
    open_journal(tmp_path).close()


# Readers -----------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Journal], Iterator[object]]] = {
    "results": lambda journal: journal.results(),
    "results of an outcome": lambda journal: journal.results("completed"),
    "prompts": lambda journal: journal.prompts(),
    "completed": lambda journal: journal.completed(),
    "notes": lambda journal: journal.notes("topic", "scope"),
    "replies": lambda journal: journal.replies(chat(0)),
    "unindexed": lambda journal: journal.unindexed(),
}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_that_stands_still_keeps_no_log_from_being_emptied(
    name: str, tmp_path: Path
) -> None:
    count = 700

    def finish(tx: Transaction, start: int) -> None:
        store(tx, range(start, start + 100))
        for n in range(start, start + 100):
            tx.store_result(n, "completed", "done/1", f'{{"id": "p{n}"}}')
            tx.add_note("topic", "scope", n, f"note {n}")

    with closing(open_journal(tmp_path, write=True)) as journal:
        for start in range(0, count, 100):
            journal.submit(change(finish, start)).result()
        with closing(open_journal(tmp_path)) as reading:
            found = READERS[name](reading)
            got = [next(found)]
            journal.submit(lambda tx: tx.set_meta("kind", "records")).result()
            with closing(sqlite3.connect(tmp_path / MAIN)) as db:
                busy, pages, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            assert (busy, pages) == (0, 0)
            got += found
            assert len(got) == (3 if name == "replies" else count)
            assert len(set(map(str, got))) == len(got)
    assert not log_of(tmp_path / MAIN).exists()


def test_a_reader_changes_nothing_in_the_folder_of_a_closed_run(tmp_path: Path) -> None:
    fill(tmp_path / MAIN, "a")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    times = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    with closing(open_journal(tmp_path)) as journal:
        assert len(list(journal.results())) == 1
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == times
