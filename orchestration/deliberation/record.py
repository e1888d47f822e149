"""The CoT record: one prompt's deliberation, with its whole transcript."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from rich.text import Text

from agents.deliberation.replies import DeliberationTurns, Intent
from agents.deliberation.state import RemovedThought, Thought
from agents.models.usage import Usage
from orchestration.chat.html import Section, Shown, transcript
from orchestration.chat.view import clean, count, plain
from orchestration.runs.result import Outcome, Provenance


class CoTRecord(Shown, BaseModel, extra="forbid"):
    """A prompt, the chain of thought that was deliberated for it, and the transcript."""

    schema_version: Literal[1] = 1
    id: str
    """Id of the prompt, stable across runs."""
    prompt: str
    metadata: dict[str, Any] = {}
    """The other columns of the prompt's source."""
    outcome: Outcome
    problem: str | None = None
    """Why the outcome is not `completed`; None if it is."""
    stop_reason: str | None
    """Why the circle ended: `consensus`, `round_budget`, `token_budget`, or the reason of another
    termination condition; for other outcomes than `completed` the outcome itself."""
    rounds: int
    """Rounds of the circle, the last one even if incomplete."""
    intents: list[Intent]
    thoughts: list[Thought]
    """The final chain, in its order."""
    removed_thoughts: list[RemovedThought]
    """Thoughts that were corrected, rewritten or dropped, in order of removal."""
    response: str | None
    """The final response; None only if the outcome is not `completed`."""
    response_by: str | None
    """Agent that wrote it."""
    ignored_references: int
    """How often an agent referred to a thought that does not exist or was removed."""
    turns: DeliberationTurns
    """The transcript."""
    usage: Usage
    """Tokens of all turns, discarded replies included."""
    latency: float
    """Total seconds of the model calls, discarded replies included."""
    provenance: Provenance

    @property
    def reason(self) -> str | None:
        """See `RunResult`."""
        return self.stop_reason

    @property
    def rounds_or_attempts(self) -> int:
        """See `RunResult`."""
        return self.rounds

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        yield from (("id", self.id), ("outcome", self.outcome), ("stop_reason", self.stop_reason))
        yield "thoughts", len(self.thoughts)

    def sections(self, show_unsafe: bool = False) -> Iterator[Section]:
        """See `Shown`."""
        yield Section(plain(self.prompt, style="italic"))
        if self.outcome != "completed":
            yield Section(plain(f"{self.outcome}: {self.problem or ''}", style="bold red"))
        else:
            end = f"stopped by {self.stop_reason} after {count(self.rounds, 'round')}"
            yield Section(plain(f"completed, {end}", style="bold"), self._chain())
        removed = [
            f"removed {r.thought.id} ({r.reason}, by {r.by}): {r.thought.text}"
            + (f" / {r.why}" if r.why else "")
            for r in self.removed_thoughts
        ]
        if removed:
            head = plain(f"Removed: {count(len(removed), 'thought')}")
            yield Section(head, plain("\n".join(removed), style="dim"), folded=True)
        usage = self.usage
        cost = (
            f"{count(len(self.turns), 'turn')}, {usage.prompt_tokens} prompt tokens "
            f"({usage.cached_tokens} cached), {usage.completion_tokens} completion tokens, "
            f"{self.latency:.1f} s of model time"
        )
        yield Section(plain(cost, style="dim"))
        yield transcript(self.turns)

    def _chain(self) -> Text:
        """Thoughts and response."""
        lines = []
        for number, thought in enumerate(self.thoughts, 1):
            line = plain(f"{number}. {thought.text} ")
            line.append(clean(f"[{', '.join([*thought.policies, *thought.rules])}]"), style="cyan")
            lines.append(line.append(clean(f" {thought.author}"), style="dim"))
        response = plain("Response: ", style="bold")
        lines.append(response.append(clean(self.response or ""), style="not bold"))
        return Text("\n").join(lines)
