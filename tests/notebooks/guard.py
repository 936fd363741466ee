"""Finds what is wrong with an executed notebook that the runner reports as passed.

nbmake fails a notebook only when a cell has an `error` output. IPython prints an ExceptionGroup as text:
a failed assertion inside a task group stops the notebook, and is reported as passed. So this guard checks what a
complete run leaves behind; test_guard.py provokes each failure and shows that it is caught.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat


def faults_of(executed: Path) -> list[str]:
    """Return one sentence for each fault; none means that the notebook ran to its end and every assertion held."""
    notebook: Any = nbformat.read(executed, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    faults = [f"cell {n}: {fault}" for n, cell in enumerate(cells, 1) for fault in faults_of_cell(cell)]
    if not cells or last_line_printed(cells[-1]) != sentinel(executed.stem):
        faults.append(f"the last cell did not print {sentinel(executed.stem)!r}")
    return faults


def sentinel(stem: str) -> str:
    """Return the last line that a notebook prints. Only a run to the end prints it."""
    return f"checked: {stem}"


def faults_of_cell(cell: Any) -> Iterator[str]:
    if cell.execution_count is None:
        yield "never ran"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"raised {output.ename}: {output.evalue}"
        elif output.output_type == "stream" and output.name == "stderr":
            yield f"wrote to stderr: {output.text.strip()[:200]}"
        else:
            yield from figures_without_alt(output)


def figures_without_alt(output: Any) -> Iterator[str]:
    for kind in output.get("data", {}):
        described = output.metadata.get(kind, {}) if kind.startswith("image/") else {"alt": "not a figure"}
        if not described.get("alt", "").strip():
            yield f"shows a figure ({kind}) without alt text"


def last_line_printed(cell: Any) -> str:
    printed = "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stdout")
    return printed.rstrip("\n").rpartition("\n")[2]
