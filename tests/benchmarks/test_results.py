"""Results can be written, read and shown as tables; the repository contains the last full result."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.missed_target_reasons import Explanation, explanations
from benchmarks.page import page
from benchmarks.peers import peer
from benchmarks.results import (
    Results,
    TargetResult,
    found_ratio,
    machine,
    read,
    results,
    target_table,
    throughput_table,
    write,
)
from benchmarks.targets import TARGETS, Met
from tests.tree import ROOT

PAGE = ROOT / "docs" / "results" / "bench" / "README.md"
LAST = ROOT / "benchmarks" / "results.json"
MISSED = "### Why targets are missed"
EXPLAINED = {name: each for each in explanations() for name in each.targets}


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


def judged(met: Met, *measured: str) -> Results:
    """Return results in which these targets have this outcome, and there are no others."""
    targets = [TargetResult("a target", name, "≤ 0.5", 0.6 if met == Met.NO else 0.4, met) for name in measured]
    return msgspec.structs.replace(made(), targets=targets)


@pytest.mark.parametrize("name", EXPLAINED)
def test_missed_target_is_shown_with_its_reason_and_what_was_tried(name: str) -> None:
    shown = page(judged(Met.NO, name))
    assert MISSED in shown
    assert f"#### {name}: 0.6, wanted ≤ 0.5\n" in shown, "must not name the other targets of the explanation"
    each = EXPLAINED[name]
    assert each.reason.strip() in shown
    assert each.profile.strip() in shown
    assert all(tried.change in shown for tried in each.tries)


@pytest.mark.parametrize("met", [Met.YES, Met.UNKNOWN])
def test_no_reason_is_shown_for_a_target_that_is_not_missed(met: Met) -> None:
    assert MISSED not in page(judged(met, *EXPLAINED))


def test_missed_target_without_a_reason_is_named() -> None:
    assert "#### latency of pigeons\n\nNo reason is recorded" in page(judged(Met.NO, "latency of pigeons"))


@pytest.mark.parametrize("each", explanations(), ids=lambda each: each.targets[0])
def test_explanation_has_a_reason_a_profile_and_three_measured_tries(each: Explanation) -> None:
    assert each.reason.strip()
    assert re.search(r"\d", each.profile), "a profile has numbers"
    assert len(each.tries) >= 3
    assert all(re.search(r"\d", tried.measured) for tried in each.tries)


def test_explanations_name_existing_targets_once() -> None:
    named = [name for each in explanations() for name in each.targets]
    assert len(named) == len(set(named))
    assert set(named) <= {each.measured for each in made().targets}


def test_every_missed_target_of_the_committed_result_has_a_reason() -> None:
    missed = {each.measured for each in read(LAST).targets if each.met == Met.NO}
    assert missed <= EXPLAINED.keys(), (
        "add a reason, a profile and three tries to benchmarks/missed_target_reasons.toml"
    )


@pytest.mark.parametrize(
    ("ratio", "bound", "met", "shown"),
    [
        (1.0545, "≤ 1.05", Met.NO, "1.054"),
        (1.0496, "≤ 1.05", Met.YES, "1.05"),
        (0.50004, "≤ 0.5", Met.NO, "0.50004"),
        (3.9996, "≥ 4", Met.NO, "3.9996"),
        (0.894, "≤ 0.8", Met.NO, "0.894"),
    ],
)
def test_shown_ratio_does_not_contradict_its_verdict(ratio: float, bound: str, met: Met, shown: str) -> None:
    assert found_ratio(TargetResult("memory", "memory", bound, ratio, met)) == shown
