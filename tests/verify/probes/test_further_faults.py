"""More faults injected from outside the package: see `test_injected_faults`. A file of its own runs beside that one."""

from __future__ import annotations

import pytest

from tests.verify.probes.further_faults import FURTHER_FAULTS
from tests.verify.probes.injected_faults import FAULTS, Fault, inject
from tests.verify.probes.test_injected_faults import assert_audit_names, assert_first_step_names

pytestmark = pytest.mark.slow

NAMES = [fault.name for fault in FURTHER_FAULTS]


def test_faults_of_every_link_but_startup_are_injected() -> None:
    assert len({*NAMES, *(fault.name for fault in FAULTS)}) == len(FURTHER_FAULTS) + len(FAULTS)
    assert {fault.link for fault in FURTHER_FAULTS} == set(range(2, 11))


@pytest.mark.short_form(5)
@pytest.mark.parametrize("fault", FURTHER_FAULTS, ids=NAMES)
def test_audit_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_audit_names(fault.link, capsys)


@pytest.mark.short_form(2)
@pytest.mark.parametrize("fault", FURTHER_FAULTS, ids=NAMES)
def test_first_verification_step_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_first_step_names(fault, capsys)
