"""What the ear-whisperer has learnt in a run: exemplars, in the journal and in their order.

A belief that led to a violation is a lesson. Lessons are numbered in the order in which their pairs
are kept, and each changes the exemplars of one policy. A chat is given the exemplars as they stand
when it begins, and the journal remembers at which lesson that was: a chat that was cut off is
given the same ones again, so that its replies are found. With one chat at a time the exemplars are
thus the same in every run; with more, they follow the order in which chats happened to end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from agents.pairing import Exemplar
from orchestration.journal import Journal
from orchestration.journal.schema import checked, checksum
from orchestration.pairs.exemplars import Seeds, updated
from orchestration.pairs.recipe import PairRecipe
from orchestration.runs.job import Change

Pools = dict[str, tuple[Exemplar, ...]]
"""Exemplars by policy."""


class Lessons:
    """The exemplars of a run.

    Args:
        journal: Of the run; has the tables of pairs.
        recipe: How exemplars are kept.
        seeds: The first ones.
        policies: Ids of the policies.

    Raises:
        JournalError: The journal is damaged.
    """

    def __init__(
        self, journal: Journal, recipe: PairRecipe, seeds: Seeds, policies: Iterable[str]
    ) -> None:
        self._journal = journal
        self._recipe = recipe
        self._seeds: Pools = {policy: seeds.of(policy, recipe.exemplars) for policy in policies}
        self._pools = dict(self._seeds)
        self._learnt = dict.fromkeys(self._pools, 0)
        self._last = 0
        # Of chats that are to be gone on with.
        needed = {
            lesson
            for (lesson,) in journal.rows(
                "SELECT lesson FROM begun JOIN prompts USING (number) WHERE outcome IS NULL"
            )
        }
        self._as_of: dict[int, Pools] = {0: dict(self._seeds)}
        for lesson, exemplar in self._kept():
            self._take(lesson, exemplar)
            if lesson in needed:
                self._as_of[lesson] = dict(self._pools)

    async def begin(self, number: int, target: str) -> tuple[tuple[Exemplar, ...], int]:
        """What a chat is given: the target's exemplars, and how often they had been updated.

        The journal has it on disk before the chat makes its first call.

        Args:
            number: Number of the prompt.
            target: Policy that is to be violated.
        """
        query = "SELECT lesson, generation, checksum FROM begun WHERE number = ?"
        for lesson, generation, found in self._journal.rows(query, number):
            checked(found, number, lesson, generation)
            return self._known_at(lesson).get(target, ()), generation
        exemplars, generation = self._pools.get(target, ()), self._learnt.get(target, 0)
        row = (number, self._last, generation)

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO begun VALUES (?, ?, ?, ?)", (*row, checksum(*row)))

        await self._journal.write(change)
        return exemplars, generation

    def learn(self, number: int, attempt: int, exemplar: Exemplar) -> Change | None:
        """Updates the exemplars of a policy with a belief that worked.

        At once, so that the next chat to begin has it; the change is to be committed with the pair.

        Returns:
            The change; None if the pair was made before, and taught its lesson then.
        """
        if any(self._journal.rows("SELECT 1 FROM lessons WHERE number = ?", number)):
            return None
        self._take(self._last + 1, exemplar)
        told = (exemplar.policy, exemplar.belief, exemplar.led_to, str(exemplar.score))
        row = (self._last, number, attempt, *told)
        total = checksum(*row)

        def change(db: sqlite3.Connection) -> None:
            db.execute("INSERT INTO lessons VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, total))

        return change

    def pools(self) -> Pools:
        """The exemplars as they stand."""
        return dict(self._pools)

    def _take(self, lesson: int, exemplar: Exemplar) -> None:
        self._last = lesson
        self._update(self._pools, exemplar)
        self._learnt[exemplar.policy] = self._learnt.get(exemplar.policy, 0) + 1

    def _known_at(self, lesson: int) -> Pools:
        if lesson not in self._as_of:
            pools = dict(self._seeds)
            for number, exemplar in self._kept():
                if number <= lesson:
                    self._update(pools, exemplar)
            self._as_of[lesson] = pools
        return self._as_of[lesson]

    def _kept(self) -> Iterable[tuple[int, Exemplar]]:
        for *row, found in self._journal.rows("SELECT * FROM lessons ORDER BY lesson"):
            checked(found, *row)
            lesson, _, _, policy, belief, led_to, score = row
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
