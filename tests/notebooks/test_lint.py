"""Each convention has a notebook that breaks it; the lint must name that breach and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks.lint import complaints_about
from tools.strip_notebooks import KERNELSPEC, strip

Notebook = Any


def code(source: str, *tags: str) -> Any:
    return new_code_cell(source, metadata={"tags": list(tags)})  # type: ignore[no-untyped-call]


def prose(source: str) -> Any:
    return new_markdown_cell(source)  # type: ignore[no-untyped-call]


def conforming() -> Notebook:
    cells = [
        prose("# One heading\n\n```\n# a comment\n```"),
        code("SEED = 7\nSIZES: tuple[int, ...] = (1, 2)", "parameters"),
        code("import pandas as pd\nfrom bridgekit import measure"),
        code("result = await measure()\nnames = [row for row in result]"),
        code("assert result\nprint('checked: here')", "check"),
    ]
    metadata = {"kernelspec": KERNELSPEC, "title": "One heading"}
    return new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]


def with_cell(source: str, *tags: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook.cells.insert(3, code(source, *tags))


def set_source(position: int, source: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook.cells[position].update(source=source)


BREACHES: list[tuple[Callable[[Notebook], Any], str]] = [
    (lambda n: n.cells.append(prose("# Another")), "2 headings of the first level, not one"),
    (set_source(0, "## Low"), "0 headings of the first level, not one"),
    (lambda n: n.metadata.pop("title"), "metadata.title is not set"),
    (lambda n: n.metadata.kernelspec.update(name="conda"), "the kernel is not named python3"),
    (
        lambda n: n.metadata.update(execution={"allow_errors": True}),
        "metadata.execution changes how it is run",
    ),
    (lambda n: n.cells[2].pop("id"), "a cell has no id"),
    (lambda n: n.cells.append(prose("$$ p $$")), "LaTeX, which shows raw offline"),
    (
        lambda n: n.cells.__setitem__(slice(2, 2), [code("1") for _ in range(9)]),
        "13 code cells, more than 12",
    ),
    (lambda n: n.cells[1].metadata.update(tags=[]), "0 cells tagged `parameters`, not one"),
    (set_source(1, "SEED = max(1, 2)"), "the cell tagged `parameters` holds more than literal assignments"),
    (set_source(1, "import pandas"), "the cell tagged `parameters` holds more than literal assignments"),
    (
        lambda n: n.cells.insert(1, code("await go()")),
        "the first code cell awaits: if it failed, the kernel would hang until the timeout",
    ),
    (
        lambda n: n.cells[-1].metadata.update(tags=[]),
        "the last code cell, and no other, must be tagged `check`",
    ),
    (with_cell("1", "check"), "the last code cell, and no other, must be tagged `check`"),
    (with_cell("\n".join("1" * 13)), "code cell 3: more than 12 lines"),
    (with_cell(" "), "code cell 3: empty: it would never run"),
    (with_cell("1", "raises-exception"), "code cell 3: tag 'raises-exception'"),
    (with_cell("1", "skip-execution"), "code cell 3: tag 'skip-execution'"),
    (with_cell("%matplotlib inline"), "code cell 3: a magic or a shell command"),
    (with_cell("!ls"), "code cell 3: a magic or a shell command"),
    (with_cell("class A: ..."), "code cell 3: a class: the library has it, the notebook shows it"),
    (with_cell("for x in y: ..."), "code cell 3: a for loop: the library answers with a table"),
    (with_cell("while x: ..."), "code cell 3: a while loop: the library waits, under a limit"),
    (with_cell("import asyncio"), "code cell 3: imports asyncio"),
    (with_cell("from matplotlib import pyplot"), "code cell 3: imports matplotlib"),
    (with_cell("t = asyncio.create_task(f())"), "code cell 3: asyncio.create_task: a task that nobody owns"),
    (with_cell("anyio.run(f)"), "code cell 3: anyio.run raises in a kernel: await instead"),
]


def test_conforming_notebook_draws_no_complaint() -> None:
    assert complaints_about(conforming()) == []


@pytest.mark.parametrize(("break_it", "expected"), BREACHES, ids=[said for _, said in BREACHES])
def test_breach_is_named(break_it: Callable[[Notebook], Any], expected: str) -> None:
    notebook = conforming()
    break_it(notebook)
    assert complaints_about(notebook) == [expected]


def test_notebook_without_code_is_named() -> None:
    assert complaints_about(new_notebook()) == ["no code cell"]  # type: ignore[no-untyped-call]


def test_strip_removes_what_a_run_added_and_keeps_ids_and_tags() -> None:
    clean = strip(nbformat.writes(conforming()))  # type: ignore[no-untyped-call]
    dirty: Any = nbformat.reads(clean, as_version=4)  # type: ignore[no-untyped-call]
    dirty.metadata.update(language_info={"name": "python"}, widgets={})
    dirty.cells[1].update(execution_count=3, outputs=[new_output("stream", text="7")])  # type: ignore[no-untyped-call]
    dirty.cells[1].metadata.update(execution={"iopub.status.busy": "2026-01-01"}, collapsed=False)
    assert strip(nbformat.writes(dirty)) == clean  # type: ignore[no-untyped-call]
    assert strip(clean) == clean
