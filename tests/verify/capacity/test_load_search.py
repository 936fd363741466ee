"""When a load counts as carried, when its counts add up, and the search with processes of known capacity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit_verify.capacity.load_search import ASGI, MIN_LOAD_RATIO, LoadSearch, StepResult, next_load, round_load
from tests.verify.capacity.loads import PLAN, carried, failed, step


def search_steps(
    capacity: float, *, min_load: float = 500.0, max_load: float = 100_000.0, us: float = 60.0
) -> list[StepResult]:
    """Return the steps that the search tries on a process with this capacity."""
    steps = [carried(min_load, us=us) if min_load <= capacity else failed(min_load, us=us)]
    while (load := next_load(steps, min_load=min_load, max_load=max_load)) is not None:
        steps.append(carried(load, us=us) if load <= capacity else failed(load, us=us))
        assert len(steps) < 30, "it does not end"
    return steps


@settings(max_examples=30, deadline=None)
@given(st.floats(1_000, 80_000))
def test_known_capacity_is_found_within_the_stated_ratio(capacity: float) -> None:
    carries = LoadSearch(ASGI, search_steps(capacity)).carries
    assert carries is not None
    assert carries <= capacity <= carries * MIN_LOAD_RATIO * 1.05


def test_second_load_follows_from_the_cost_and_the_third_doubles_it() -> None:
    loads = [each.events_per_second for each in search_steps(40_000, us=80.0)][:4]
    assert loads == [500.0, round_load(0.8 * 1e6 / 80.0), 20_000.0, 40_000.0]


def test_capacity_above_the_highest_load_is_a_lower_bound() -> None:
    search = LoadSearch(ASGI, search_steps(1e9, max_load=8_000))
    assert search.carries == 8_000
    assert search.underestimate_reason == "it carried every load that was tried"


def test_capacity_below_the_lowest_load_is_unknown() -> None:
    search = LoadSearch(ASGI, search_steps(100))
    assert (search.carries, search.best) == (None, None)


def test_load_that_failed_while_waiting_for_cpu_is_tried_again() -> None:
    steps = [carried(500), carried(4_000), failed(8_000, share=0.4, run_queue_wait=0.5)]
    assert next_load(steps, min_load=500, max_load=50_000) == 8_000
    again = [*steps, failed(8_000, share=0.4, run_queue_wait=0.5)]
    assert next_load(again, min_load=500, max_load=50_000) == 5_700
    assert next_load([*steps, carried(8_000)], min_load=500, max_load=50_000) == 16_000


def test_load_that_failed_with_a_full_core_is_not_tried_again() -> None:
    assert next_load([carried(500), failed(8_000)], min_load=500, max_load=50_000) == 2_000


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ({"share": 0.95}, ""),
        ({"share": 0.5, "run_queue_wait": 0.5}, "other programs also used the CPUs"),
    ],
)
def test_reason_names_the_bottleneck(why: dict[str, float], reason: str) -> None:
    assert LoadSearch(ASGI, [carried(500), failed(8_000, **why)]).underestimate_reason == reason


def test_saturated_client_is_named_as_the_bottleneck() -> None:
    slow = step(8_000, late=800, reader_waiting=0.9)
    assert LoadSearch(ASGI, [carried(500), slow]).underestimate_reason == "the client that reads was the bottleneck"


def test_nothing_above_a_load_that_failed_counts_as_carried() -> None:
    assert LoadSearch(ASGI, [carried(500), failed(1_000), carried(2_000)]).carries == 500


def test_better_step_of_a_repeated_load_is_listed() -> None:
    again = carried(1_000)
    search = LoadSearch(ASGI, [carried(2_000), failed(1_000), again])
    assert [each.events_per_second for each in search.tried] == [1_000, 2_000]
    assert search.tried[0] is again


def test_core_capacity_is_events_per_second_of_cpu_time() -> None:
    assert LoadSearch(ASGI, [carried(500, us=200), failed(30_000, us=50)]).core_capacity == pytest.approx(20_000)


def test_load_with_all_events_on_time_is_carried() -> None:
    assert step(1_000).carried


@pytest.mark.parametrize(("late", "is_carried"), [(3, True), (10, False), (11, False)])
def test_lower_end_of_the_interval_decides_whether_a_load_is_carried(late: int, is_carried: bool) -> None:
    """With 10 late events of 1,000, 99 % are on time, and the interval extends down to 98.2 %."""
    assert step(1_000, late=late).carried is is_carried


def test_load_with_too_few_events_is_not_carried() -> None:
    assert not step(300).carried


def test_load_that_falls_behind_is_not_carried() -> None:
    assert not step(1_000, late_last=0.3).carried
    assert step(1_000, late_last=0.01).carried


@pytest.mark.parametrize(
    "wrong",
    [
        {"delivered": 999},
        {"misrouted": 1},
        {"extra_copies": 1},
        {"unexpected": 1},
        {"reordered": 1},
        {"failed": 1},
        {"taken": 999},
        {"expected": 999, "delivered": 999},
    ],
)
def test_step_with_unaccounted_events_is_detected(wrong: dict[str, int]) -> None:
    assert step(1_000).accounted_for
    assert not step(1_000, **wrong).accounted_for


def test_lost_event_is_accounted_for_if_server_and_client_agree() -> None:
    assert step(1_000, delivered=999, lost=1, taken=999, refused=1).accounted_for


def test_concurrent_runs_follow_littles_law() -> None:
    assert step(1_000).runs_at_once == pytest.approx(1_000 / PLAN.events * PLAN.run_seconds)


def test_service_time_is_longer_while_waiting_for_cpu() -> None:
    alone, waited_for_cpu = step(4_000, us=100.0), step(4_000, us=100.0, run_queue_wait=0.4)
    assert (alone.service_us, waited_for_cpu.service_us) == pytest.approx((100.0, 200.0))
    assert (alone.utilisation, waited_for_cpu.utilisation) == pytest.approx((0.4, 0.8))
    assert (alone.waited_for_cpu, waited_for_cpu.waited_for_cpu) == (False, True)
