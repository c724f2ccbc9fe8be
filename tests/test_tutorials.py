"""Tutorials that are notebooks in text form run from beginning to end on the built-in corpus."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

TUTORIALS = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
NOTEBOOKS = {
    "first_run.md": "runs/past/likelihood.valid.gt.json",
    "latents_in_python.md": "resynthesised.wav",
    "comparing_guides.md": "gaps.png",
    "enhancing_a_recording.md": "enhanced/voice.wav",
}
"""Each with a file that its last cells write."""

# Jupyter warns of its own plans, and leaves sockets to its event loop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()


@pytest.fixture(autouse=True)
def this_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``python`` in a cell is the interpreter of the tests, and finds the packages of this checkout."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", str(TUTORIALS.parents[1]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_a_tutorial_runs(page: str, tmp_path: Path) -> None:
    notebook = execute(jupytext.read(TUTORIALS / page), tmp_path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == (TUTORIALS / page).read_text(encoding="utf-8").count("\n```") / 2
    assert (tmp_path / NOTEBOOKS[page]).is_file()


@pytest.mark.parametrize("source", ["assert False", "%%bash\npython -m inference.svi --model nonsense"])
def test_a_cell_that_fails_is_noticed(source: str, tmp_path: Path) -> None:
    notebook = jupytext.reads(f"```python\n{source}\n```\n", fmt="md")
    with pytest.raises(CellExecutionError):
        execute(notebook, tmp_path)
