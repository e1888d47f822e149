"""`RunResults`: the results of a run, read one at a time from its journal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic

from orchestration.journal import Journal
from orchestration.journal.errors import explained
from orchestration.runs.job import Kind, ResultT


class RunResults(Generic[ResultT]):
    """Reads the results of a run.

    Args:
        journal: Of the run; closed by whoever opened it.
        kind: What the run makes.
    """

    def __init__(self, journal: Journal, kind: Kind[ResultT]) -> None:
        self.journal = journal
        self.kind = kind

    def all(self, outcome: str | None = None) -> Iterator[ResultT]:
        """Results in the order of their prompts; all, or those of an outcome."""
        return self._read(text for _, text in self.journal.results(outcome))

    def get(self, number: int) -> ResultT | None:
        """The result of a prompt, by its number; None if it has no outcome."""
        return self._first(self.journal.result(number))

    def completed(self, digest: bytes) -> ResultT | None:
        """The completed result of a prompt, by the digest of its text; None if there is none."""
        return self._first(self.journal.completed_result(digest))

    def find(self, start: str, limit: int) -> list[ResultT]:
        """The result of that id; if there is none, those whose ids start with it."""
        return list(self._read(self.journal.find_results(start, limit)))

    def _first(self, text: str | None) -> ResultT | None:
        return next(self._read([] if text is None else [text]), None)

    def _read(self, texts: Iterable[str]) -> Iterator[ResultT]:
        for text in texts:
            with explained(self.journal.path):
                result = self.kind.read(text)
            yield result
