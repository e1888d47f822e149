"""The state of a deliberation: intents, thoughts and response, folded from its turns.

This is the one place that knows what a reply does. Agents use it to tell the next speaker how
things stand, and the record is made of it, so both agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import BaseModel, Field

from agents.deliberation.replies import (
    DeliberationReply,
    DraftReply,
    Drop,
    DropReason,
    Intent,
    IntentReply,
    RefinementReply,
    Rewrite,
)
from agents.replies import Citation, ReplyContract
from agents.turns import ChatState, Stance, Turn, share_fields_set


class Objection(BaseModel, extra="forbid"):
    """A deliberator's dispute of a thought."""

    by: str
    """Agent that disputes."""
    round: int
    reason: str


class Thought(BaseModel, extra="forbid"):
    """One step of the chain of thought, tied to policies."""

    id: int
    """Number in this deliberation, from 1, in order of creation; never used twice."""
    text: str
    policies: list[str]
    """Ids of the policies that it rests on; those of its rules included."""
    rules: list[str]
    """Ids of the rules that it cites; may be empty."""
    author: str
    """Agent that wrote this wording."""
    round: int
    """Round in which it was written; 0 in the opening and the closing."""
    replaces: int | None = None
    """Id of the thought that this one is a new wording of."""
    objections: list[Objection] = Field(default_factory=list)


RemovalReason: TypeAlias = DropReason | Literal["corrected", "rewritten"]


class RemovedThought(BaseModel, extra="forbid"):
    """A thought that is not in the final chain, and why."""

    thought: Thought
    reason: RemovalReason
    """The refiner's reason to drop it, or `corrected` (by a deliberator) or `rewritten` (by the
    refiner) if a new wording stands in its place."""
    why: str
    """In the remover's words; empty for a correction."""
    by: str
    """Agent that removed it."""
    round: int
    replaced_by: int | None = None
    """Id of the thought that stands in its place."""


@dataclass
class DeliberationState(ChatState):
    """The state after some turns. Changed by `apply` alone."""

    contract: ReplyContract
    intents: list[Intent] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    """The chain as it stands, in its order."""
    removed: list[RemovedThought] = field(default_factory=list)
    response: str | None = None
    response_by: str | None = None
    """Agent that wrote the response as it stands."""
    ignored_references: int = 0
    """How often a reply referred to a thought that does not exist (any more)."""
    last_agent: str | None = None
    """Agent of the last turn with thoughts; None before the first."""
    changes: list[tuple[str | int, ...]] = field(default_factory=list)
    """What that turn did: keys of `changes` in the prompt texts, each with the numbers of thoughts
    (the old and the new one, where a thought was corrected or rewritten)."""
    turns: list[Turn] = field(default_factory=list, compare=False)
    """The turns that have been applied."""
    _next_id: int = 1

    @property
    def source(self) -> ReplyContract:
        """The contract."""
        return self.contract

    def apply(self, turn: Turn) -> Stance | None:
        """Applies a turn.

        Returns:
            For a deliberator's turn, what it does to the current version, whatever its verdict
            says: one that changes something `revises`, and `contests` if it disputes something as
            well; one that accepts, changes nothing and disputes nothing `accepts`; any other is
            `neither`. Repeating a response or a thought as it stands is no change.
        """
        reply = turn.reply
        self.turns.append(turn)
        if isinstance(reply, IntentReply):
            self.intents = list(reply.intents)
        elif isinstance(reply, DraftReply | DeliberationReply | RefinementReply):
            self.last_agent, self.changes = turn.agent, []
            if isinstance(reply, DeliberationReply):
                return self._deliberate(reply, turn)
            if isinstance(reply, RefinementReply):
                self._refine(reply, turn)
            else:
                self.changes.append(("drafted", *(self._add(c, turn) for c in reply.thoughts)))
                self.response, self.response_by = reply.response, turn.agent
        return None

    def _deliberate(self, reply: DeliberationReply, turn: Turn) -> Stance:
        standing = {thought.id: thought for thought in self.thoughts}
        for correction in reply.correct:
            old = self._find(correction.thought, standing)
            if old is not None and not self._says_the_same(old, correction):
                del standing[old.id]
                new = self._remove(old, turn, "corrected", wording=correction)
                self.changes.append(("corrected", *new))
        added = [
            self._add(citation, turn)
            for citation in reply.add
            if not any(self._says_the_same(thought, citation) for thought in self.thoughts)
        ]
        if added:
            self.changes.append(("added", *added))
        self._change_response(reply.response, turn)
        changed = len(self.changes)
        for dispute in reply.dispute:
            thought = self._find(dispute.thought, standing)
            if thought is not None:
                objection = Objection(by=turn.agent, round=turn.round, reason=dispute.reason)
                thought.objections.append(objection)
                self.changes.append(("disputed", thought.id))
        disputed = len(self.changes) > changed
        if changed:
            return "contests" if disputed else "revises"
        if reply.verdict == "accept" and not disputed:
            self.changes.append(("accepted",))
            return "accepts"
        return "neither"

    def _refine(self, reply: RefinementReply, turn: Turn) -> None:
        standing = {thought.id: thought for thought in self.thoughts}
        for decision in reply.decisions:
            thought = self._find(decision.thought, standing)
            if thought is None:
                continue
            del standing[thought.id]  # the first decision on a thought counts
            if isinstance(decision, Drop):
                numbers = self._remove(thought, turn, decision.reason, decision.why)
                self.changes.append(("dropped", *numbers))
            elif isinstance(decision, Rewrite) and not self._says_the_same(thought, decision):
                numbers = self._remove(thought, turn, "rewritten", decision.why, decision)
                self.changes.append(("rewrote", *numbers))
        self._change_response(reply.response, turn)

    def _find(self, number: int, standing: Mapping[int, Thought]) -> Thought | None:
        """The thought that a reply means, of those that stood when it was asked for."""
        thought = standing.get(number)
        self.ignored_references += thought is None
        return thought

    def _policies(self, citation: Citation) -> list[str]:
        """The policies that are cited, and those of the rules that are; unknown rules have none."""
        owners = self.contract.policy_set.owners
        owning = (owners[rule] for rule in citation.rules if rule in owners)
        return list(dict.fromkeys([*citation.policies, *owning]))

    def _says_the_same(self, thought: Thought, citation: Citation) -> bool:
        return (
            thought.text == citation.text
            and set(thought.policies) == set(self._policies(citation))
            and set(thought.rules) == set(citation.rules)
        )

    def _write(self, citation: Citation, turn: Turn, replaces: int | None = None) -> Thought:
        thought = Thought(
            id=self._next_id,
            text=citation.text,
            policies=self._policies(citation),
            rules=list(citation.rules),
            author=turn.agent,
            round=turn.round,
            replaces=replaces,
        )
        share_fields_set(thought)
        self._next_id += 1
        return thought

    def _add(self, citation: Citation, turn: Turn) -> int:
        """Adds a thought at the end of the chain; gives its number."""
        self.thoughts.append(self._write(citation, turn))
        return self.thoughts[-1].id

    def _remove(
        self,
        old: Thought,
        turn: Turn,
        reason: RemovalReason,
        why: str = "",
        wording: Citation | None = None,
    ) -> list[int]:
        """Takes a thought out, or puts a new wording in its place; gives the numbers of both."""
        new = [] if wording is None else [self._write(wording, turn, replaces=old.id)]
        # By number: comparing the thoughts themselves would compare all of their fields.
        at = [thought.id for thought in self.thoughts].index(old.id)
        self.thoughts[at : at + 1] = new
        removed = {"reason": reason, "why": why, "by": turn.agent, "round": turn.round}
        number = new[0].id if new else None
        self.removed.append(RemovedThought(thought=old, replaced_by=number, **removed))
        return [old.id, *(thought.id for thought in new)]

    def _change_response(self, response: str | None, turn: Turn) -> None:
        if response is not None and response != self.response:
            self.response, self.response_by = response, turn.agent
            self.changes.append(("rewrote_response",))

    def drops_everything(self, reply: RefinementReply) -> bool:
        """Whether a refinement would leave no thought of those that stand."""
        first = {d.thought: d.decision for d in reversed(reply.decisions)}
        return bool(self.thoughts) and all(first.get(t.id) == "drop" for t in self.thoughts)
