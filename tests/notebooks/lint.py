"""The conventions of a committed notebook, as a pure function from notebook to complaints."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

CODE_CELLS_AT_MOST = 12
LINES_AT_MOST = 12
IMPORTABLE = {"bridgekit", "bridgekit_verify", "pandas"}
TAGS = {"parameters", "check"}
FORBIDDEN = {
    ast.ClassDef: "a class: the library has it, the notebook shows it",
    ast.For: "a for loop: the library answers with a table",
    ast.AsyncFor: "a for loop: the library answers with a table",
    ast.While: "a while loop: the library waits, under a limit",
}
# Their errors are lost: nothing in a notebook owns the task.
TASK_MAKERS = {"create_task", "ensure_future"}
# Each raises in a kernel, where a loop already runs.
LOOP_STARTERS = {"anyio.run", "asyncio.run", "uvicorn.run", "trio.run"}


def complaints_about(notebook: Any) -> list[str]:
    """Answer with one sentence per broken convention, in the order of the cells."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code:
        return ["no code cell"]
    return [
        *about_whole(notebook),
        *about_roles(code),
        *(f"code cell {n}: {said}" for n, cell in enumerate(code, 1) for said in about_cell(cell)),
    ]


def about_whole(notebook: Any) -> Iterator[str]:
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = [line for text in prose for line in lines_of_prose(text) if line.startswith("# ")]
    if len(headings) != 1:
        yield f"{len(headings)} headings of the first level, not one"
    if not notebook.metadata.get("title"):
        yield "metadata.title is not set"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not named python3"
    if "execution" in notebook.metadata:
        yield "metadata.execution changes how it is run"  # it can allow errors, and a test would never know
    if any(not cell.get("id") for cell in notebook.cells):
        yield "a cell has no id"
    if any("$$" in text or "\\begin{" in text for text in prose):
        yield "LaTeX, which shows raw offline"
    if (count := sum(cell.cell_type == "code" for cell in notebook.cells)) > CODE_CELLS_AT_MOST:
        yield f"{count} code cells, more than {CODE_CELLS_AT_MOST}"


def lines_of_prose(text: str) -> list[str]:
    """Answer with a markdown cell's lines outside fenced code, where `#` begins a comment."""
    return [line for part in text.split("```")[::2] for line in part.splitlines()]


def about_roles(code: list[Any]) -> Iterator[str]:
    parameters = [cell for cell in code if "parameters" in tags_of(cell)]
    if len(parameters) != 1:
        yield f"{len(parameters)} cells tagged `parameters`, not one"
    if not all(map(is_literal_assignment, (node for cell in parameters for node in parsed(cell).body))):
        yield "the cell tagged `parameters` holds more than literal assignments"
    if any(isinstance(node, ast.Await | ast.AsyncWith) for node in ast.walk(parsed(code[0]))):
        yield "the first code cell awaits: if it failed, the kernel would hang until the timeout"
    if [cell for cell in code if "check" in tags_of(cell)] != code[-1:]:
        yield "the last code cell, and no other, must be tagged `check`"


def about_cell(cell: Any) -> Iterator[str]:
    if len(cell.source.splitlines()) > LINES_AT_MOST:
        yield f"more than {LINES_AT_MOST} lines"
    if not cell.source.strip():
        yield "empty: it would never run"
    if unknown := sorted(tags_of(cell) - TAGS):
        yield f"tag {unknown[0]!r}"  # skip-execution and raises-exception hide a failure
    if any(line.lstrip().startswith(("%", "!", "?")) for line in cell.source.splitlines()):
        yield "a magic or a shell command"
    for node in ast.walk(parsed(cell)):
        yield from about_node(node)


def about_node(node: ast.AST) -> Iterator[str]:
    if type(node) in FORBIDDEN:
        yield FORBIDDEN[type(node)]
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (f"imports {name}" for name in imported(node) if name.split(".")[0] not in IMPORTABLE)
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.rpartition(".")[2] in TASK_MAKERS:
            yield f"{called}: a task that nobody owns"
        if called in LOOP_STARTERS:
            yield f"{called} raises in a kernel: await instead"


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    return [node.module or "."] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]


def is_literal_assignment(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


def parsed(cell: Any) -> ast.Module:
    """Parse a cell without its magics: they are complained about by name, not as a syntax error."""
    lines = (line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!", "?")))
    return ast.parse("\n".join(lines))


def tags_of(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))
