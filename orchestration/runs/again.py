"""Taking prompts up again that did not come to a completed record."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Collection

from orchestration.journal import Journal
from orchestration.journal.schema import Waiting, chat_of, load_answer

_FETCH = 256
# What the last turn of these chats said is why they ended so: given again, they would end so again.
_BY_THEIR_REPLIES = ("refused", "malformed", "truncated")


async def requeue(journal: Journal, outcomes: Collection[str]) -> int:
    """Lets prompts of these outcomes wait again.

    Replies that led to a good turn are used again. Those of the turn that gave none are kept, since
    they were paid for, but are asked for anew, with another seed.

    Returns:
        How many.
    """

    def change(db: sqlite3.Connection) -> int:
        marks = ", ".join("?" * len(outcomes))
        found = db.execute(
            f"SELECT number, digest, outcome FROM prompts WHERE outcome IN ({marks})",  # noqa: S608
            tuple(outcomes),
        ).fetchall()
        for number, digest, outcome in found:
            if outcome in _BY_THEIR_REPLIES:
                _set_aside(db, number, chat_of(digest))
            db.execute(
                "UPDATE prompts SET outcome = NULL, stop_reason = NULL, rounds = NULL,"
                " tries = tries + 1 WHERE number = ?",
                (number,),
            )
        return len(found)

    return await journal.write(change)


def _set_aside(db: sqlite3.Connection, number: int, chat: int) -> None:
    row = db.execute("SELECT record FROM records WHERE number = ?", (number,)).fetchone()
    turns = json.loads(row[0])["turns"] if row else []
    if not turns:
        return
    said = [call["raw"] for call in (*turns[-1]["discarded"], turns[-1])]
    calls = db.execute(
        "SELECT call, answer FROM calls WHERE prompt = ? AND void = 0 ORDER BY call DESC", (chat,)
    ).fetchall()
    for call, text in calls:
        answer = load_answer(text)
        raw = answer.refusal or answer.text
        if raw in said:
            said.remove(raw)
            db.execute("UPDATE calls SET void = 1 WHERE call = ?", (call,))


class Again:
    """Hands out the prompts that were taken up again and have no outcome yet.

    Args:
        journal: Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._fetched: deque[Waiting] = deque()
        self._after = -1

    async def next(self) -> Waiting | None:
        """The next of them; None once there is no further one."""
        if not self._fetched:
            self._fetched.extend(self._journal.waiting_again(self._after, _FETCH))
            if not self._fetched:
                return None
            self._after = self._fetched[-1].number
        return self._fetched.popleft()
