"""The notebooks run from their first cell to their last, on the embedded model."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HERE = Path(__file__).parent.parent
NOTEBOOKS = sorted((HERE / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_output(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.embedded
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    # Jupyter's "python3" is the interpreter that runs this test, whatever else is installed.
    client = NotebookClient(notebook, timeout=400, kernel_name="python3")
    done = client.execute(cwd=str(HERE))
    text = json.dumps([cell.get("outputs", []) for cell in done.cells])
    assert "stopped by:" in text
    assert '"output_type": "error"' not in text
