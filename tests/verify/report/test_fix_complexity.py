"""The finding about the audit's single line: its verdict and its numbers follow from the measurements."""

from __future__ import annotations

import pytest

from bridgekit_verify.measure.drops import DropCount
from bridgekit_verify.repairs import LineChange
from bridgekit_verify.report.fix_complexity import NOT_REBUILT, complexity_claim
from bridgekit_verify.studies.drops import BEFORE, COMMITTED, FixDrops
from bridgekit_verify.studies.repair_combinations import RepairStudy
from bridgekit_verify.variants import FIXES


def count(delivered: int) -> DropCount:
    return DropCount(10, delivered, 10 - delivered, 0, 0, {}, frozenset())


def drops(fix_1: int) -> FixDrops:
    steps = {step: {"a": count(fix_1 if step == "fix 1" else 0), "b": count(0)} for step in (BEFORE, *FIXES)}
    if fix_1 == 10:
        steps["fix 1"]["b"] = count(10)
    return FixDrops({COMMITTED: steps}, {"documented": ["a", "b"]})


def repairs(*needed: str) -> RepairStudy:
    names = ("x", "y")
    subsets = {
        frozenset(chosen): {"a": count(10 if set(chosen) >= set(needed) else 0)}
        for chosen in ((), ("x",), ("y",), names)
    }
    return RepairStudy(subsets, {}, {"x": LineChange(3, 1), "y": LineChange(20, 10)}, {"documented": ["a"]})


@pytest.mark.parametrize(
    ("delivered", "verdict", "answer"),
    [
        (0, "does not hold", "Fix 1 delivers 0 of 20 events with 2 kinds of thread id."),
        (4, "does not hold", "Fix 1 delivers 4 of 20 events with 2 kinds of thread id."),
        (10, "holds", "Fix 1 delivers 20 of 20 events with 2 kinds of thread id."),
    ],
)
def test_single_line_is_enough_only_if_it_delivers_everything(delivered: int, verdict: str, answer: str) -> None:
    finding = complexity_claim(drops(delivered), repairs("x", "y"))
    assert finding.verdict == verdict
    assert answer in finding.answer
    assert finding.evidence[-1] == NOT_REBUILT


@pytest.mark.parametrize(
    ("needed", "size"),
    [
        (
            ("x", "y"),
            "needs 2 repairs. Together, the needed repairs remove 23 lines from the rebuilt chain and add 11.",
        ),
        (
            ("x",),
            "needs 1 repair. Together, the needed repairs remove 3 lines from the rebuilt chain and add 1.",
        ),
    ],
)
def test_size_is_that_of_the_needed_repairs(needed: tuple[str, ...], size: str) -> None:
    assert size in complexity_claim(drops(0), repairs(*needed)).answer
