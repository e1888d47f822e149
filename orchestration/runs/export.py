"""Results in the formats that training and publishing need."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol

from orchestration.journal import JournalError
from orchestration.runs.files import write_atomically
from policies import InputError

THINK = "<think>\n{thoughts}\n</think>\n\n{response}"
"""How thoughts and response are combined, as reasoning models write them."""

_TAG = re.compile(r"[<\[]\s*/?\s*([\w|-]+)\s*[>\]]")


class Cited(Protocol):
    """A thought with its citations."""

    text: str
    policies: list[str]
    rules: list[str]


class Wrapping:
    """Combines thoughts and response into an assistant's message.

    Args:
        template: With `{thoughts}` and `{response}` in it, once each.
        citations: Whether thoughts end with the policies and rules that they cite, in brackets.

    Raises:
        InputError: The template is invalid.
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
        # In every spelling that tokenizers and trainers look for, and that a model may write.
        names = "|".join(sorted({re.escape(name) for name in _TAG.findall(self.template)}))
        return re.compile(rf"[<\[]\s*(/?)\s*({names})\s*[>\]]", re.IGNORECASE) if names else None

    def thought(self, thought: Cited) -> str:
        """One thought, in one line."""
        text = " ".join(thought.text.split())
        if not self.citations:
            return text
        return f"{text} [{', '.join([*thought.policies, *thought.rules])}]"

    def message_of(self, thoughts: Iterable[Cited], response: str) -> str:
        """The assistant's message.

        A tag of the template in the text itself is rewritten: it would end, or open, the block.
        """
        parts = {
            "{thoughts}": "\n".join(self._untagged(self.thought(thought)) for thought in thoughts),
            "{response}": self._untagged(response),
        }
        # In one pass: the text of one part may contain the other's placeholder.
        return re.sub(r"\{thoughts\}|\{response\}", lambda found: parts[found[0]], self.template)

    def _untagged(self, text: str) -> str:
        return text if self._tags is None else self._tags.sub(r"(\1\2)", text)


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes lines into a file, completely or not at all; returns how many.

    Raises:
        InputError: The file cannot be written there.
        JournalError: The disk is full, or the journal that the lines come from cannot be read.
    """
    count = 0

    def counted() -> Iterator[str]:
        nonlocal count
        for count, line in enumerate(lines, 1):  # noqa: B007 - returned
            yield line + "\n"

    try:
        write_atomically(path, counted())
    except OSError as error:
        cause = f"{path} cannot be written ({error.strerror})."
        if error.errno == errno.ENOSPC:
            raise JournalError(cause, "Make room on the disk.") from None
        raise InputError(cause, "Check the folder, or name another file.") from None
    return count


def message(role: str, content: str) -> dict[str, str]:
    """A chat message."""
    return {"role": role, "content": content}
