"""The notebooks that `make test` has just executed ran to their end and held."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from tests.notebooks.guard import faults_of
from tests.tree import EXECUTED, NOTEBOOKS

COMMITTED = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", COMMITTED)
def test_executed_notebook_ran_to_its_end_and_held(name: str) -> None:
    assert (EXECUTED / name).exists(), "no executed copy of this notebook: run `make test`"
    assert sources_in(EXECUTED / name) == sources_in(NOTEBOOKS / name), "an old copy: run `make test`"
    assert faults_of(EXECUTED / name) == []


def test_every_notebook_and_no_other_was_executed() -> None:
    assert sorted(path.name for path in EXECUTED.glob("*.ipynb")) == COMMITTED, "run `make test`"


def sources_in(path: Any) -> list[str]:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell.source for cell in notebook.cells]
