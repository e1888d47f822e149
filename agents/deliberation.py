"""Where a deliberation stands: intents, thoughts and response, folded from its turns.

The fold is the one place that knows what a reply does. Agents use it to tell the next speaker where
things stand, the record is made of it, and both therefore agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from agents.handing import take
from agents.replies import (
    Citation,
    DeliberationReply,
    DraftReply,
    DropReason,
    Intent,
    IntentReply,
    RefinementReply,
    ReplyContract,
    Rewrite,
    rule_owners,
)
from agents.turns import Stance, Turn


class Objection(BaseModel):
    """A deliberator's dispute of a thought, by whom and when."""

    model_config = ConfigDict(extra="forbid")

    by: str
    """Agent that disputes."""
    round: int
    reason: str


class Thought(BaseModel):
    """One step of the chain of thought, tied to policies."""

    model_config = ConfigDict(extra="forbid")

    id: int
    """Number in this deliberation, from 1, in order of creation; never given twice."""
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


class RemovedThought(BaseModel):
    """A thought that is not in the final chain, and why."""

    model_config = ConfigDict(extra="forbid")

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
class Deliberation:
    """The state after some turns. Built by `fold`, changed by `apply` alone."""

    contract: ReplyContract
    intents: list[Intent] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    """The chain as it stands, in its order."""
    removed: list[RemovedThought] = field(default_factory=list)
    response: str | None = None
    response_by: str | None = None
    """Agent that wrote the response as it stands."""
    ignored_references: int = 0
    """References to thoughts that do not exist (or not any more), passed over."""
    ledger: list[str] = field(default_factory=list)
    """What each turn did to the numbering, one line a turn, without the texts."""
    turns: list[Turn] = field(default_factory=list, compare=False)
    """The turns that were taken into account."""
    _next_id: int = 1

    def apply(self, turn: Turn) -> Stance | None:
        """Takes a turn into account.

        Returns:
            What the turn does to the current version, for a deliberator's turn, whatever its
            verdict says: a turn that changes something `revises`, and `contests` if it disputes
            something as well; one that accepts, changes nothing and disputes nothing `accepts`; any
            other is `neither`. A response or a thought that is repeated as it stands is no change.
            None for other roles.
        """
        reply = turn.reply
        self.turns.append(turn)
        if isinstance(reply, IntentReply):
            self.intents = list(reply.intents)
        elif isinstance(reply, DraftReply):
            added = [self._add(citation, turn) for citation in reply.thoughts]
            self._respond(reply.response, turn)
            self.ledger.append(f"{turn.agent} wrote {_numbers(added)} and the response.")
        elif isinstance(reply, DeliberationReply):
            return self._deliberate(reply, turn)
        elif isinstance(reply, RefinementReply):
            self._refine(reply, turn)
        return None

    def _deliberate(self, reply: DeliberationReply, turn: Turn) -> Stance:
        done: list[str] = []
        standing = {thought.id: thought for thought in self.thoughts}
        for correction in reply.correct:
            old = self._find(correction.thought, standing)
            if old is not None and not self._says_the_same(old, correction):
                del standing[old.id]
                new = self._replace(old, correction, turn, "corrected", "")
                done.append(f"corrected {old.id}, now {new.id}")
        added = [
            self._add(citation, turn)
            for citation in reply.add
            if not any(self._says_the_same(thought, citation) for thought in self.thoughts)
        ]
        if added:
            done.append(f"added {_numbers(added)}")
        changed = bool(done)
        if reply.response is not None and reply.response != self.response:
            self._respond(reply.response, turn)
            done.append("rewrote the response")
            changed = True
        objected = False
        for dispute in reply.dispute:
            thought = self._find(dispute.thought, standing)
            if thought is not None:
                thought.objections.append(
                    Objection(by=turn.agent, round=turn.round, reason=dispute.reason)
                )
                done.append(f"disputed {thought.id}")
                objected = True
        stance: Stance = "neither"
        if changed:
            stance = "contests" if objected else "revises"
        elif reply.verdict == "accept" and not objected:
            stance = "accepts"
            done.append("accepted")
        self.ledger.append(f"{turn.agent} {', '.join(done) or 'changed nothing'}.")
        return stance

    def _refine(self, reply: RefinementReply, turn: Turn) -> None:
        done: list[str] = []
        standing = {thought.id: thought for thought in self.thoughts}
        for decision in reply.decisions:
            thought = self._find(decision.thought, standing)
            if thought is None:
                continue
            del standing[thought.id]  # the first decision on a thought counts
            if isinstance(decision, Rewrite):
                if not self._says_the_same(thought, decision):
                    new = self._replace(thought, decision, turn, "rewritten", decision.why)
                    done.append(f"rewrote {thought.id}, now {new.id}")
            elif decision.decision == "drop":
                done.append(f"dropped {thought.id}")
                del self.thoughts[self._place(thought)]
                self.removed.append(
                    RemovedThought(
                        thought=thought,
                        reason=decision.reason,
                        why=decision.why,
                        by=turn.agent,
                        round=turn.round,
                    )
                )
        if reply.response is not None and reply.response != self.response:
            self._respond(reply.response, turn)
            done.append("rewrote the response")
        self.ledger.append(f"{turn.agent} {', '.join(done) or 'changed nothing'}.")

    def _find(self, number: int, standing: Mapping[int, Thought]) -> Thought | None:
        """The thought that a reply means, of those that stood when it was asked for."""
        thought = standing.get(number)
        self.ignored_references += thought is None
        return thought

    def _policies(self, citation: Citation) -> list[str]:
        """The policies that are cited, and those of the rules that are."""
        owners = rule_owners(self.contract, citation.rules)
        return list(dict.fromkeys([*citation.policies, *owners]))

    def _says_the_same(self, thought: Thought, citation: Citation) -> bool:
        return (
            thought.text == citation.text
            and set(thought.policies) == set(self._policies(citation))
            and set(thought.rules) == set(citation.rules)
        )

    def _place(self, thought: Thought) -> int:
        # By number: to compare the thoughts themselves would compare all of their fields.
        return next(i for i, standing in enumerate(self.thoughts) if standing.id == thought.id)

    def _add(self, citation: Citation, turn: Turn, replaces: Thought | None = None) -> Thought:
        thought = Thought(
            id=self._next_id,
            text=citation.text,
            policies=self._policies(citation),
            rules=list(citation.rules),
            author=turn.agent,
            round=turn.round,
            replaces=replaces.id if replaces else None,
        )
        self._next_id += 1
        if replaces is None:
            self.thoughts.append(thought)
        else:
            self.thoughts[self._place(replaces)] = thought
        return thought

    def _replace(
        self,
        old: Thought,
        citation: Citation,
        turn: Turn,
        reason: Literal["corrected", "rewritten"],
        why: str,
    ) -> Thought:
        new = self._add(citation, turn, replaces=old)
        self.removed.append(
            RemovedThought(
                thought=old,
                reason=reason,
                why=why,
                by=turn.agent,
                round=turn.round,
                replaced_by=new.id,
            )
        )
        return new

    def _respond(self, response: str, turn: Turn) -> None:
        self.response = response
        self.response_by = turn.agent

    def drops_everything(self, reply: RefinementReply) -> bool:
        """Whether a refinement would leave no thought of those that stand."""
        first: dict[int, str] = {}
        for decision in reply.decisions:
            first.setdefault(decision.thought, decision.decision)
        return bool(self.thoughts) and all(first.get(t.id) == "drop" for t in self.thoughts)


def fold(turns: Iterable[Turn], contract: ReplyContract) -> Deliberation:
    """The state that a sequence of turns leads to."""
    state = Deliberation(contract=contract)
    for turn in turns:
        state.apply(turn)
    return state


def take_state(turns: Sequence[Turn], contract: ReplyContract) -> Deliberation:
    """Same as `fold`; goes on from what the last speaker handed on, if it is about these turns."""
    return take(Deliberation(contract=contract), "contract", turns)


def _numbers(thoughts: Sequence[Thought]) -> str:
    ids = ", ".join(str(thought.id) for thought in thoughts)
    return f"thought {ids}" if len(thoughts) == 1 else f"thoughts {ids}"
