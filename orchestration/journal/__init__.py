"""The journal: the SQLite file in which a run keeps every reply, before it is used."""

from orchestration.journal.errors import JournalError
from orchestration.journal.schema import FILE_NAME, SCHEMA_VERSION
from orchestration.journal.store import Journal

__all__ = ["FILE_NAME", "SCHEMA_VERSION", "Journal", "JournalError"]
