"""Executes every notebook with other parameters than those that it is committed with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook

from bridgekit_verify.report.parameters import read_parameters, replace_parameters
from tests.notebooks.lint import tags_of
from tests.tree import NOTEBOOKS

NAMES = tuple(path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")))
IN_MAKE_TEST = ("09_bridge_routing",)
"""`make test` executes this one with other parameters, and all notebooks with their own."""
SELECTED_NAMES = [
    pytest.param(name, marks=pytest.mark.slow if name in IN_MAKE_TEST else pytest.mark.acceptance, id=name)
    for name in NAMES
]
"""All notebooks; most of them only in `make acceptance`."""
CELL_SECONDS = 120
REMOVE_VARIABLES = 'get_ipython().run_line_magic("reset_selective", "-f ^[A-Za-z]")'
"""Names with an underscore stay: they belong to what `bridgekit_verify.report` installs in the kernel when imported."""
SMALL_FIGURES = "from bridgekit_verify.report import notebook_outputs; notebook_outputs.FIGURE_DOTS_PER_INCH = 20"
"""Figures are drawn, but with few pixels, because these runs check no picture."""


def execute_with(parameters: Mapping[str, Any], folder: Path, names: Iterable[str]) -> None:
    """Execute copies of these notebooks in `folder`, with the parameters of these names replaced.

    All copies share one kernel, whose variables are removed after each: at small sizes, starting a kernel and importing
    the packages takes longer than most notebooks.
    """
    asyncio.run(_execute_all(parameters, folder, names))


def selected(request: pytest.FixtureRequest) -> list[str]:
    """Return the notebooks of the module's tests that this run includes."""
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    return [call.params["name"] for call in calls if call is not None]


async def _execute_all(parameters: Mapping[str, Any], folder: Path, names: Iterable[str]) -> None:
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(new_notebook(), timeout=CELL_SECONDS, resources=resources)  # type: ignore[no-untyped-call]
    async with client.async_setup_kernel():
        await _execute_cell(client, SMALL_FIGURES)
        for name in names:
            client.nb = with_parameters(name, parameters)
            # What remains in the notebook is all that the guard sees, as with nbmake.
            with contextlib.suppress(CellExecutionError):
                for index, cell in enumerate(client.nb.cells):
                    await client.async_execute_cell(cell, index)
            nbformat.write(client.nb, folder / f"{name}.ipynb")  # type: ignore[no-untyped-call]
            await _execute_cell(client, REMOVE_VARIABLES)


async def _execute_cell(client: NotebookClient, source: str) -> None:
    """Execute a cell that belongs to no notebook."""
    client.nb = new_notebook(cells=[new_code_cell(source)])  # type: ignore[no-untyped-call]
    await client.async_execute_cell(client.nb.cells[0], 0)


def with_parameters(name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a notebook with those of the parameters that it has."""
    notebook: Any = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code" and "parameters" in tags_of(cell):
            known = {key: value for key, value in parameters.items() if key in read_parameters(cell.source)}
            cell.source = replace_parameters(cell.source, known)
    return notebook
