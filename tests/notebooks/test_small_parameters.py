"""Asserts and verdicts of every notebook also hold at the smallest sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridgekit_verify.report.parameters import read_parameters
from tests.notebooks.guard import faults_of
from tests.notebooks.lint import tags_of
from tests.notebooks.parameter_runs import SELECTED_NAMES, execute_with, selected, with_parameters

SMALL: dict[str, Any] = {
    "SEED": 11,
    "THREADS": 3,
    "RUNS": 1,
    "AT_ONCE": 2,
    "USERS_WITHOUT_SOCKET": 1,
    "SHARING_RUNS": 2,
    "TRIALS": 1,
    "USERS": 1,
    "DRAWS": 40,
    "LINKS": [3],
    "STEPS": 8,
    "PACE_SECONDS": 0.02,
    "FAULT_SECONDS": 0.15,
    "FAULTS": ["down", "kill while offline"],
    "OFFLINE_SECONDS": [0.0, 0.1],
    "RETAINED_EVENTS": 3,
    "STEP_SECONDS": 0.3,
    "PAUSE_SECONDS": 0.01,
    "SEARCH_SECONDS": 1.0,
    "MAX_EVENTS_PER_SECOND": 3_000.0,
    "SOCKETS": 2,
    "SIZES": [10, 30],
    "ROUNDS": 1,
    "BACKEND_RUNS": 1,
    "SCENARIOS": ["text"],
    "RECORDINGS": [],
}


@pytest.fixture(scope="module")
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    execute_with(SMALL, folder, selected(request))
    return folder


@pytest.mark.parametrize("name", SELECTED_NAMES)
def test_notebook_holds_at_small_sizes(name: str, executed: Path) -> None:
    assert faults_of(executed / f"{name}.ipynb") == []


def test_parameters_replace_the_literals_of_their_names_only() -> None:
    notebook = with_parameters("12_faults", {"USERS": 5, "NONE": 1})
    [cell] = [each for each in notebook.cells if "parameters" in tags_of(each)]
    assert read_parameters(cell.source)["USERS"] == 5
    assert "NONE" not in cell.source
