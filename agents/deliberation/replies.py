"""The replies of a deliberation: one typed reply per role."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from agents.replies import (
    Citation,
    NoteText,
    ReplyPart,
    ResponseText,
    ThoughtText,
    TypedReply,
    limited,
)
from agents.turns import RepliesSchema, Turn


class Intent(ReplyPart):
    """One thing that the user wants, by the words or behind them."""

    text: ThoughtText
    kind: Literal["explicit", "implicit"]
    nature: Literal["benign", "harmful"]


class _Numbered(ReplyPart):
    thought: int
    """Number of the thought that is meant."""


# Fields come in the order that a model should fill them in, the base classes' from right to left:
# number first, then the text, then the citation.
class Correction(Citation, _Numbered):
    """A new wording (and citation) of a thought that stands already."""


class Dispute(_Numbered):
    """An objection to a thought, left for others to settle."""

    reason: NoteText


class IntentReply(TypedReply):
    """Reply of the intent analyst."""

    role: Literal["intent_analyst"] = "intent_analyst"
    intents: list[Intent] = Field(min_length=1, max_length=20, json_schema_extra=limited("intents"))

    def describe(self, stance: str | None) -> list[str]:
        """One line an intent."""
        return [f"{i.kind}, {i.nature}: {i.text}" for i in self.intents]


class DraftReply(TypedReply):
    """Reply of the drafter: the first thoughts and the first response."""

    role: Literal["drafter"] = "drafter"
    thoughts: list[Citation] = Field(
        min_length=1,
        max_length=20,
        json_schema_extra={**limited("thoughts"), "x-least": "least_thoughts"},
    )
    response: ResponseText

    def describe(self, stance: str | None) -> list[str]:
        """One line a thought, then the response."""
        return [*(f"+ {thought}" for thought in self.thoughts), f"Response: {self.response}"]


class DeliberationReply(TypedReply):
    """Reply of a deliberator: a verdict on the current version, and what it changes in it."""

    role: Literal["deliberator"] = "deliberator"
    comment: NoteText
    verdict: Literal["accept", "revise"]
    add: list[Citation] = Field(max_length=20, json_schema_extra=limited("changes"))
    correct: list[Correction] = Field(max_length=20, json_schema_extra=limited("changes"))
    dispute: list[Dispute] = Field(max_length=20, json_schema_extra=limited("changes"))
    response: ResponseText | None

    def describe(self, stance: str | None) -> list[str]:
        """The stance, then one line a change."""
        return [
            f"{stance}: {self.comment}",
            *(f"+ {thought}" for thought in self.add),
            *(f"{c.thought} \N{RIGHTWARDS ARROW} {c}" for c in self.correct),
            *(f"{d.thought} disputed: {d.reason}" for d in self.dispute),
            *_described_response(self.response),
        ]


class Keep(_Numbered):
    """The thought stays as it is."""

    decision: Literal["keep"]

    def __str__(self) -> str:
        return f"{self.thought} kept"


class _Rewriting(_Numbered):
    decision: Literal["rewrite"]


class Rewrite(Citation, _Rewriting):
    """The thought stays in a new wording."""

    why: NoteText

    def __str__(self) -> str:
        return f"{self.thought} rewritten: {self.text} ({self.why})"


DropReason: TypeAlias = Literal["deceptive", "redundant", "repetitive", "policy_inconsistent"]


class Drop(_Numbered):
    """The thought goes, for one of the paper's reasons."""

    decision: Literal["drop"]
    reason: DropReason
    why: NoteText

    def __str__(self) -> str:
        return f"{self.thought} dropped as {self.reason}: {self.why}"


class RefinementReply(TypedReply):
    """Reply of the refiner: what becomes of the thoughts, and the final response."""

    role: Literal["refiner"] = "refiner"
    decisions: list[Annotated[Keep | Rewrite | Drop, Field(discriminator="decision")]] = Field(
        max_length=100, json_schema_extra=limited("decisions")
    )
    response: ResponseText | None

    def describe(self, stance: str | None) -> list[str]:
        """One line a decision, then the response if it is a new one."""
        return [*map(str, self.decisions), *_described_response(self.response)]


def _described_response(response: str | None) -> list[str]:
    return [] if response is None else [f"Response: {response}"]


_Replies = Annotated[
    IntentReply | DraftReply | DeliberationReply | RefinementReply, Field(discriminator="role")
]
DeliberationTurns: TypeAlias = Annotated[list[Turn], RepliesSchema(_Replies)]
"""The turns of a deliberation, as records have them."""
