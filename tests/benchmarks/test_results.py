"""Results can be written, read and shown as tables; the repository contains the last full result."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.page import page
from benchmarks.peers import peer
from benchmarks.results import Results, machine, read, results, target_table, throughput_table, write
from benchmarks.series import Series, SeriesKey
from benchmarks.targets import TARGETS
from tests.tree import ROOT

PAGE = ROOT / "docs" / "results" / "bench" / "README.md"
LAST = ROOT / "benchmarks" / "results.json"


def made(*, busy: float = 0.5, native_rate: float = 300_000.0, **missing: str) -> Results:
    series = Series()
    for stack, rate in (("bridgekit native", native_rate), ("Starlette by hand", 100_000.0)):
        series.add(SeriesKey("events/s", stack, "burst"), rate, rate)
        if stack == "bridgekit native":
            series.add(SeriesKey("events/s", stack, "yielding"), rate / 2)
            series.add(SeriesKey("CPU µs/event", stack, "yielding"), 2e6 / rate)
        series.add(SeriesKey("CPU µs/event", stack, "burst"), 1e6 / rate, 1e6 / rate)
        series.add(SeriesKey("client busy", stack, "burst"), busy, busy)
    peers = [peer("bridgekit native"), peer("Starlette by hand")]
    return results("quick", series, peers, missing=missing, minutes=1.0, where=machine())


def test_results_can_be_read_again(tmp_path: Path) -> None:
    found = made()
    write(found, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == found
    assert found.series[SeriesKey("events/s", "Starlette by hand", "burst")] == [100_000.0] * 2


def test_target_that_is_not_met_is_listed_with_its_bound() -> None:
    listed = target_table(made(native_rate=101_000.0))
    assert "CPU µs/event, bridgekit native, burst / Starlette by hand" in listed
    assert "NOT MET" in listed
    assert listed.splitlines()[-1].endswith("≤ 0.6 wanted")
    assert "1 NOT MET" not in target_table(made(native_rate=300_000.0))


def test_table_lists_every_target() -> None:
    table = target_table(made()).splitlines()
    assert len(table[2 : table.index("")]) == len(TARGETS)


def test_missing_stack_is_listed_with_its_reason() -> None:
    table = throughput_table(made(picows="not installed: picows"))
    assert "not installed: picows" in table


def test_unmeasured_kind_is_shown_as_a_dash() -> None:
    rows = {line.split("  ")[0]: line.split() for line in throughput_table(made()).splitlines()}
    assert rows["Starlette by hand"][-2:] == ["–", "–"]
    assert "150,000" in rows["bridgekit native"]


def test_rate_limited_by_the_client_is_marked() -> None:
    assert "client!" in throughput_table(made(busy=0.95))
    assert "client!" not in throughput_table(made(busy=0.85))


def test_results_contain_versions_and_machine() -> None:
    found = made()
    assert found.versions["websockets"], "of bridgekit itself: the other stacks have an environment of their own"
    assert found.machine["Python"]
    assert found.machine["processors"]


def test_committed_result_is_complete() -> None:
    found = read(LAST)
    assert found.plan == "full"
    assert {
        "bridgekit-verify",
        "picows",
        "uvicorn",
        "websockets",
        "python-socketio",
        "channels",
    } <= found.versions.keys()
    assert found.machine.keys() == machine().keys()
    assert len(found.targets) == len(TARGETS)
    assert not [why for why in found.missing.values() if why.startswith("WrongAnswer")]


def test_committed_page_matches_the_committed_result() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(read(LAST))


@pytest.mark.parametrize("name", ["throughput", "latency", "growth", "memory", "stall"])
def test_committed_figures_exist(name: str) -> None:
    assert (ROOT / "docs" / "results" / "bench" / f"{name}.png").stat().st_size > 10_000
