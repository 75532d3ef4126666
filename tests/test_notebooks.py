"""Does every notebook run from top to bottom, and was it committed with what it shows?"""

import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """Runs in a folder of its own, with TFPRUNE_QUICK=1 for small grids; a cell that fails names itself."""
    import nbclient
    import nbformat

    monkeypatch.setenv("TFPRUNE_QUICK", "1")
    # The notebook draws as it does for a reader: inline, not into the window-less backend of the tests.
    monkeypatch.delenv("MPLBACKEND")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert all(cell.execution_count for cell in code_cells(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_committed_with_its_outputs(path):
    import nbformat

    cells = code_cells(nbformat.read(path, as_version=4))
    outputs = [output for cell in cells for output in cell.outputs]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "Restart, run all, save."
    assert any("image/png" in output.get("data", {}) for output in outputs), "A notebook without a picture."
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_first_cell_installs_tfprune_where_it_is_missing(path):
    import nbformat

    first = code_cells(nbformat.read(path, as_version=4))[0].source
    assert 'find_spec("tfprune") is None' in first
    assert "%pip install" in first


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_that_are_linked_exist(path):
    import nbformat

    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\((\w+\.ipynb)\)", text):
        assert (path.parent / target).is_file(), f"{path.name} links to {target}."
