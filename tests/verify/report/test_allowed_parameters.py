"""Every parameter of a notebook has allowed values, and any other value gets a message that says what is allowed."""

from __future__ import annotations

import math
from typing import Any

import nbformat
import pytest

from bridgekit_verify.errors import InvalidParameter
from bridgekit_verify.report.allowed_parameters import PARAMETERS, check_parameters
from bridgekit_verify.report.parameters import read_parameters
from tests.notebooks.lint import tags_of
from tests.tree import NOTEBOOKS

ODD: list[Any] = [
    -1,
    10**9,
    None,
    True,
    1.5,
    math.nan,
    math.inf,
    "x",
    "",
    [],
    ["x"],
    [-1],
    [math.nan],
    [1, 1],
    [[]],
    10**5_000,
    [-(10**5_000)],
    {},
]
ACCEPTED: dict[str, list[Any]] = {
    "SEED": [-1, 10**9],
    "KIND": ["x", ""],
    **{name: [[], ["x"]] for name in ("FAULTS", "SCENARIOS", "RECORDINGS")},
    **{name: [[]] for name in ("OFFLINE_SECONDS", "LINKS")},
    "PAUSE_SECONDS": [],
    "FAULT_SECONDS": [1.5],
    "STEP_SECONDS": [1.5],
    "SEARCH_SECONDS": [1.5],
}
"""Which of the odd values a parameter may have. The studies check names."""


def parameters_of(name: str) -> dict[str, Any]:
    notebook: Any = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    [cell] = [each for each in notebook.cells if each.cell_type == "code" and "parameters" in tags_of(each)]
    return read_parameters(cell.source)


@pytest.mark.parametrize("name", sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
def test_the_parameters_of_a_notebook_are_allowed_and_none_is_without_a_rule(name: str) -> None:
    parameters = parameters_of(name)
    assert set(parameters) <= set(PARAMETERS)
    check_parameters(parameters)


@pytest.mark.parametrize("name", PARAMETERS)
def test_any_other_value_gets_a_message_that_names_the_parameter_and_what_is_allowed(name: str) -> None:
    for value in ODD:
        if any(value == each and type(value) is type(each) for each in ACCEPTED.get(name, [])):
            check_parameters({name: value})
            continue
        with pytest.raises(InvalidParameter) as refused:
            check_parameters({name: value})
        assert str(refused.value).startswith(f"{name} must be {PARAMETERS[name].text}, not ")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"THREADS": 200, "RUNS": 11}, "THREADS × RUNS must be at most 2,000 runs, not 2200"),
        ({"STEPS": 500, "PACE_SECONDS": 1}, "STEPS × PACE_SECONDS must be at most 30 seconds, not 500"),
        ({"THREADS": 3, "USERS_WITHOUT_SOCKET": 4}, "USERS_WITHOUT_SOCKET must be at most THREADS = 3, not 4"),
    ],
)
def test_parameters_that_do_not_fit_together_are_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        check_parameters(values)
    assert str(refused.value) == message


def test_other_variables_of_a_notebook_are_ignored() -> None:
    check_parameters({"THREADS": 3, "threads": -1, "drops": object()})
