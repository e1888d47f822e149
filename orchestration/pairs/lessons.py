"""What the ear-whisperer has learnt in a run: the exemplars of each policy, stored in the journal.

A belief that led to a violation is a lesson: it updates the exemplars of one policy, in the order
in which pairs are stored. A chat is given the exemplars as they are when it begins, and the journal
stores them before its first call: a chat that is resumed is given the same ones, so that its stored
replies are used again. With one chat at a time, exemplars are therefore the same in every run;
otherwise they depend on the order in which chats end.

Both are stored under the settings that they depend on. Under other settings the whisperer learns
from the beginning; if those are changed back, all is as it was.
"""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel

from agents.pairs.state import Exemplar, PairBrief
from orchestration.journal import Change, Journal
from orchestration.journal.errors import explained
from orchestration.pairs.exemplars import updated
from orchestration.pairs.pair import OFF_LIMITS, PreferencePair
from orchestration.pairs.recipe import PairCast

LESSONS, BEGINNINGS = "lessons", "beginnings"
"""Topics of the journal's notes: beliefs that worked; what each chat was given."""


_LED_TO = 200  # characters of a response that an exemplar quotes


class Beginning(BaseModel, extra="forbid"):
    """What a chat is given when it begins; see `PairBrief`."""

    exemplars: list[Exemplar]
    generation: int


class Lessons:
    """The exemplars of a run.

    Args:
        journal: Of the run.
        settings: Hash of everything that lessons depend on.
        cast: Who makes the pairs.

    Raises:
        JournalError: The journal is damaged.
    """

    def __init__(self, journal: Journal, settings: str, cast: PairCast) -> None:
        self._journal = journal
        self._settings = settings
        self._recipe = cast.recipe
        seeds, size = cast.seeds, cast.recipe.exemplars
        self._exemplars = {p: seeds.of(p, size) for p in cast.policy_set.policy_ids}
        self._updates: Counter[str] = Counter()
        for note in journal.notes(LESSONS, settings):
            with explained(journal.path):
                exemplar = Exemplar.model_validate_json(note)
            self._update(exemplar)

    async def begin(self, number: int, brief: PairBrief) -> None:
        """Adds the exemplars to a chat's brief; they are on disk before the chat's first call."""
        stored = self._journal.note_of(BEGINNINGS, self._settings, number)
        if stored is None:
            exemplars, updates = self._exemplars[brief.target], self._updates[brief.target]
            beginning = Beginning(exemplars=list(exemplars), generation=updates)
            await self._journal.write(self._note(BEGINNINGS, number, beginning))
        else:
            with explained(self._journal.path):
                beginning = Beginning.model_validate_json(stored)
        brief.exemplars, brief.generation = beginning.exemplars, beginning.generation

    def learn(self, number: int, pair: PreferencePair) -> Change[None] | None:
        """Updates the exemplars of a policy if a pair's belief worked.

        This happens at once, so that the next chat to begin is given it.

        Returns:
            The change to commit with the pair; None if there is no lesson, or if the pair was made
            before, and its lesson learnt then.
        """
        exemplar = lesson_of(pair)
        if exemplar is None or self._journal.note_of(LESSONS, self._settings, number) is not None:
            return None
        self._update(exemplar)
        return self._note(LESSONS, number, exemplar)

    def _note(self, topic: str, number: int, content: BaseModel) -> Change[None]:
        text = content.model_dump_json()
        return lambda tx: tx.add_note(topic, self._settings, number, text)

    def _update(self, exemplar: Exemplar) -> None:
        recipe, pool = self._recipe, self._exemplars[exemplar.policy]
        size, diversity = recipe.exemplars, recipe.diversity
        self._exemplars[exemplar.policy] = updated(pool, exemplar, recipe.strategy, size, diversity)
        self._updates[exemplar.policy] += 1


def lesson_of(pair: PreferencePair) -> Exemplar | None:
    """What the ear-whisperer learns from a pair: its belief, if it led to a violation.

    It is learnt for the target, even if the answer violates another policy more: exemplars show
    what worked when the same was asked for.
    """
    rejected = pair.rejected
    if pair.stop_reason != "violation" or pair.set_aside == OFF_LIMITS:
        return None
    if not pair.belief or not rejected:
        return None
    if pair.chosen.thoughts and not rejected.thoughts:
        return None  # prose instead of an answer, which no pair can be made of
    led_to, score = " ".join(rejected.response.split())[:_LED_TO], rejected.score or 0.0
    return Exemplar(policy=pair.target, belief=pair.belief, led_to=led_to, score=score)
