"""examples/research.ipynb runs from its first cell to its last, as it is committed: without outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import kalshi_fast

for needed in ("matplotlib", "pandas", "chdb", "nbclient", "nbformat", "ipykernel"):
    pytest.importorskip(needed, reason=f"the notebook uses {needed}")

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "research.ipynb"


@pytest.fixture
def kernels_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = str(Path(kalshi_fast.__path__[0]).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([found, os.environ.get("PYTHONPATH", "")]))


# What notebooks are run with warns of its own future.
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("kernels_find_the_package")
def test_the_notebook_runs() -> None:
    import nbformat
    from nbclient import NotebookClient

    formats: Any = nbformat
    notebook = formats.read(NOTEBOOK, as_version=4)
    formats.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    shown = [output for cell in code for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 1
    assert "until the next look" in "".join(output.get("text", "") for output in shown)
