"""Each convention has a notebook that breaks it; the lint must name that rule and no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.notebooks.lint import complaints_about
from tools.strip_notebooks import KERNELSPEC, strip

Notebook = Any

NAMES = ("00_overview", "01_before", "02_here", "03_next")
NAVIGATION = (
    "[before](01_before.ipynb) · [overview](00_overview.ipynb) · [next](03_next.ipynb)"
    " · [glossary](00_overview.ipynb#Glossary) · [elsewhere](../docs/audit.md)"
)


def code(source: str, *tags: str) -> Any:
    return new_code_cell(source, metadata={"tags": list(tags)})  # type: ignore[no-untyped-call]


def prose(source: str) -> Any:
    return new_markdown_cell(source)  # type: ignore[no-untyped-call]


def conforming() -> Notebook:
    cells = [
        prose(f"# One heading\n\n{NAVIGATION}\n\n```\n# a comment\n```"),
        code("SEED = 7  # of all choices\nSIZES: tuple[int, ...] = (1, 2)  # of the runs", "parameters"),
        code("import pandas as pd\nfrom bridgekit import measure\n\ncheck_parameters(globals())"),
        code("result = await measure()\nnames = [row for row in result]"),
        code("for name in names:\n    print(name)", "try"),
        code("answer = None", "exercise"),
        code("with anyio.fail_after(1):\n    await event.wait()"),
        code("assert result\nprint('checked: here')", "check"),
    ]
    metadata = {"kernelspec": KERNELSPEC, "title": "One heading"}
    return new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]


def with_cell(source: str, *tags: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook.cells.insert(3, code(source, *tags))


def without_link(target: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook.cells[0].update(source=notebook.cells[0].source.replace(target, "(../README.md)"))


def set_source(position: int, source: str) -> Callable[[Notebook], None]:
    return lambda notebook: notebook.cells[position].update(source=source)


BREACHES: list[tuple[Callable[[Notebook], Any], str]] = [
    (lambda n: n.cells.append(prose("# Another")), "2 headings of the first level, not one"),
    (lambda n: n.cells[0].update(source="## Low\n\n" + NAVIGATION), "0 headings of the first level, not one"),
    (lambda n: n.metadata.pop("title"), "metadata.title is not set"),
    (lambda n: n.metadata.kernelspec.update(name="conda"), "the kernel is not named python3"),
    (
        lambda n: n.metadata.update(execution={"allow_errors": True}),
        "metadata.execution changes how it is run",
    ),
    (lambda n: n.cells[2].pop("id"), "a cell has no id"),
    (lambda n: n.cells.append(prose("$$ p $$")), "LaTeX, which is not rendered offline"),
    (
        lambda n: n.cells.__setitem__(slice(2, 2), [code("1") for _ in range(9)]),
        "16 code cells, more than 15",
    ),
    (without_link("(00_overview.ipynb)"), "no link to the overview: 00_overview.ipynb"),
    (without_link("(03_next.ipynb)"), "no link to the next notebook: 03_next.ipynb"),
    (without_link("(01_before.ipynb)"), "no link to the previous notebook: 01_before.ipynb"),
    (without_link("#Glossary"), "no link to the glossary: 00_overview.ipynb#Glossary"),
    (lambda n: n.cells.append(prose("[old](09_old.ipynb)")), "a link to 09_old.ipynb, which does not exist"),
    (lambda n: n.cells[1].metadata.update(tags=[]), "0 cells tagged `parameters`, not one"),
    (set_source(1, "SEED = max(1, 2)  # a"), "the cell tagged `parameters` contains more than assignments of literals"),
    (set_source(1, "import pandas  # a"), "the cell tagged `parameters` contains more than assignments of literals"),
    (set_source(2, "import pandas as pd"), "no cell calls check_parameters(globals())"),
    (set_source(1, "SEED = 7"), "no comment explains the parameter SEED"),
    (set_source(1, "SEED = '#'"), "no comment explains the parameter SEED"),
    (set_source(1, "SEED = 7  # a\nSIZES: int = 2"), "no comment explains the parameter SIZES"),
    (
        lambda n: n.cells.insert(1, code("await go()")),
        "the first code cell awaits: if it failed, the kernel would hang until the timeout",
    ),
    (
        lambda n: n.cells.insert(1, code("async for x in y: ...")),
        "the first code cell awaits: if it failed, the kernel would hang until the timeout",
    ),
    (
        lambda n: n.cells[-1].metadata.update(tags=[]),
        "the last code cell, and no other, must be tagged `check`",
    ),
    (with_cell("1", "check"), "the last code cell, and no other, must be tagged `check`"),
    (with_cell("\n".join("1" * 31)), "code cell 3: more than 30 lines"),
    (with_cell("x = " + "1" * 85), "code cell 3: a line of 89 columns, more than 88"),
    (with_cell(" "), "code cell 3: empty: it would never run"),
    (with_cell("1", "raises-exception"), "code cell 3: tag 'raises-exception'"),
    (with_cell("1", "skip-execution"), "code cell 3: tag 'skip-execution'"),
    (with_cell("%matplotlib inline"), "code cell 3: a magic or a shell command"),
    (with_cell("!ls"), "code cell 3: a magic or a shell command"),
    (with_cell("%pip install pandas"), "code cell 3: a magic or a shell command"),
    (with_cell("import asyncio"), "code cell 3: imports asyncio"),
    (with_cell("from urllib.request import urlopen"), "code cell 3: imports urllib.request"),
    (with_cell("t = asyncio.create_task(f())"), "code cell 3: asyncio.create_task: a task that nothing owns"),
    (with_cell("t = loop.create_task(f())"), "code cell 3: loop.create_task: a task that nothing owns"),
    (with_cell("t = asyncio.ensure_future(f())"), "code cell 3: asyncio.ensure_future: a task that nothing owns"),
    (with_cell("anyio.run(f)"), "code cell 3: anyio.run raises in a kernel: await instead"),
    (
        with_cell("await event.wait()"),
        "code cell 3: waits for event.wait without a time limit: use anyio.fail_after",
    ),
    (
        with_cell("with anyio.fail_after(1):\n    pass\nevent = await client.receive()"),
        "code cell 3: waits for client.receive without a time limit: use anyio.fail_after",
    ),
]


def complaints(notebook: Notebook) -> list[str]:
    return complaints_about(notebook, name="02_here", names=NAMES)


def test_conforming_notebook_has_no_complaint() -> None:
    assert complaints(conforming()) == []


@pytest.mark.parametrize(("break_it", "expected"), BREACHES, ids=[problem for _, problem in BREACHES])
def test_broken_rule_is_named(break_it: Callable[[Notebook], Any], expected: str) -> None:
    notebook = conforming()
    break_it(notebook)
    assert complaints(notebook) == [expected]


def test_first_notebook_has_no_previous_one_and_the_last_no_next_one() -> None:
    def missing(name: str, *names: str) -> list[str]:
        return [each for each in complaints_about(conforming(), name=name, names=names) if "no link" in each]

    assert missing("02_here", "02_here", "03_next") == []
    assert missing("02_here", "01_before", "02_here") == []
    assert missing("02_here", "01_other", "02_here", "03_other") == [
        "no link to the previous notebook: 01_other.ipynb",
        "no link to the next notebook: 03_other.ipynb",
    ]


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
