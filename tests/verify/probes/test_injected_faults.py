"""Faults injected from outside the package: the audit command and the first verification step name the right link."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from bridgekit.__main__ import main
from tests.mission_critical import test_websocket_agent_events_suite as suite
from tests.tree import ROOT
from tests.verify.probes.injected_faults import FAULTS, Fault, inject

pytestmark = pytest.mark.slow

NAMES = [fault.name for fault in FAULTS]


def test_faults_of_every_link_are_injected() -> None:
    assert len(set(NAMES)) == len(FAULTS) >= 45
    assert {fault.link for fault in FAULTS} == set(range(1, 11))


@pytest.mark.short_form(8)
@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_audit_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_audit_names(fault.link, capsys)


@pytest.mark.short_form(2)
@pytest.mark.parametrize("fault", FAULTS, ids=NAMES)
def test_first_verification_step_names_only_the_faulty_link(
    fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inject(fault, monkeypatch)
    assert_first_step_names(fault, capsys)


def assert_audit_names(link: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json", "--threads", "1"]) == 1
    rows = json.loads(capsys.readouterr().out)["probes"]
    assert {row["link"]: row["evidence"] for row in rows if row["answer"] != "holds"}.keys() == {link}, rows


def assert_first_step_names(fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--variant", "sound", "--family", fault.family]) == 1
    out = capsys.readouterr().out
    named = re.findall(r"a fault of link (\d+)(?:, and of links? ([\d, ]+))?:", out)
    assert {int(link) for links in named for each in links for link in each.split(", ") if link} == {fault.link}, out


IN_A_PROCESS = """
import sys
from pytest import MonkeyPatch
from bridgekit.__main__ import main
from tests.verify.probes.injected_faults import FAULTS, inject
inject(next(fault for fault in FAULTS if fault.name == sys.argv[1]), MonkeyPatch())
sys.exit(main(["audit"]))
"""


def test_audit_of_a_faulty_chain_fits_on_one_screen_and_exits_with_1() -> None:
    """As a user would see it: in a process of its own, as text."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, "to all threads of a user"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "10  Hub and sockets               does not hold" in lines
    assert lines[-1] == "9 of 10 links hold"
    assert len(lines) <= 48
