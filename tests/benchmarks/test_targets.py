"""The table of targets is complete, and shows which targets are not met."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.peers import PEERS, peer
from benchmarks.plans import FULL, QUICK, Plan
from benchmarks.targets import TARGETS, Met, Target, judge_targets

RATES = Target(
    what="speed", of=SeriesKey("events/s", "ours", "burst"), over=SeriesKey("events/s", "theirs", "burst"), at_least=4.0
)
COST = Target(what="cost", of=SeriesKey("own CPU µs", "ours"), at_most=6.0)


def rates(ours: float, theirs: float) -> Series:
    series = Series()
    series.add(RATES.of, ours)
    series.add(SeriesKey("events/s", "theirs", "burst"), theirs)
    return series


@pytest.mark.parametrize(("ours", "met"), [(401.0, Met.YES), (400.0, Met.YES), (399.0, Met.NO)])
def test_ratio_below_its_target_is_not_met(ours: float, met: Met) -> None:
    [each] = judge_targets(rates(ours, 100.0), [RATES])
    assert each.value == ours / 100
    assert each.met == met


@pytest.mark.parametrize(("cost", "met"), [(5.0, Met.YES), (6.0, Met.YES), (6.1, Met.NO)])
def test_cost_above_its_target_is_not_met(cost: float, met: Met) -> None:
    series = Series()
    series.add(COST.of, cost)
    assert [each.met for each in judge_targets(series, [COST])] == [met]


def test_target_without_a_value_is_unknown() -> None:
    assert [each.met for each in judge_targets(Series(), [RATES, COST])] == [Met.UNKNOWN] * 2


def test_table_has_the_expected_number_of_targets() -> None:
    assert Counter(each.what for each in TARGETS) == {
        "bridgekit native / Starlette by hand": 4,
        "bridgekit native / picows": 3,
        "bridgekit native / websockets broadcast": 4,
        "bridgekit ASGI / Starlette by hand": 4,
        "bridgekit, Redis / python-socketio, Redis": 4,
        "bridgekit, Redis / Channels, Redis": 4,
        "emission to outbox / a whole burst of Starlette's": 1,
        "checking an event / json.loads of its frame": 1,
        "growth": 3,
        "memory": 5,
        "the suite": 4,
    }


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.of))
def test_target_has_exactly_one_bound(target: Target) -> None:
    assert (target.at_least is None) != (target.at_most is None)


@pytest.mark.parametrize("plan", [QUICK, FULL], ids=lambda plan: plan.name)
def test_plan_measures_every_stack_that_a_target_names(plan: Plan) -> None:
    names = {each.name for each in PEERS}
    named = {key.stack for each in TARGETS for key in (each.of, each.over) if key and key.stack in names}
    assert named <= set(plan.stacks)


def test_only_suite_targets_are_measured_by_hand() -> None:
    assert {each.what for each in TARGETS if each.how_to_measure} == {"the suite"}


def test_unknown_stack_raises_and_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match="raw TCP"):
        peer("carrier pigeon")


def test_names_of_stacks_are_unique() -> None:
    assert len({each.name for each in PEERS}) == len(PEERS)
