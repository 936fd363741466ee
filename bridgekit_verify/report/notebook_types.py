"""What nbformat and nbconvert leave untyped, with the types that their documentation states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbconvert.filters.highlight import Highlight2HTML
from nbformat import NotebookNode

NOTEBOOK_FORMAT = 4

write_notebook: Callable[[NotebookNode, Path], None] = nbformat.write

_read: Callable[[Path, int], NotebookNode] = nbformat.read
_node: Callable[..., NotebookNode] = NotebookNode
_highlighter: Callable[[str], Callable[[str], str]] = Highlight2HTML


def read_notebook(path: Path) -> NotebookNode:
    """A notebook, with every source as one string."""
    return _read(path, NOTEBOOK_FORMAT)


def error_output(name: str, value: str) -> NotebookNode:
    """An output for what a kernel could not say itself, so that the copy tells it to whoever reads it."""
    return _node(output_type="error", ename=name, evalue=value, traceback=[])


def highlight(code: str, language: str) -> str:
    """Code as HTML whose parts have classes. What is in no known language stays plain."""
    return _highlighter(language)(code)
