"""Sizing from demand to workers, with values that can be calculated by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridgekit_verify.capacity.queueing import ONE_SERVICE
from bridgekit_verify.capacity.sizing import Costs, Demand, costs_of, size, sizing_table
from tests.verify.capacity.loads import capacity, carried, failed, memory_study, shared

COSTS = Costs(
    edge="ASGI",
    event_us=100.0,
    shared_us=100.0,
    base_kib=10_240.0,
    socket_kib=20.0,
    thread_kib=5.0,
    run_kib=10.0,
    run_events=5,
)
DEMAND = Demand(users_online=3_600, runs_per_user_hour=1, events_per_run=100, run_seconds=10)


def test_load_follows_from_the_demand() -> None:
    assert DEMAND.runs_per_second == 1.0
    assert DEMAND.events_per_second == 100.0
    assert DEMAND.runs_at_once == 10.0
    assert replace(DEMAND, peak_factor=3).events_per_second == 300.0


def test_one_worker_with_the_memory_store_is_enough_below_two_thirds_of_a_core() -> None:
    sizing = size(replace(DEMAND, peak_factor=66), COSTS)
    assert (sizing.workers, sizing.shared) == (1, False)
    assert sizing.core_share == pytest.approx(0.66)
    # Sockets, logs with the 5.5 runs of 100 events of the last five peak minutes, and waiting runs.
    assert sizing.mib == pytest.approx((10_240 + 3_600 * (20 + 5.0 * 5.5 * 20) + 660 * 10) / 1_024)


def test_shared_store_raises_the_cost_so_more_than_two_workers_are_needed() -> None:
    """Just above one worker's limit: with a broker, an event costs twice as much, so two workers do not suffice."""
    sizing = size(replace(DEMAND, peak_factor=68), COSTS)
    assert sizing.shared
    assert sizing.workers == 3
    assert sizing.core_share == pytest.approx(68 * 100 * 200e-6 / 3)


def test_lost_workers_are_added_and_the_remaining_ones_still_fit() -> None:
    for peak_factor in (1, 50, 100, 400):
        sizing = size(replace(DEMAND, peak_factor=peak_factor, workers_lost=2), COSTS)
        assert sizing.fits
        assert sizing.workers >= 3
        one_less = sizing.core_share_lost * (sizing.workers - 2) / max(sizing.workers - 3, 1e-9)
        assert one_less > ONE_SERVICE, "one worker fewer would do"


def test_costs_are_the_measured_ones_without_edges_that_carried_nothing() -> None:
    costs = costs_of(capacity([failed(1_000)], [carried(1_000, us=60), failed(9_000)]), memory_study(), shared(70.0))
    assert [each.edge for each in costs] == ["native"]
    assert costs[0].event_us == pytest.approx(60.0)
    assert costs[0].shared_us == pytest.approx(70.0)
    assert (costs[0].socket_kib, costs[0].thread_kib, costs[0].run_kib) == pytest.approx((15.0, 5.0, 10.0))


def test_table_has_one_row_per_edge() -> None:
    table = sizing_table(DEMAND, [COSTS, replace(COSTS, edge="native")])
    assert list(table["edge"]) == ["ASGI", "native"]
    assert list(table["workers"]) == [1, 1]


@pytest.mark.parametrize(("measured", "extra"), [(80.0, 80.0), (-20.0, 0.0)])
def test_extra_cost_of_a_shared_store_is_never_negative(measured: float, extra: float) -> None:
    assert shared(measured).extra_us == pytest.approx(extra)
