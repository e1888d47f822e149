"""What differs between two records, as a person reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import ndiff

from rich.text import Text

from orchestration.chat.html import Section, Shown
from orchestration.chat.view import plain
from orchestration.deliberation.record import CoTRecord


class RecordDiff(Shown):
    """The difference of two records. Shows itself in notebooks and terminals.

    Args:
        first: A record.
        second: Another one, usually of the same prompt.
    """

    def __init__(self, first: CoTRecord, second: CoTRecord) -> None:
        before, after = _facts(first), _facts(second)
        names = dict.fromkeys([*before, *after])
        pairs = ((name, before.get(name, ""), after.get(name, "")) for name in names)
        self.facts = [each for each in pairs if each[1] != each[2]]
        """What differs beside the texts, such as the hash of a persona: name, before, after."""
        self.thoughts = _compare(
            [t.text for t in first.thoughts], [t.text for t in second.thoughts]
        )
        """Lines that start with `+ `, `- ` or two spaces."""
        self.response = _compare(
            (first.response or "").splitlines(), (second.response or "").splitlines()
        )
        """The same of the response."""

    def sections(self, show_unsafe: bool = False) -> Iterator[Section]:
        """See `Shown`."""
        for name, before, after in self.facts:
            yield Section(plain(f"{name}: {before or 'none'} → {after or 'none'}"))
        styles = {"+": "green", "-": "red"}
        for title, lines in (("Thoughts", self.thoughts), ("Response", self.response)):
            texts = [plain(line, style=styles.get(line[0], "")) for line in lines]
            yield Section(plain(title, style="bold"), Text("\n").join(texts))


diff = RecordDiff
"""What differs between two records: outcome, personas, policies, models, thoughts, response."""


def _compare(before: list[str], after: list[str]) -> list[str]:
    return [line for line in ndiff(before, after) if not line.startswith("? ")]


def _facts(record: CoTRecord) -> dict[str, str]:
    made = record.provenance
    end = f"{record.outcome}, {record.stop_reason}, {record.rounds} rounds"
    found = {"prompt": record.prompt, "end": end, "recipe": f"{made.recipe} {made.recipe_hash}"}
    found |= {f"persona {name}": value for name, value in made.personas.items()}
    found |= {f"policy {name}": value for name, value in made.policies.items()}
    models = made.models.items()
    return found | {f"model {name}": json.dumps(config) for name, config in models}
