"""Records in the forms that training and publishing want them in."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from agents.deliberation import Thought
from orchestration.journal import JournalError
from orchestration.record import CoTRecord
from orchestration.runs.files import write_whole
from policies import InputError

Format: TypeAlias = Literal["records", "aidsafe", "sft"]

# As tokenizers and trainers look for it, and as a model may write it.
_THINK_TAG = re.compile(r"<\s*(/?)\s*think\s*>", re.IGNORECASE)


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


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes lines into a file, whole or not at all.

    Returns:
        How many.

    Raises:
        InputError: The file cannot be written there.
        JournalError: The disk is full, or the journal that the lines come from cannot be read.
    """
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for count, line in enumerate(lines, 1):  # noqa: B007 - the caller is told
            yield line + "\n"

    try:
        write_whole(path, counted())
    except OSError as error:
        cause = f"{path} cannot be written ({error.strerror})."
        if error.errno == errno.ENOSPC:
            raise JournalError(cause, "Make room on the disk.") from None
        raise InputError(cause, "Check the folder, or name another file.") from None
    return count


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
    return _THINK_TAG.sub(r"(\1think)", text)
