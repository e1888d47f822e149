"""The kinds of runs that aidsafe knows, and how a run folder is opened without naming its kind."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agents.models.config import ModelConfig
from agents.models.model import Model
from orchestration.deliberation.job import RECORDS
from orchestration.journal import Journal
from orchestration.journal.errors import damaged
from orchestration.pairs.job import PAIRS
from orchestration.runs.folder import load_settings, models_of_run, open_journal, unreadable
from orchestration.runs.job import Job, Kind
from orchestration.runs.result import RunResult
from orchestration.runs.trust import check_trusted

KINDS: tuple[Kind[Any], ...] = (RECORDS, PAIRS)
"""A new kind of run is added here."""


def kind_named(name: object) -> Kind[Any] | None:
    """The kind of that name; None if it is unknown."""
    return next((kind for kind in KINDS if kind.name == name), None)


def kind_of(journal: Journal) -> Kind[Any]:
    """What a run makes. One that never started counts as a run of records."""
    kind = kind_named(journal.meta("kind") or RECORDS.name)
    if kind is None:
        raise damaged(journal.path, "the kind of its results is unknown")
    return kind


def read_result(text: str) -> tuple[Kind[Any], RunResult]:
    """A result of any kind from its JSON; a ValueError if it is of none."""
    for kind in KINDS:
        try:
            return kind, kind.read(text)
        except ValidationError:
            continue
    raise ValueError("this is no result of a run")


def load_run(folder: Path, configs: dict[str, ModelConfig] | None, allowed: Sequence[str]) -> Job:
    """The job of a run folder, from its `run.yaml`.

    Args:
        folder: The run.
        configs: Models to use instead of those of `run.yaml`, which holds no secrets.
        allowed: Module prefixes that a component's classes may come from.

    Raises:
        InputError: `run.yaml` cannot be read, or a model needs a secret that it does not hold.
        JournalError: There is no run, its journal is damaged, or of another version.
    """
    with closing(open_journal(folder)) as journal:  # first: it knows older versions
        kind = kind_of(journal)
    settings = load_settings(folder)
    if configs is None:
        configs = models_of_run(folder)
        check_trusted(configs)
    try:
        models = {name: Model(name, config, allowed=allowed) for name, config in configs.items()}
        return kind.load_job(folder, settings, models)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise unreadable(folder) from None
