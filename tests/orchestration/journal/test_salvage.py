"""What `aidsafe salvage` promises: damage costs what was damaged, and nothing becomes wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from orchestration.journal import FILE_NAME, Journal, JournalError, ModelSpend, Transaction
from orchestration.journal.salvage import salvage
from orchestration.journal.schema import COLUMNS
from policies import InputError
from tests.orchestration.damaged import (
    CALLS_EACH,
    PAGE,
    PRICE,
    PROMPTS,
    SETTINGS,
    WAL_NAME,
    Damage,
    chat,
    damage,
    flipped,
    killed,
    lost,
    make,
    overwritten,
    pages,
    reply_of,
    root_of,
    salvaged,
    saved,
    snapshot,
    spoilt,
    truth,
)
from tests.orchestration.journals import change, tamper


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make(tmp_path / "run")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "saved" / "run"


# What is recovered -------------------------------------------------------------------------------


def flip(at: int, bit: int = 2) -> Damage:
    return lambda content: content.__setitem__(at, content[at] ^ 1 << bit)


def all_of(which: Callable[[], list[int]]) -> Damage:
    """Pages that are zeros, or random bytes."""

    def how(content: bytearray) -> None:
        for n, page in enumerate(which()):
            overwritten(page, seed=n % 2 or None)(content)

    return how


DAMAGES: dict[str, tuple[Damage, set[str]]] = {
    # The damage, and the tables that lose rows.
    "the first page is zeros": (overwritten(1), set()),
    "the first page is garbage": (overwritten(1, seed=1), set()),
    "a bit of the magic string": (flip(3), set()),
    "a bit of the page size": (flip(16), set()),
    "a bit of the number of pages": (flip(30), set()),
    "a bit of the free list": (flip(34), set()),
    "a bit of the text encoding": (flip(59, bit=1), set()),
    "the schema has no tables": (flip(104), set()),
    "all inner pages": (all_of(lambda: [*pages(5), *pages(2)]), set()),
    "the root of prompts": (all_of(lambda: [root_of("prompts")]), set()),
    "the root of calls": (all_of(lambda: [root_of("calls")]), set()),
    "the root of progress": (all_of(lambda: [root_of("progress")]), {"results"}),
    "the root of an index": (all_of(lambda: [root_of("calls_by_chat")]), set()),
    "all that is known of sources": (
        all_of(lambda: [root_of("progress"), root_of("sources")]),
        {"results"},
    ),
    "names in the schema": (spoilt("checksum INTEGER", b"\xc9"), set()),
    "a prompt": (spoilt("Prompt 17: "), {"prompts", "results"}),
    "a reply": (spoilt("Reply 2 to 17"), {"calls"}),
    "a result": (spoilt('"p17", "text"'), {"results"}),
    "a note": (spoilt("Lesson 17"), {"notes"}),
    "the settings": (spoilt('{"policies"'), set()),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_costs_what_was_damaged(name: str, run: Path, to: Path) -> None:
    how, tables = DAMAGES[name]
    damage(run, how)
    _, found = saved(run, to)
    assert set(lost(found)) == tables


@pytest.mark.parametrize("place", range(24))
def test_a_broken_page_costs_the_rows_on_it_and_no_other(place: int, run: Path, to: Path) -> None:
    """Leaves of tables, and pages on which long rows go on (those begin with a zero)."""
    roots = {root_of(table) for table in COLUMNS}
    leaves = [page for page in pages(13) + pages(0) if page not in roots]
    page = Random(1).sample(leaves, 24)[place]
    damage(run, overwritten(page, seed=page))
    gone = lost(saved(run, to)[1])
    gone.get("results", set()).difference_update(gone.get("prompts", ()))
    assert sum(bool(keys) for keys in gone.values()) == 1, "a page holds rows of one table"
    [keys] = [keys for keys in gone.values() if keys]
    assert max(keys) - min(keys) < len(keys) <= PAGE // 30, "neighbours"


@pytest.mark.parametrize("seed", range(30))
def test_random_broken_pages(seed: int, run: Path, to: Path) -> None:
    random = Random(seed)
    for page in random.sample(pages(), random.randint(1, 16)):  # up to a tenth of them
        damage(run, overwritten(page, random.choice([None, seed])))
    done, found = saved(run, to)
    assert len(found["calls"]) >= 0.7 * PROMPTS * CALLS_EACH
    assert len(found["prompts"]) >= 0.5 * PROMPTS
    for table, count in done.tables.items():
        gone = len(truth()[table]) - len(found[table])
        assert count.damaged + count.not_found <= gone, "no more than were there"


@pytest.mark.parametrize("seed", range(40))
def test_random_flipped_bits(seed: int, run: Path, to: Path) -> None:
    damage(run, flipped(seed, bits=20))
    _, found = saved(run, to)
    assert len(found["calls"]) >= 0.7 * PROMPTS * CALLS_EACH
    assert len(found["prompts"]) >= 0.5 * PROMPTS


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_short(share: float, run: Path, to: Path) -> None:
    damage(run, lambda content: content.__delitem__(slice(int(len(content) * share), None)))
    done, found = saved(run, to)
    assert 0 < len(found["calls"]) < PROMPTS * CALLS_EACH
    count = done.tables["calls"]
    assert count.damaged + count.not_found <= PROMPTS * CALLS_EACH - len(found["calls"])


# The write-ahead log -----------------------------------------------------------------------------


def new_results(rows: dict[int, tuple[Any, ...]]) -> set[int]:
    return {number for number, row in rows.items() if row[1] == '{"id": "new"}'}


def test_a_run_that_was_killed_is_sound(tmp_path: Path, to: Path) -> None:
    assert salvage(killed(tmp_path / "run", range(9)), to) is None


@pytest.mark.parametrize("page", [1, 2])
def test_rows_that_are_only_in_the_log_come_out(page: int, tmp_path: Path, to: Path) -> None:
    run = killed(tmp_path / "run", range(9))
    damage(run, overwritten(page))
    damage(run, spoilt("Reply 2 to 17"))
    _, found = salvaged(run, to)
    assert new_results(found["results"]) == {*range(9)}
    assert len(found["calls"]) == PROMPTS * CALLS_EACH - 1


@pytest.mark.parametrize("part", [4, 12, 20, 24 + 1000], ids=["commit", "salt", "sum", "page"])
@pytest.mark.parametrize("seed", range(3))
def test_a_log_counts_up_to_its_first_broken_frame(
    part: int, seed: int, tmp_path: Path, to: Path
) -> None:
    """That is where SQLite stops, and says nothing."""
    run = killed(tmp_path / "run", range(40))
    frames = (run / WAL_NAME).stat().st_size // (PAGE + 24)
    first = Random(seed).randrange(frames // 3, frames)
    damage(run, flip(32 + first * (PAGE + 24) + part), WAL_NAME)
    damage(run, spoilt("Reply 2 to 17"))
    _, found = salvaged(run, to)
    new = new_results(found["results"])
    assert new == {*range(len(new))}
    assert len(new) < 40


# The new journal ---------------------------------------------------------------------------------


def test_a_run_can_be_resumed_in_the_new_folder(run: Path, to: Path) -> None:
    damage(run, overwritten(1))
    saved(run, to)
    with closing(Journal(to / FILE_NAME, write=True)) as journal:
        assert [number for number, _ in journal.results()] == [*range(PROMPTS - 1)]
        assert journal.outcomes() == {"failed": 7, "completed": 40}
        assert journal.meta("settings") == SETTINGS
        assert [p.id for p in journal.pending(1, -1, 100)] == [f"p{PROMPTS - 1}"]
        assert dict(journal.replies(chat(7)))[bytes([7, 2]) * 8] == reply_of(7, 2)
        calls, cached = PROMPTS * CALLS_EACH, CALLS_EACH * sum(range(PROMPTS))
        sums = ModelSpend("m", PRICE, calls, 100 * calls, 10 * calls, cached)
        assert journal.spend() == [sums]
        journal.submit(
            lambda tx: tx.store_reply(chat(0), b"k" * 16, "m", PRICE, "{}", (1, 1, 1))
        ).result()
        # Its source is read again, so that prompts that are lost come back.
        known = journal.submit(
            lambda tx: tx.register_source("prompts.jsonl", "9:9", "[0]")
        ).result()
        assert known == (2, None)
    for name in ("run.yaml", "summary.json"):
        assert (to / name).read_bytes() == (run / name).read_bytes()
    assert salvage(to, to.parent / "again") is None


def test_a_prompt_without_its_result_is_pending_and_has_its_replies(run: Path, to: Path) -> None:
    damage(run, spoilt('"p17", "text"'))
    saved(run, to)
    with closing(Journal(to / FILE_NAME)) as journal:
        assert [p.number for p in journal.pending(1, -1, 100)] == [17, PROMPTS - 1]
        assert journal.result(17) is None
        assert len(list(journal.replies(chat(17)))) == CALLS_EACH


def test_a_prompt_that_is_lost_gets_another_number_and_has_its_replies(run: Path, to: Path) -> None:
    last = PROMPTS - 1
    damage(run, spoilt(f"Prompt {last}: "))
    _, found = saved(run, to)
    assert last not in found["results"]
    with closing(Journal(to / FILE_NAME, write=True)) as journal:
        # A note of the lost prompt is still there.
        assert journal.submit(lambda tx: tx.next_number()).result() == PROMPTS
        assert len(list(journal.replies(chat(last)))) == CALLS_EACH


def test_spend_that_is_lost_is_added_up_from_the_replies(run: Path, to: Path) -> None:
    damage(run, overwritten(root_of("spend")))
    done, found = saved(run, to)
    assert not done.spend
    assert found["spend"] == truth()["spend"], "prices included"


def test_spend_counts_replies_that_are_lost(run: Path, to: Path) -> None:
    damage(run, spoilt("Reply 2 to 17"))
    done, found = saved(run, to)
    assert done.spend
    assert found["spend"] == truth()["spend"]


def test_a_source_that_is_lost_leaves_its_number(run: Path, to: Path) -> None:
    damage(run, spoilt("prompts.jsonl"))
    saved(run, to)
    with closing(Journal(to / FILE_NAME, write=True)) as journal:
        known = journal.submit(lambda tx: tx.register_source("other", "1", "[0]")).result()
        assert known == (2, None)


def test_old_results_never_come_back(run: Path, to: Path) -> None:
    """Pages that SQLite no longer uses could hold them."""
    with closing(Journal(run / FILE_NAME, write=True)) as journal:
        for n in range(PROMPTS):
            journal.submit(
                change(Transaction.store_result, n, "completed", "new", '{"id": "new"}')
            ).result()
    for page in (1, root_of("results"), root_of("progress")):
        damage(run, overwritten(page))
    _, found = salvaged(run, to)
    assert new_results(found["results"]) == {*found["results"]}


# What cannot be recovered ------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 99_999, Random(1).randbytes(99_999)])
def test_where_nothing_is_intact_nothing_is_written(content: bytes, run: Path, to: Path) -> None:
    (run / FILE_NAME).write_bytes(content)
    with pytest.raises(JournalError, match="no row in it is intact"):
        salvage(run, to)
    assert {file.name for file in run.parent.iterdir()} == {"run"}, "nothing is left behind"


def test_a_folder_without_a_journal_is_no_run(run: Path, to: Path) -> None:
    (run / FILE_NAME).unlink()
    with pytest.raises(InputError, match="no journal"):
        salvage(run, to)


@pytest.mark.parametrize("target", ["run", "run/inside", "full", "full/file"])
def test_the_new_folder_must_be_new(target: str, run: Path) -> None:
    (run.parent / "full").mkdir()
    (run.parent / "full" / "file").touch()
    damage(run, overwritten(1))
    before = snapshot(run)
    with pytest.raises(InputError):
        salvage(run, run.parent / target)
    assert snapshot(run) == before


def test_an_empty_folder_is_as_good_as_none(run: Path, to: Path) -> None:
    to.mkdir(parents=True)
    damage(run, overwritten(1))
    saved(run, to)


def test_a_sound_journal_is_recognised_and_nothing_is_written(run: Path, to: Path) -> None:
    before = snapshot(run)
    assert salvage(run, to) is None
    assert snapshot(run) == before
    assert {file.name for file in run.parent.iterdir()} == {"run"}


@pytest.mark.parametrize("version", ["1", "2", "99"])
def test_another_version_is_refused_with_the_sentence_of_the_journal(
    version: str, run: Path, to: Path
) -> None:
    if version == "99":
        change = "REPLACE INTO meta VALUES ('schema', '99', checksum('meta', 'schema', '99'))"
        tamper(run / FILE_NAME, change)
    else:
        (run / FILE_NAME).unlink()
        tamper(run / FILE_NAME, "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        tamper(run / FILE_NAME, f"INSERT INTO meta VALUES ('schema', '{version}')")
    with pytest.raises(JournalError, match=f"has schema version {version}, and this"):
        salvage(run, to)


def test_a_run_that_is_being_written_is_left_alone(run: Path, to: Path) -> None:
    with (
        closing(Journal(run / FILE_NAME, write=True)),
        pytest.raises(JournalError, match="Another process"),
    ):
        salvage(run, to)


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    run: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    damage(run, overwritten(1))
    monkeypatch.setattr("orchestration.journal.salvage.create_tables", full)
    with pytest.raises(JournalError, match="disk is full"):
        salvage(run, to)
    assert {file.name for file in run.parent.iterdir()} == {"run"}
