"""The notebooks run from their first cell to their last."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from nbclient import NotebookClient

from orchestration import deliberate_all, load_cast, load_pair_cast, make_pairs
from orchestration.pairs.recipe import load_pair_recipe
from tests.endpoint import Endpoint
from tests.orchestration.html_page import Page
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
    notebook = nbformat.read(HERE / "notebooks" / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    # Jupyter's "python3" is the interpreter that runs this test, whatever else is installed.
    client = NotebookClient(notebook, timeout=900, kernel_name="python3")
    done = client.execute(cwd=str(HERE))
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert all(output.output_type != "error" for output in outputs)
    return outputs


@pytest.mark.embedded
def test_the_quickstart_runs_to_its_end_on_the_embedded_model() -> None:
    outputs = run("quickstart")
    text = json.dumps(outputs)
    assert "stopped by:" in text
    shown = ["".join(o["data"]["text/html"]) for o in outputs if "text/html" in o.get("data", {})]
    record, difference = shown
    assert "Transcript: " in record
    assert "persona helpfulness_advocate" in difference


async def make_run(folder: Path, endpoint: Endpoint, number: int) -> None:
    """A run of records, and its pairs."""
    recipe = load_pair_recipe("default")
    audit = recipe.audit.model_copy(update={"length_ratio": None})
    mine = recipe.model_copy(update={"audit": audit})
    async with load_cast(model=f"{endpoint.base_url}#m") as cast:
        prompts = [f"Prompt {n}?" for n in range(number)]
        async for record in deliberate_all(prompts, cast, folder):
            assert record.outcome == "completed"
        async for pair in make_pairs(folder, load_pair_cast(cast, mine)):
            assert pair.outcome == "completed"


def test_the_pairs_of_a_run_are_plotted_and_what_is_unsafe_is_folded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with Endpoint(reply=whisper) as endpoint:
        # The notebook makes what is missing by itself: here the baseline.
        asyncio.run(make_run(folder, endpoint, 16))
        with mock.patch.dict(os.environ, {"AIDSAFE_RUN": str(folder)}):
            outputs = run("preference_pairs")
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 4
    text = json.dumps([o for o in outputs if "text/html" not in o.get("data", {})])
    assert "making baseline" in text
    assert "16 pairs" in text
    shown = [
        "".join(o["data"].pop("text/html")) for o in outputs if "text/html" in o.get("data", {})
    ]
    overview, pair = (Page(html) for html in shown)
    for visible in (json.dumps(outputs), overview.shown, overview.hidden, pair.shown):
        assert "It is known that" not in visible
    assert "It is known that" in pair.hidden
