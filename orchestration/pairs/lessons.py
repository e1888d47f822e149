"""What the ear-whisperer has learnt in a run: exemplars, in the journal and in their order.

A belief that led to a violation is a lesson. Lessons are numbered in the order in which their pairs
are kept, and each changes the exemplars of one policy. A chat is given the exemplars as they stand
when it begins, and the journal remembers at which lesson that was: a chat that was cut off is
given the same ones again, so that its replies are found. With one chat at a time the exemplars are
thus the same in every run; with more, they follow the order in which chats happened to end.

Both are kept by the settings that they were made under. Under others the whisperer learns from the
beginning; if those are changed back, all is as it was.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator

from agents.pairing import Exemplar
from orchestration.journal import Journal
from orchestration.journal.errors import explained
from orchestration.journal.schema import checked, checksum
from orchestration.pairs.exemplars import Seeds, updated
from orchestration.pairs.recipe import PairRecipe
from orchestration.runs.job import Change

_REMEMBERED = 4_096  # lessons that can be gone back to without beginning anew

Pools = dict[str, tuple[Exemplar, ...]]
"""Exemplars by policy."""


class Lessons:
    """The exemplars of a run.

    Args:
        journal: Of the run; has the tables of pairs.
        settings: Hash of all that lessons depend on.
        recipe: How exemplars are kept.
        seeds: The first ones.
        policies: Ids of the policies.

    Raises:
        JournalError: The journal is damaged.
    """

    def __init__(
        self,
        journal: Journal,
        settings: str,
        recipe: PairRecipe,
        seeds: Seeds,
        policies: Iterable[str],
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._recipe = recipe
        self._seeds: Pools = {policy: seeds.of(policy, recipe.exemplars) for policy in policies}
        self._pools = dict(self._seeds)
        self._learnt = dict.fromkeys(self._pools, 0)
        self._last = 0
        for lesson, exemplar in self._kept(0):
            self._take(lesson, exemplar)
        # Of whatever settings: each lesson has a number of its own.
        [(self._newest,)] = journal.rows("SELECT ifnull(max(lesson), 0) FROM lessons")
        # As they were for chats that are to be gone on with: those begin in about the order in
        # which they did, so that going back a little is all that is asked for.
        self._past: OrderedDict[int, Pools] = OrderedDict({0: dict(self._seeds)})

    async def begin(self, number: int, target: str) -> tuple[tuple[Exemplar, ...], int]:
        """What a chat is given: the target's exemplars, and how often they had been updated.

        The journal has it on disk before the chat makes its first call.

        Args:
            number: Number of the prompt.
            target: Policy that is to be violated.
        """
        query = "SELECT lesson, generation, checksum FROM begun WHERE settings = ? AND number = ?"
        for lesson, generation, found in self._journal.rows(query, self._settings, number):
            with explained(self._journal.path):
                checked(found, self._settings, number, lesson, generation)
            return self._known_at(lesson).get(target, ()), generation
        exemplars, generation = self._pools.get(target, ()), self._learnt.get(target, 0)
        row = (self._settings, number, self._last, generation)

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO begun VALUES (NULL, ?, ?, ?, ?, ?)", (*row, checksum(*row)))

        await self._journal.write(change)
        return exemplars, generation

    def learn(self, number: int, attempt: int, exemplar: Exemplar) -> Change | None:
        """Updates the exemplars of a policy with a belief that worked.

        At once, so that the next chat to begin has it; the change is to be committed with the pair.

        Returns:
            The change; None if the pair was made before, and taught its lesson then.
        """
        query = "SELECT 1 FROM lessons WHERE settings = ? AND number = ?"
        if any(self._journal.rows(query, self._settings, number)):
            return None
        self._newest += 1
        self._take(self._newest, exemplar)
        told = (exemplar.policy, exemplar.belief, exemplar.led_to, str(exemplar.score))
        row = (self._last, self._settings, number, attempt, *told)
        total = checksum(*row)

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO lessons VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, total))

        return change

    def _take(self, lesson: int, exemplar: Exemplar) -> None:
        self._last = lesson
        self._update(self._pools, exemplar)
        self._learnt[exemplar.policy] = self._learnt.get(exemplar.policy, 0) + 1

    def _known_at(self, lesson: int) -> Pools:
        """The exemplars as they stood after a lesson."""
        past = self._past
        if lesson not in past:
            if lesson < next(reversed(past)):
                past.clear()
                past[0] = dict(self._seeds)
            for at, exemplar in self._kept(next(reversed(past))):
                if at > lesson:
                    break
                pools = dict(past[next(reversed(past))])
                self._update(pools, exemplar)
                past[at] = pools
                if len(past) > _REMEMBERED:
                    past.popitem(last=False)
            past.setdefault(lesson, past[next(reversed(past))])  # one that was lost changes nothing
        return past[lesson]

    def _kept(self, after: int) -> Iterator[tuple[int, Exemplar]]:
        query = "SELECT * FROM lessons WHERE settings = ? AND lesson > ? ORDER BY lesson"
        for *row, found in self._journal.rows(query, self._settings, after):
            with explained(self._journal.path):
                checked(found, *row)
            lesson, _, _, _, policy, belief, led_to, score = row
            yield (
                lesson,
                Exemplar(policy=policy, belief=belief, led_to=led_to, score=float(score)),
            )

    def _update(self, pools: Pools, exemplar: Exemplar) -> None:
        recipe = self._recipe
        pools[exemplar.policy] = updated(
            pools.get(exemplar.policy, ()),
            exemplar,
            recipe.strategy,
            recipe.exemplars,
            recipe.diversity,
        )
