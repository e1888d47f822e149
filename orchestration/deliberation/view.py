"""Records as people read them, on a terminal or in a pipe."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestration.chat.html import as_text
from orchestration.chat.view import TurnTexts, clean, plain
from orchestration.deliberation.record import CoTRecord


def print_record(console: Console, record: CoTRecord) -> None:
    """Prints the result of a chat: outcome, final chain and response."""
    console.print(Text("record", style="bold underline"))
    _, *sections = record.sections()  # without the prompt
    console.print(as_text(sections))


def print_transcript(console: Console, record: CoTRecord, instructions: bool = False) -> None:
    """Prints a whole record, turn by turn."""
    console.print(plain(f"{record.id}  ", style="bold").append(clean(record.prompt)))
    origin = record.provenance
    console.print(
        plain(
            f"{origin.policy_set}, recipe {origin.recipe}, {origin.started_at}, "
            f"aidsafe {origin.aidsafe}",
            style="dim",
        )
    )
    console.print()
    TurnTexts(instructions).print(console, record.turns)
    print_record(console, record)


_ROW = ("id", "prompt", "outcome", "problem", "stop_reason", "rounds", "response", "latency")


def record_row(record: CoTRecord) -> dict[str, Any]:
    """A record as a flat row; `open_run` describes its columns."""
    cited = (name for t in record.thoughts for name in (*t.policies, *t.rules))
    return {
        **{name: getattr(record, name) for name in _ROW},
        "intents": [f"{i.kind}, {i.nature}: {i.text}" for i in record.intents],
        "thoughts": [thought.text for thought in record.thoughts],
        "cited": list(dict.fromkeys(cited)),
        "removed": len(record.removed_thoughts),
        **record.usage.model_dump(),
        "policy_set": record.provenance.policy_set,
        "recipe": record.provenance.recipe,
        "metadata": json.dumps(record.metadata, ensure_ascii=False),
    }
