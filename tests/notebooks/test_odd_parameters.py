"""Asserts and verdicts of every notebook also hold at sizes that do not divide each other, and for an empty list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.notebooks.guard import faults_of
from tests.notebooks.parameter_runs import SELECTED_NAMES, execute_with, selected

ODD: dict[str, Any] = {
    "SEED": 5,
    "THREADS": 5,
    "RUNS": 1,
    "AT_ONCE": 3,
    "USERS_WITHOUT_SOCKET": 2,
    "SHARING_RUNS": 13,
    "TRIALS": 2,
    "USERS": 3,
    "DRAWS": 101,
    "LINKS": [1, 9],
    "STEPS": 9,
    "PACE_SECONDS": 0.03,
    "FAULT_SECONDS": 0.2,
    "FAULTS": ["timeout", "reset_peer", "pause", "broker's pause"],
    "OFFLINE_SECONDS": [],
    "RETAINED_EVENTS": 7,
    "STEP_SECONDS": 0.25,
    "PAUSE_SECONDS": 0.013,
    "STEPS_PER_RUN": 3,
    "SEARCH_SECONDS": 1.0,
    "MAX_EVENTS_PER_SECOND": 5_000.0,
    "SOCKETS": 7,
    "SIZES": [7, 31, 50],
    "ROUNDS": 1,
    "BACKEND_USERS": 3,
    "BACKEND_RUNS": 1,
    "SCENARIOS": ["thinking", "retry"],
    "RECORDINGS": ["good"],
}


@pytest.fixture(scope="module")
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    execute_with(ODD, folder, selected(request))
    return folder


@pytest.mark.parametrize("name", SELECTED_NAMES)
def test_notebook_holds_at_odd_sizes(name: str, executed: Path) -> None:
    assert faults_of(executed / f"{name}.ipynb") == []
