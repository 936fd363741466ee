"""The notebooks that `make test` has just executed ran to their end and held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from bridgekit_verify.report.executed_notebooks import collect
from tests.notebooks.guard import faults_of
from tests.tree import EXECUTED, NOTEBOOKS
from tests.verify.report.notebooks import ENVIRONMENT

COMMITTED = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("name", COMMITTED)
def test_executed_notebook_ran_to_its_end_and_held(name: str) -> None:
    assert (EXECUTED / name).exists(), "no executed copy of this notebook: run `make test`"
    assert sources_in(EXECUTED / name) == sources_in(NOTEBOOKS / name), "an old copy: run `make test`"
    assert faults_of(EXECUTED / name) == []


@pytest.mark.parametrize("name", COMMITTED)
def test_every_verdict_states_the_sample_that_it_rests_on(name: str) -> None:
    """The page names the smallest sample behind a verdict, so a verdict without one would be left out."""
    notebook: Any = nbformat.read(EXECUTED / name, as_version=4)  # type: ignore[no-untyped-call]
    report = collect([(Path(name).stem, notebook)], ENVIRONMENT)
    judged = [finding for finding, _ in report.findings.values() if finding.verdict != "unknown"]
    assert [finding.id for finding in judged if finding.sample is None or not finding.sample.count] == []


def test_every_notebook_and_no_other_was_executed() -> None:
    assert sorted(path.name for path in EXECUTED.glob("*.ipynb")) == COMMITTED, "run `make test`"


def sources_in(path: Any) -> list[str]:
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell.source for cell in notebook.cells]
