"""Faults of real backends, injected from outside the package: see `test_injected_faults`."""

from __future__ import annotations

import pytest

from tests.verify.probes.backend_faults import BACKEND_FAULTS
from tests.verify.probes.further_faults import FURTHER_FAULTS
from tests.verify.probes.injected_faults import FAULTS, Fault, inject
from tests.verify.probes.test_injected_faults import assert_audit_names, assert_first_step_names

pytestmark = pytest.mark.slow

NAMES = [fault.name for fault in BACKEND_FAULTS]
NOT_AWAITED = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
"""For the fault that does not await the answers of the next link."""
ROWS = [
    pytest.param(fault, id=fault.name, marks=NOT_AWAITED if fault.name == "last event of a buffer lost" else ())
    for fault in BACKEND_FAULTS
]


def test_faults_differ_from_those_of_the_other_tables() -> None:
    every = (*NAMES, *(fault.name for fault in (*FAULTS, *FURTHER_FAULTS)))
    assert len(set(every)) == len(every)
    assert {fault.link for fault in BACKEND_FAULTS} == set(range(2, 11))


@pytest.mark.short_form(5)
@pytest.mark.parametrize("fault", ROWS)
def test_audit_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_audit_names(fault.link, capsys)


@pytest.mark.acceptance
@pytest.mark.parametrize("fault", ROWS)
def test_first_verification_step_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_first_step_names(fault, capsys)
