"""The notebooks run from their first cell to their last."""

from __future__ import annotations

import json
import os
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from nbclient import NotebookClient

from tests.endpoint import Endpoint
from tests.orchestration.command import aidsafe, models_file, prompts_file
from tests.orchestration.pairs.scripts import whisper

HERE = Path(__file__).parent.parent
NOTEBOOKS = sorted((HERE / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_its_output(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


def run(name: str) -> list[nbformat.NotebookNode]:
    """All outputs of a notebook."""
    notebook = nbformat.read(HERE / "notebooks" / f"{name}.ipynb", as_version=4)
    # Jupyter's "python3" is the interpreter that runs this test, whatever else is installed.
    client = NotebookClient(notebook, timeout=400, kernel_name="python3")
    done = client.execute(cwd=str(HERE))
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    return outputs


@pytest.mark.embedded
def test_the_quickstart_runs_to_its_end_on_the_embedded_model() -> None:
    assert "stopped by:" in json.dumps(run("quickstart"))


def test_the_pairs_of_a_run_are_plotted_and_nothing_unsafe_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = tmp_path / "pairs.yaml"
    config.write_text("name: mine\ndescription: x\naudit: {length_ratio: null}\n")
    with Endpoint(reply=whisper) as endpoint:
        models = models_file(tmp_path, endpoint)
        assert (
            aidsafe("run", prompts_file(tmp_path, 16), "--out", folder, "--models", models).code
            == 0
        )
        # The notebook makes what is missing by itself: here the baseline, there the pairs too.
        assert aidsafe("prefer", folder, "--config", config).code == 0
        with mock.patch.dict(os.environ, {"AIDSAFE_RUN": str(folder)}):
            outputs = run("preference_pairs")
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 4
    text = json.dumps(outputs)
    assert "16 pairs" in text
    assert "--show-unsafe shows it" in text
    assert "It is known that" not in text
