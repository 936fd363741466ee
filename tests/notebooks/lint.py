"""The conventions of a committed notebook, as a pure function from a notebook to the rules that it breaks."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterator, Sequence
from typing import Any

CODE_CELLS_AT_MOST = 15
LINES_AT_MOST = 30
COLUMNS_AT_MOST = 88
"""A longer line wraps in the report and is cut off in JupyterLab."""
IMPORTABLE = {"anyio", "bridgekit", "bridgekit_verify", "matplotlib", "pandas"}
"""What notebooks import, besides the modules of the standard library in the next set."""
IMPORTABLE_FROM_THE_STANDARD_LIBRARY = {
    "collections", "contextlib", "dataclasses", "functools", "itertools", "json", "logging", "typing",
}  # fmt: skip
TAGS = {"parameters", "try", "exercise", "check"}
OVERVIEW = "00_overview"
GLOSSARY = "Glossary"
# Their errors are lost: nothing in a notebook owns the task.
TASK_MAKERS = {"create_task", "ensure_future"}
# Each raises an error in a kernel, where an event loop already runs.
LOOP_STARTERS = {"anyio.run", "asyncio.run", "uvicorn.run", "trio.run"}
# Each can wait forever: a cell needs a time limit around it.
ENDLESS = {"receive", "wait", "sleep_forever"}

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def complaints_about(notebook: Any, *, name: str = "", names: Sequence[str] = ()) -> list[str]:
    """Return one sentence for each broken rule, in the order of the cells.

    `name` is the notebook's name without suffix, and `names` are those of all notebooks, in order. Without them, the
    links are not checked.
    """
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not code:
        return ["no code cell"]
    return [
        *about_whole(notebook),
        *about_navigation(notebook, name, names),
        *about_roles(code),
        *about_parameters(code),
        *(f"code cell {n}: {problem}" for n, cell in enumerate(code, 1) for problem in about_cell(cell)),
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
        yield "metadata.execution changes how it is run"  # it can allow errors, which a test would not see
    if any(not cell.get("id") for cell in notebook.cells):
        yield "a cell has no id"
    if any("$$" in text or "\\begin{" in text for text in prose):
        yield "LaTeX, which is not rendered offline"
    if (count := sum(cell.cell_type == "code" for cell in notebook.cells)) > CODE_CELLS_AT_MOST:
        yield f"{count} code cells, more than {CODE_CELLS_AT_MOST}"


def lines_of_prose(text: str) -> list[str]:
    """Return a markdown cell's lines outside fenced code, where `#` starts a comment."""
    return [line for part in text.split("```")[::2] for line in part.splitlines()]


def about_navigation(notebook: Any, name: str, names: Sequence[str]) -> Iterator[str]:
    """Check the links to the previous and the next notebook, the overview and the glossary, and all other links."""
    if name not in names:
        return
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = set(_LINK.findall(prose))
    at = list(names).index(name)
    glossary = f"#{GLOSSARY}" if name == OVERVIEW else f"{OVERVIEW}.ipynb#{GLOSSARY}"
    wanted = {"the glossary": glossary}
    if name != OVERVIEW:
        wanted["the overview"] = f"{OVERVIEW}.ipynb"
    if at > 0:
        wanted["the previous notebook"] = f"{names[at - 1]}.ipynb"
    if at + 1 < len(names):
        wanted["the next notebook"] = f"{names[at + 1]}.ipynb"
    yield from (f"no link to {what}: {link}" for what, link in wanted.items() if link not in links)
    yield from (f"a link to {link}, which does not exist" for link in sorted(links) if is_missing(link, names))


def is_missing(link: str, names: Collection[str]) -> bool:
    """Return whether the link names a notebook that does not exist."""
    target = link.partition("#")[0]
    return target.endswith(".ipynb") and target.removesuffix(".ipynb") not in names


def about_roles(code: list[Any]) -> Iterator[str]:
    parameters = [cell for cell in code if "parameters" in tags_of(cell)]
    if len(parameters) != 1:
        yield f"{len(parameters)} cells tagged `parameters`, not one"
    if not all(map(is_literal_assignment, (node for cell in parameters for node in parsed(cell).body))):
        yield "the cell tagged `parameters` contains more than assignments of literals"
    if any(isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor) for node in ast.walk(parsed(code[0]))):
        yield "the first code cell awaits: if it failed, the kernel would hang until the timeout"
    if [cell for cell in code if "check" in tags_of(cell)] != code[-1:]:
        yield "the last code cell, and no other, must be tagged `check`"


def about_parameters(code: list[Any]) -> Iterator[str]:
    """Check that a comment on its last line explains each parameter, and that a cell checks the values."""
    if not any("check_parameters(globals())" in cell.source.splitlines() for cell in code):
        yield "no cell calls check_parameters(globals())"
    for cell in code:
        if "parameters" in tags_of(cell):
            commented = lines_with_a_comment(cell.source)
            for node in parsed(cell).body:
                if node.end_lineno not in commented:
                    yield f"no comment explains the parameter {ast.unparse(node).split()[0].rstrip(':')}"


def lines_with_a_comment(source: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def about_cell(cell: Any) -> Iterator[str]:
    lines = cell.source.splitlines()
    if len(lines) > LINES_AT_MOST:
        yield f"more than {LINES_AT_MOST} lines"
    if (longest := max(map(len, lines), default=0)) > COLUMNS_AT_MOST:
        yield f"a line of {longest} columns, more than {COLUMNS_AT_MOST}"
    if not cell.source.strip():
        yield "empty: it would never run"
    if unknown := sorted(tags_of(cell) - TAGS):
        yield f"tag {unknown[0]!r}"  # skip-execution and raises-exception hide a failure
    if any(line.lstrip().startswith(("%", "!", "?")) for line in lines):
        yield "a magic or a shell command"
    for node in ast.walk(parsed(cell)):
        yield from about_node(node)
    yield from (
        f"waits for {what} without a time limit: use anyio.fail_after" for what in unlimited_waits(parsed(cell))
    )


def about_node(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        known = IMPORTABLE | IMPORTABLE_FROM_THE_STANDARD_LIBRARY
        yield from (f"imports {name}" for name in imported(node) if name.split(".")[0] not in known)
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func)
        if called.rpartition(".")[2] in TASK_MAKERS:
            yield f"{called}: a task that nothing owns"
        if called in LOOP_STARTERS:
            yield f"{called} raises in a kernel: await instead"


def unlimited_waits(tree: ast.AST, *, limited: bool = False) -> Iterator[str]:
    """Yield each awaited call that can wait forever, outside a block with a time limit."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.With | ast.AsyncWith):
            block = limited or any("fail_after" in ast.unparse(item) for item in node.items)
            yield from unlimited_waits(node, limited=block)
            continue
        if isinstance(node, ast.Await) and isinstance(node.value, ast.Call) and not limited:
            called = ast.unparse(node.value.func)
            if called.rpartition(".")[2] in ENDLESS:
                yield called
        yield from unlimited_waits(node, limited=limited)


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
    """Parse a cell without its magics, which have a rule of their own and are no Python."""
    lines = (line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!", "?")))
    return ast.parse("\n".join(lines))


def tags_of(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))
