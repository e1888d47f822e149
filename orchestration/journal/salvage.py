"""Bringing out of a damaged run what is intact, into a new one.

Every row is read from the bytes of the damaged journal (see `pages`), and counts only if it proves
right; `restore` makes the new one of them.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path

from orchestration.journal.errors import DamageError, JournalError
from orchestration.journal.lock import is_locked
from orchestration.journal.log import Database
from orchestration.journal.pages import SHAPES, Pages, Row, Value, wants
from orchestration.journal.restore import Damaged, Found, Restore, Salvaged
from orchestration.journal.schema import FILE_NAME, SCHEMA_VERSION, checked, load_answer
from orchestration.journal.store import Journal
from orchestration.kept import read_kept
from orchestration.prompts import Prompt
from policies import InputError

COPIED = ("run.yaml", "summary.json")
"""What is taken over beside the journal, as it is."""

_BATCH = 200  # rows a transaction: some megabytes


def salvage(folder: Path, to: Path) -> Salvaged | None:
    """Brings what is intact in a damaged run into a new folder; changes nothing in the old one.

    Args:
        folder: The damaged run.
        to: The new folder; it appears only once it is whole.

    Returns:
        What was brought out; None if the journal is sound, and nothing was written.

    Raises:
        InputError: There is no journal, or the new folder cannot be used.
        JournalError: Nothing could be brought out, or another process writes to the run.
    """
    journal = folder / FILE_NAME
    if not journal.is_file() and not _log_of(journal).is_file():
        raise InputError(
            f"There is no journal in {folder}.", "Name the folder that `aidsafe run` made."
        )
    above = _check_target(folder, to)
    if is_locked(folder):
        raise JournalError(
            f"Another process is writing to the run in {folder}.",
            "Wait until it has ended, or stop it.",
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".salvage-", dir=above) as aside, ExitStack() as on:
            damaged = Database.open(journal, wants, on)
            if not damaged.log.broken and _is_sound(journal, Path(aside)):
                return None
            made = Path(aside) / "made"
            made.mkdir()
            done = _bring_out(_Reader(damaged, journal), made / FILE_NAME)
            for name in COPIED:
                with suppress(OSError):
                    shutil.copyfile(folder / name, made / name)
            to.parent.mkdir(parents=True, exist_ok=True)
            if to.exists():
                to.rmdir()  # Windows renames over nothing, not even over what is empty
            made.rename(to)
            return done
    except OSError as error:
        raise JournalError(
            f"The run in {folder} could not be brought into {to} ({error.strerror or error}).",
            "Check that the one may be read and the other written, and that there is room.",
        ) from None


def _log_of(journal: Path) -> Path:
    return journal.with_name(f"{journal.name}-wal")


def _check_target(folder: Path, to: Path) -> Path:
    """The first folder above the target that is there."""
    if to.resolve().is_relative_to(folder.resolve()) and to.resolve() != folder.resolve():
        raise InputError(
            f"{to} is inside the damaged run, where nothing is to be changed.",
            "Name a folder elsewhere with --out.",
        )
    try:
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise InputError(
                f"{to} is there already, and is not an empty folder.",
                "Name a new folder with --out.",
            )
    except PermissionError:
        raise InputError(f"{to} may not be read.", "Name a new folder with --out.") from None
    above = next(path for path in to.absolute().parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(
            f"The folder {to} cannot be made: {above} may not be written or is no folder.",
            "Name another folder with --out.",
        )
    return above


def _is_sound(journal: Path, aside: Path) -> bool:
    """Whether nothing is wrong with a journal, in the eyes of SQLite and in ours.

    Looked at in a copy: to open a journal, SQLite writes beside it, and may write into it.
    """
    copy = aside / FILE_NAME
    try:
        for file in (journal, _log_of(journal)):
            if file.exists():
                shutil.copyfile(file, aside / file.name)
        db = sqlite3.connect(copy)
    except (OSError, sqlite3.Error):
        return False
    try:
        with closing(db):
            if db.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                return False
            _check_version(journal, dict(db.execute("SELECT * FROM meta")).get("schema"))
            for prompt, key, model, answer, found in db.execute(
                "SELECT prompt, key, model, answer, checksum FROM calls"
            ):
                checked(found, prompt, key, model, answer)
                load_answer(answer)
            for number, record, found in db.execute("SELECT number, record, checksum FROM records"):
                checked(found, number, record)
                read_kept(record)
            for *told, found in db.execute(
                "SELECT number, id, digest, text, metadata, checksum FROM prompts"
            ):
                checked(found, *told)
            for (data,) in db.execute(
                "SELECT spec FROM sources UNION ALL SELECT counts FROM sources"
                " UNION ALL SELECT value FROM meta WHERE key = 'settings'"
            ):
                json.loads(data)
            return True
    except (sqlite3.Error, DamageError, ValueError, KeyError, TypeError):
        return False
    finally:
        for name in (copy, _log_of(copy), copy.with_name(f"{copy.name}-shm")):
            name.unlink(missing_ok=True)  # make room for the new journal


def _check_version(journal: Path, found: str | None) -> None:
    if found is not None and found != str(SCHEMA_VERSION):
        raise JournalError(
            f"The journal {journal} has schema version {found}, and this aidsafe reads version "
            f"{SCHEMA_VERSION}.",
            "Use the version of aidsafe that made it.",
        )


class _Reader:
    """Reads rows from a damaged journal, and proves them."""

    def __init__(self, damaged: Database, origin: Path) -> None:
        self.damaged = damaged
        self.most = damaged.bytes // 8
        """No row has a higher number: they are given without gaps."""
        self.origin = origin

    def read(self) -> Iterator[Found | Damaged]:
        """Rows that are right, and table and number of those that are not."""
        damaged = self.damaged
        for number in range(1, damaged.live.count + 1):
            if number not in damaged.free:
                yield from self._prove(damaged.live, number, old=False)
        # What was on these pages is elsewhere now; but elsewhere may be broken.
        frames = damaged.live.frames
        replaced = {n for n in frames if damaged.old.frames.get(n) != frames[n]}
        for number in sorted(damaged.free | (replaced if damaged.log.broken else set())):
            if 0 < number <= damaged.old.count:
                yield from self._prove(damaged.old, number, old=True)

    def _prove(self, pages: Pages, number: int, old: bool) -> Iterator[Found | Damaged]:
        for row in pages.rows(number, wants):
            table = SHAPES[row.table, len(row.types)][0]
            found = None
            if row.values is not None:
                with suppress(DamageError, ValueError, KeyError, TypeError):
                    found = self._proven(table, row, row.values, old)
            if found is not None:
                yield found
            elif row.table and 0 <= row.rowid <= self.most:
                yield table, row.rowid

    def _proven(self, table: str, row: Row, values: list[Value], old: bool) -> Found | None:
        """The row, if everything about it is right. Raises whatever its parts raise if not."""
        found = Found(table, row.rowid, values, old)
        match table, values:
            case "calls", [_, int(prompt), bytes(key), void, str(model), str(answer), int(total)]:
                checked(total, prompt, key, model, answer)
                found.answer = load_answer(answer)
                return found if void in (0, 1) else None
            case "records", [_, str(record), int(total)]:
                checked(total, row.rowid, record)
                found.record = read_kept(record)
                return found
            case "prompts", [_, str(name), bytes(digest), *_, str(text), str(data), int(total)]:
                checked(total, row.rowid, name, digest, text, data)
                right = Prompt("", text).digest == digest and isinstance(json.loads(data), dict)
                return found if right else None
            case "sources", [_, str(spec), _, _, str(counts)]:
                json.loads(spec), json.loads(counts)
                return found if 0 <= row.rowid <= self.most else None
            case "meta", ["schema", str(value)]:
                _check_version(self.origin, value)
            case "meta", ["kind" | "run", str()]:
                return found
            case "lessons" | "begun", [_, *told, int(total)]:
                own = [row.rowid] if found.table == "lessons" else []
                checked(total, *own, *(part for part in told if isinstance(part, str | int)))
                return found
            case "meta", ["settings", str(value)]:
                return found if json.loads(value) else None
            case "spend", _:
                return found
        return None


def _bring_out(reader: _Reader, made: Path) -> Salvaged:
    """Writes all that the reader finds into a new journal."""
    restore = Restore(reader.most)
    with closing(Journal(made, write=True)) as journal:
        journal.write_from_thread(restore.begin)
        rows = reader.read()
        while batch := list(islice(rows, _BATCH)):
            journal.write_from_thread(partial(restore.write, batch=batch))
        journal.write_from_thread(restore.agree)
    if not any(count.brought_out for count in restore.done.tables.values()):
        raise JournalError(
            f"Nothing could be brought out of {reader.origin}: no row in it is intact.",
            "Restore it from a copy.",
        )
    return restore.done
