"""Fixtures of all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the program's state, so that no test writes into the user's own."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("AIDSAFE_STATE_DIR", str(folder))
    return folder
