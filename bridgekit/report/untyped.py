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
_highlighter: Callable[[str], Callable[[str], str]] = Highlight2HTML


def read_notebook(path: Path) -> NotebookNode:
    """A notebook, with every source as one string."""
    return _read(path, NOTEBOOK_FORMAT)


def highlight(code: str, language: str) -> str:
    """Code as HTML whose parts have classes. What is in no known language stays plain."""
    return _highlighter(language)(code)
