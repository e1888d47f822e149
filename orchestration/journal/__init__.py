"""The journal: the SQLite file in which a run stores every reply before it is used."""

from orchestration.journal.checks import Known
from orchestration.journal.errors import JournalError
from orchestration.journal.schema import (
    FILE_NAME,
    SCHEMA_VERSION,
    ModelSpend,
    PendingPrompt,
)
from orchestration.journal.store import Journal
from orchestration.journal.transaction import Change, IdTakenError, Transaction

__all__ = [
    "FILE_NAME",
    "SCHEMA_VERSION",
    "Change",
    "IdTakenError",
    "Journal",
    "JournalError",
    "Known",
    "ModelSpend",
    "PendingPrompt",
    "Transaction",
]
