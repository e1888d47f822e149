"""Records in the forms that training and publishing want them in."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from orchestration.journal import JournalError
from orchestration.record import CoTRecord
from orchestration.runs.files import write_whole
from policies import InputError

Format: TypeAlias = Literal["records", "aidsafe", "sft"]

THINK = "<think>\n{thoughts}\n</think>\n\n{response}"
"""How thoughts and response are put together, as reasoning models write them."""

_TAG = re.compile(r"[<\[]\s*/?\s*([\w|-]+)\s*[>\]]")


class Cited(Protocol):
    """A thought with what it cites."""

    text: str
    policies: list[str]
    rules: list[str]


class Wrapping:
    """Puts thoughts and response together into what an assistant says.

    Args:
        template: With `{thoughts}` and `{response}` in it, once each.
        citations: Whether thoughts end with the policies and rules that they cite, in brackets.

    Raises:
        InputError: The template is not one.
    """

    def __init__(self, template: str = THINK, citations: bool = True) -> None:
        if any(template.count(name) != 1 for name in ("{thoughts}", "{response}")):
            raise InputError(
                f"The wrapping '{template}' does not hold {{thoughts}} and {{response}} once each.",
                "Write it as in: --wrap '<think>{thoughts}</think>{response}'.",
            )
        self.template = template
        self.citations = citations

    @cached_property
    def _tags(self) -> re.Pattern[str] | None:
        # As tokenizers and trainers look for them, and as a model may write them.
        names = "|".join(sorted({re.escape(name) for name in _TAG.findall(self.template)}))
        return re.compile(rf"[<\[]\s*(/?)\s*({names})\s*[>\]]", re.IGNORECASE) if names else None

    def thought(self, thought: Cited) -> str:
        """One thought, in one line."""
        text = " ".join(thought.text.split())
        if not self.citations:
            return text
        return f"{text} [{', '.join([*thought.policies, *thought.rules])}]"

    def say(self, thoughts: Iterable[Cited], response: str) -> str:
        """What the assistant says.

        A tag of the template that stands in the text itself is written otherwise: it would end, or
        open, the block.
        """
        said = {
            "{thoughts}": "\n".join(self._untagged(self.thought(thought)) for thought in thoughts),
            "{response}": self._untagged(response),
        }
        # In one pass: the text of one part may hold the other's place.
        return re.sub(r"\{thoughts\}|\{response\}", lambda place: said[place[0]], self.template)

    def _untagged(self, text: str) -> str:
        return text if self._tags is None else self._tags.sub(r"(\1\2)", text)


def export_lines(records: Iterable[CoTRecord], form: Format, wrapping: Wrapping) -> Iterator[str]:
    """One JSON object a line, for every `completed` record.

    Args:
        records: Any records; those of another outcome are left out.
        form: `records` is the whole record; `aidsafe` is prompt, thoughts and response, as the
            published data set has them; `sft` is chat messages, as TRL's SFTTrainer takes them.
        wrapping: How thoughts are written, and for `sft` put before the response.

    Yields:
        Lines without their line break.
    """
    shapes: dict[Format, Callable[[CoTRecord], dict[str, Any]]] = {
        "records": lambda record: record.model_dump(mode="json"),
        "aidsafe": lambda record: as_aidsafe(record, wrapping),
        "sft": lambda record: as_sft(record, wrapping),
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


def as_aidsafe(record: CoTRecord, wrapping: Wrapping) -> dict[str, Any]:
    """A record as prompt, thoughts and response."""
    return {
        "prompt": record.prompt,
        "thoughts": "\n".join(wrapping.thought(thought) for thought in record.thoughts),
        "response": record.response,
    }


def as_sft(record: CoTRecord, wrapping: Wrapping) -> dict[str, Any]:
    """A record as one user and one assistant message."""
    said = wrapping.say(record.thoughts, record.response or "")
    return {"messages": [message("user", record.prompt), message("assistant", said)]}


def message(role: str, content: str) -> dict[str, str]:
    """A chat message."""
    return {"role": role, "content": content}
