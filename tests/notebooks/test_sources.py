"""Each committed notebook keeps the conventions, and carries nothing of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from bridgekit.event_types import CRITICAL, EventType
from tests.notebooks.lint import complaints_about
from tests.tree import NOTEBOOKS, name_of
from tools.strip_notebooks import strip

COMMITTED = pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=name_of)


@COMMITTED
def test_notebook_is_committed_without_traces_of_a_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == strip(text), "run `make strip`"


@COMMITTED
def test_notebook_keeps_the_conventions(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    names = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    assert complaints_about(notebook, name=path.stem, names=names) == []


def test_glossary_states_how_many_types_of_event_there_are() -> None:
    words = {5: "five", 7: "seven", 8: "eight", 9: "nine", 10: "ten"}
    glossary = (NOTEBOOKS / "00_overview.ipynb").read_text(encoding="utf-8")
    assert f"defines {words[len(EventType)]} types of event" in glossary
    assert f"The audit calls {words[len(CRITICAL)]} of these types critical" in glossary
