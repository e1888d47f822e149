"""`RunReader`: a run folder as an iterable of its results, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Generic, Self

from rich.table import Table

from orchestration.chat.html import document, element, html_table
from orchestration.chat.view import table
from orchestration.journal import Journal
from orchestration.journal.errors import explained
from orchestration.journal.lock import is_locked
from orchestration.runs.budget import Budget
from orchestration.runs.job import Kind, ResultT
from orchestration.runs.result import OUTCOMES
from orchestration.runs.status import STATUS_NAME, Summary, read_status
from policies import InputError

Matches = Callable[[ResultT], bool]
_SHOWN = 20  # results in a notebook or terminal


class RunReader(Generic[ResultT]):
    """The results of a run in the order of their prompts, read one at a time.

    Works while the run is going on: each iteration reads what is finished when it begins.

    Args:
        journal: Of the run.
        kind: What the run makes.
        outcome: Only results of this outcome.
        matches: Only results for which all of these return true.
    """

    def __init__(
        self,
        journal: Journal,
        kind: Kind[ResultT],
        outcome: str | None = None,
        matches: tuple[Matches[ResultT], ...] = (),
    ) -> None:
        self.journal = journal
        self.kind = kind
        self.folder = journal.path.parent
        self._outcome = outcome
        self._matches = matches

    def __iter__(self) -> Iterator[ResultT]:
        results = self._read(text for _, text in self.journal.results(self._outcome))
        return (result for result in results if all(match(result) for match in self._matches))

    def _read(self, texts: Iterable[str]) -> Iterator[ResultT]:
        for text in texts:
            with explained(self.journal.path):
                result = self.kind.read(text)
            yield result

    def __len__(self) -> int:
        """The number of results; reads all of them if they are filtered by a function."""
        if self._matches:
            return sum(1 for _ in self)
        counts = self.journal.outcomes()
        return counts.total() if self._outcome is None else counts[self._outcome]

    def __getitem__(self, prompt_id: str) -> ResultT:
        """The result of a prompt, by its id or the beginning of its id; filters do not apply.

        Raises:
            KeyError: No result, or more than one, has such an id.
        """
        found = self.find(prompt_id, 2)
        if len(found) != 1:
            raise KeyError(f"{'several results' if found else 'no result'} for {prompt_id!r}")
        return found[0]

    def find(self, start: str, limit: int) -> list[ResultT]:
        """The result of that id; if there is none, those whose ids start with it."""
        return list(self._read(self.journal.find_results(start, limit)))

    def get(self, number: int) -> ResultT | None:
        """The result of a prompt, by its number; None if it has no outcome."""
        return self._first(self.journal.result(number))

    def completed(self, digest: bytes) -> ResultT | None:
        """The completed result of a prompt, by the digest of its text; None if there is none."""
        return self._first(self.journal.completed_result(digest))

    def _first(self, text: str | None) -> ResultT | None:
        return next(self._read([] if text is None else [text]), None)

    def where(
        self, matches: Matches[ResultT] | None = None, *, outcome: str | None = None
    ) -> RunReader[ResultT]:
        """Some of the results.

        Args:
            matches: Only results for which it returns true.
            outcome: Only results of this outcome.

        Raises:
            InputError: The outcome is unknown.
        """
        if outcome is not None and outcome not in OUTCOMES:
            raise InputError(
                f"There is no outcome '{outcome}'.", f"Use one of {', '.join(OUTCOMES)}."
            )
        both = self._matches if matches is None else (*self._matches, matches)
        return RunReader(self.journal, self.kind, outcome or self._outcome, both)

    @property
    def summary(self) -> Summary:
        """What the run as a whole has done: from its journal, and from the process that runs it."""
        journal, kind = self.journal, self.kind
        summary = read_status(self.folder, STATUS_NAME) or Summary(kind=kind.name)
        counts = {
            "outcomes": dict(journal.outcomes()),
            "kind": kind.name,
            "tallies": kind.tallies(journal.endings()),
            "prompts": journal.count_prompts(),
            "pending": journal.count_pending(),
            **Budget(spent=journal.spend()).spent(),
        }
        return _checked(summary.model_copy(update=counts), self.folder)

    def rows(self, unsafe: bool = False) -> Iterator[dict[str, Any]]:
        """The results as flat rows, which are described at `open_run`.

        Args:
            unsafe: Whether rows of pairs include the text that was made bad on purpose.
        """
        return (self.kind.row(result, unsafe) for result in self)

    def to_pandas(self, unsafe: bool = False) -> Any:
        """The `rows` as a DataFrame; raises `InputError` if pandas is not installed."""
        return _import("pandas").DataFrame.from_records(list(self.rows(unsafe)))

    def to_dataset(self, unsafe: bool = False) -> Any:
        """The `rows` as a `datasets.Dataset`; raises `InputError` if that is not installed."""
        return _import("datasets").Dataset.from_list(list(self.rows(unsafe)))

    def close(self) -> None:
        """Closes the journal, also for everything that `where` returned."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How it is shown

    def __repr__(self) -> str:
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in self.journal.outcomes().items())
        return f"<{self.kind.name} of the run in {self.folder}: {outcomes or 'none yet'}>"

    def __rich__(self) -> Table:
        return table(self._columns, self._cells(), one_line=True)

    def _repr_html_(self) -> str:
        cells = list(self._cells())
        more = element("p", f"The first {_SHOWN} are shown.", "dim")
        shown = html_table(self._columns, cells)
        return document(element("b", repr(self)[1:-1]), shown, more if len(cells) == _SHOWN else "")

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("id", *self.kind.columns, "prompt")

    def _cells(self) -> Iterable[list[str]]:
        for result in islice(self, _SHOWN):
            yield [result.id, *self.kind.cells(result), " ".join(result.prompt.split())[:200]]


def _checked(summary: Summary, folder: Path) -> Summary:
    """A summary whose phase takes into account what its session could not know."""
    changes: dict[str, Any] = {}
    if not summary.started_at:  # a run without its status file, such as a salvaged one
        changes = {"phase": "stopped" if summary.pending else "finished"}
    elif summary.phase == "finished" and summary.pending:
        why = "The session is finished; prompts that were not part of it have no outcome yet."
        changes = {"phase": "stopped", "why_stopped": why}
    elif summary.phase in ("running", "stopping") and is_locked(folder) is False:
        # The process was killed, or the machine restarted.
        changes = {
            "phase": "stopped",
            "why_stopped": "Its process ended without updating the status.",
            "active": 0,
            "per_minute": None,
            "seconds_left": None,
            "endpoints": [],
        }
    return summary.model_copy(update=changes)


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise InputError(
            f"This needs {package}, which is not installed.",
            "Install it with: pip install 'aidsafe[data]'",
        ) from None
