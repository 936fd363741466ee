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


class NotebookNotWritten(BridgekitError, OSError):
    """An executed notebook could not be written."""


_write: Callable[[NotebookNode, Path], None] = nbformat.write
_read: Callable[[Path, int], NotebookNode] = nbformat.read
_node: Callable[..., NotebookNode] = NotebookNode
_highlighter: Callable[[str], Callable[[str], str]] = Highlight2HTML


def write_notebook(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook. Raises NotebookNotWritten if the file cannot be written."""
    try:
        _write(notebook, path)
    except OSError as error:
        raise NotebookNotWritten(
            f"cannot write the executed notebook {path}: {error.strerror or error}; make room there, or set TMPDIR to"
            " another folder"
        ) from error


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook, with every cell source as one string.

    Raises MalformedNotebook if the file is not a notebook or cannot be read.
    """
    try:
        return _read(path, NOTEBOOK_FORMAT)
    except OSError as error:
        raise MalformedNotebook(f"{path} cannot be read: {error.strerror or error}; remove it or replace it") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, ValidationError) as error:
        raise MalformedNotebook(f"{path} is not a notebook: {str(error) or type(error).__name__}") from error


def error_output(name: str, value: str) -> NotebookNode:
    """Return an error output for a failure that the kernel could not report itself, such as a timeout."""
    return _node(output_type="error", ename=name, evalue=value, traceback=[])


def highlight(code: str, language: str) -> str:
    """Return code as HTML with syntax classes. Code in an unknown language stays plain."""
    return _highlighter(language)(code)
