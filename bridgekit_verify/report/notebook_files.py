"""The functions of nbformat and nbconvert that lack type annotations, with the types from their documentation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbconvert.filters.highlight import Highlight2HTML
from nbformat import NotebookNode, ValidationError

from bridgekit.errors import BridgekitError

NOTEBOOK_FORMAT = 4


class MalformedNotebook(BridgekitError, ValueError):
    """A file has the suffix of a notebook, but is not a notebook."""


write_notebook: Callable[[NotebookNode, Path], None] = nbformat.write

_read: Callable[[Path, int], NotebookNode] = nbformat.read
_node: Callable[..., NotebookNode] = NotebookNode
_highlighter: Callable[[str], Callable[[str], str]] = Highlight2HTML


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook, with every cell source as one string.

    Raises MalformedNotebook if the file is not a notebook, and OSError if it cannot be read.
    """
    try:
        return _read(path, NOTEBOOK_FORMAT)
    except (AttributeError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise MalformedNotebook(f"{path} is not a notebook: {str(error) or type(error).__name__}") from error


def error_output(name: str, value: str) -> NotebookNode:
    """Return an error output for a failure that the kernel could not report itself, such as a timeout."""
    return _node(output_type="error", ename=name, evalue=value, traceback=[])


def highlight(code: str, language: str) -> str:
    """Return code as HTML with syntax classes. Code in an unknown language stays plain."""
    return _highlighter(language)(code)
