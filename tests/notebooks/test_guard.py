"""Each failure here really happens in a kernel, and the guard catches it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook
from nbmake.nb_run import NotebookRun

from tests.notebooks.guard import faults_of, sentinel

CELL_SECONDS = 60

IN_A_GROUP = "async with anyio.create_task_group() as group:\n    group.start_soon(anyio.sleep, 0)\n    assert 1 == 2"
WHILE_HANDLING = """\
try:
    async with anyio.create_task_group():
        assert 1 == 2
except ExceptionGroup as group:
    raise RuntimeError("while handling")"""
# The event loop reports a task's error when the task is collected, and a cell shows it only if that happens while the
# cell runs. The guard cannot rely on that, so the lint forbids bare tasks.
BACKGROUND = "async def fail():\n    assert 1 == 2\n\ntask = asyncio.create_task(fail())\nawait asyncio.sleep(0.01)"
FIGURE = "figure, axes = plt.subplots(figsize=(1, 1))\nplt.close(figure)\ndisplay(figure"
DESCRIBED = FIGURE + ', metadata={"image/png": {"alt": "an empty frame"}})'

# name, the cells between the first and the sentinel, what the guard must say
FAILURES: list[tuple[str, list[Any], str]] = [
    ("group", [IN_A_GROUP], "never ran"),
    ("while_handling", [WHILE_HANDLING], "never ran"),
    ("from_none", [WHILE_HANDLING + " from None"], "never ran"),
    ("plain", ["assert 1 == 2"], "raised AssertionError"),
    ("tolerated", [("assert 1 == 2", "raises-exception")], "raised AssertionError"),
    ("stderr", ["print('broken', file=sys.stderr)"], "wrote to stderr: broken"),
    ("skipped", [("assert 1 == 1", "skip-execution")], "never ran"),
    ("no_alt", [FIGURE + ")"], "without alt text"),
    ("background", [BACKGROUND, "del task\ngc.collect()"], "never retrieved"),
    ("not_awaited", ["async def holds():\n    return False\n\nassert holds()"], "never awaited"),
    ("no_sentinel", [None], "did not print 'checked: no_sentinel'"),
]


def write_notebook(path: Path, cells: list[Any]) -> Path:
    """Write a sound notebook with these cells in its middle. A cell may have a tag; None: no sentinel."""
    middle = [cell if isinstance(cell, tuple) else (cell, "") for cell in cells if cell is not None]
    first = ("import asyncio, gc, sys\nimport anyio\nimport matplotlib.pyplot as plt", "")
    last = [] if None in cells else [(f"print({sentinel(path.stem)!r})", "")]
    notebook = new_notebook(  # type: ignore[no-untyped-call]
        cells=[
            new_code_cell(source, metadata={"tags": [tag] if tag else []})  # type: ignore[no-untyped-call]
            for source, tag in [first, *middle, *last]
        ]
    )
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    return path


async def execute_all(paths: list[Path]) -> None:
    """Execute the notebooks in one kernel, because starting it takes longer than running them all."""
    client = NotebookClient(new_notebook(), timeout=CELL_SECONDS)  # type: ignore[no-untyped-call]
    async with client.async_setup_kernel():
        for path in paths:
            client.nb = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
            # What remains in the notebook is all that the guard sees, as with nbmake.
            with contextlib.suppress(CellExecutionError):
                for n, cell in enumerate(client.nb.cells):
                    await client.async_execute_cell(cell, n)
            nbformat.write(client.nb, path)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failures")
    rows: list[tuple[str, list[Any]]] = [(name, cells) for name, cells, _ in FAILURES]
    rows.append(("sound", ["await anyio.sleep(0)", DESCRIBED]))
    asyncio.run(execute_all([write_notebook(folder / f"{name}.ipynb", cells) for name, cells in rows]))
    return folder


@pytest.mark.parametrize(("name", "expected"), [(name, expected) for name, _, expected in FAILURES])
def test_failure_is_caught(name: str, expected: str, executed: Path) -> None:
    faults = faults_of(executed / f"{name}.ipynb")
    assert any(expected in fault for fault in faults), faults


def test_sound_notebook_has_no_faults(executed: Path) -> None:
    assert faults_of(executed / "sound.ipynb") == []


def test_notebook_without_code_is_at_fault(tmp_path: Path) -> None:
    nbformat.write(new_notebook(), tmp_path / "empty.ipynb")  # type: ignore[no-untyped-call]
    assert faults_of(tmp_path / "empty.ipynb") == ["the last cell did not print 'checked: empty'"]


def test_nbmake_alone_passes_an_assertion_that_failed_in_a_task_group(tmp_path: Path) -> None:
    """The reason for the guard. If this test fails, nbmake finds the failure, and the guard can be removed."""
    path = write_notebook(tmp_path / "group.ipynb", [IN_A_GROUP])
    result = NotebookRun(path, CELL_SECONDS).execute()
    nbformat.write(result.nb, path)  # type: ignore[no-untyped-call]
    assert result.error is None
    assert {"cell 3: never ran", "the last cell did not print 'checked: group'"} <= set(faults_of(path))
