"""Records in the forms that training and publishing want them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias

from agents.deliberation import Thought
from orchestration.record import CoTRecord

Format: TypeAlias = Literal["records", "aidsafe", "sft"]


def export_lines(
    records: Iterable[CoTRecord], form: Format, citations: bool = True
) -> Iterator[str]:
    """One JSON object a line, for every `completed` record.

    Args:
        records: Any records; those of another outcome are left out.
        form: `records` is the whole record; `aidsafe` is prompt, thoughts and response, as the
            published data set has them; `sft` is chat messages with the thoughts inside
            ``<think>…</think>``, as TRL's SFTTrainer takes them.
        citations: Whether thoughts end with the policies and rules that they cite, in brackets.
            Of no effect on `records`.

    Yields:
        Lines without their line break.
    """
    shapes: dict[Format, Callable[[CoTRecord], dict[str, Any]]] = {
        "records": lambda record: record.model_dump(mode="json"),
        "aidsafe": lambda record: as_aidsafe(record, citations),
        "sft": lambda record: as_sft(record, citations),
    }
    for record in records:
        if record.outcome == "completed":
            yield json.dumps(shapes[form](record), ensure_ascii=False)


def as_aidsafe(record: CoTRecord, citations: bool = True) -> dict[str, Any]:
    """A record as prompt, thoughts and response."""
    return {
        "prompt": record.prompt,
        "thoughts": "\n".join(_thought(thought, citations) for thought in record.thoughts),
        "response": record.response,
    }


def as_sft(record: CoTRecord, citations: bool = True) -> dict[str, Any]:
    """A record as one user and one assistant message."""
    thoughts = "\n".join(_untagged(_thought(thought, citations)) for thought in record.thoughts)
    response = _untagged(record.response or "")
    return {
        "messages": [
            {"role": "user", "content": record.prompt},
            {"role": "assistant", "content": f"<think>\n{thoughts}\n</think>\n\n{response}"},
        ]
    }


def _thought(thought: Thought, citations: bool) -> str:
    text = " ".join(thought.text.split())
    return f"{text} [{', '.join([*thought.policies, *thought.rules])}]" if citations else text


def _untagged(text: str) -> str:
    """Keeps a model's own think tags from ending, or opening, the block."""
    return text.replace("<think>", "(think)").replace("</think>", "(/think)")
