"""Results are written so that they can be read and told again; the last full one lies in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers import peer
from benchmarks.results import Results, machine, read, results, target_table, throughput_table, write
from benchmarks.series import Key, Series
from benchmarks.targets import TARGETS
from tests.tree import ROOT

LAST = ROOT / "benchmarks" / "results.json"


def made(**missing: str) -> Results:
    series = Series()
    for stack, rate in (("bridgekit native", 300_000.0), ("Starlette by hand", 100_000.0)):
        series.add(Key("events/s", stack, "burst"), rate, rate)
        series.add(Key("CPU µs/event", stack, "burst"), 1e6 / rate, 1e6 / rate)
        series.add(Key("client busy", stack, "burst"), 0.5, 0.5)
    peers = [peer("bridgekit native"), peer("Starlette by hand")]
    return results("quick", series, peers, missing=missing, minutes=1.0, where=machine())


def test_results_can_be_read_again(tmp_path: Path) -> None:
    found = made()
    write(found, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == found
    assert found.series[Key("events/s", "Starlette by hand", "burst")] == [100_000.0] * 2


def test_target_that_is_not_met_is_told_plainly() -> None:
    told = target_table(made())
    assert "events/s, bridgekit native, burst / Starlette by hand" in told
    assert "NOT MET" in told
    assert told.splitlines()[-1].endswith("≥ 4 wanted")


def test_every_target_is_told() -> None:
    told = target_table(made()).splitlines()
    assert len(told[2 : told.index("")]) == len(TARGETS)


def test_stack_that_is_missing_is_told() -> None:
    told = throughput_table(made(picows="not installed: picows"))
    assert "not installed: picows" in told


def test_versions_and_machine_are_told() -> None:
    found = made()
    assert found.versions["uvicorn"]
    assert found.machine["Python"]
    assert found.machine["processors"]


def test_last_full_result_is_whole() -> None:
    found = read(LAST)
    assert found.plan == "full"
    assert {"bridgekit", "picows", "uvicorn", "websockets", "python-socketio", "channels"} <= found.versions.keys()
    assert found.machine.keys() == machine().keys()
    assert len(found.targets) == len(TARGETS)
    assert not [why for why in found.missing.values() if why.startswith("WrongAnswer")]


@pytest.mark.parametrize("name", ["throughput", "latency", "growth", "memory", "stall"])
def test_figures_of_it_are_there(name: str) -> None:
    assert (ROOT / "docs" / "bench" / f"{name}.png").stat().st_size > 10_000
