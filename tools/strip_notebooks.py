"""Remove what a run adds to a notebook: outputs, execution counts, timestamps and the kernel's language_info.

Cell ids and tags stay. Stale outputs would look like evidence, so no outputs are committed. tests/notebooks checks this
rule.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def strip(text: str) -> str:
    """Return the notebook's JSON as it is committed. Stripping twice has no further effect."""
    notebook: Any = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    title = notebook.metadata.get("title")
    notebook.metadata = {"kernelspec": KERNELSPEC} | ({"title": title} if title else {})
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
        cell.source = cell.source.rstrip()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    stripped: str = nbformat.writes(nbformat.from_dict(notebook))  # type: ignore[no-untyped-call]
    return stripped.rstrip("\n") + "\n"


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        before = path.read_text(encoding="utf-8")
        if (after := strip(before)) != before:
            path.write_text(after, encoding="utf-8")
            print(f"stripped {path}")


if __name__ == "__main__":
    main()
