"""When a load counts as carried, and when its books close."""

from __future__ import annotations

import pytest

from tests.verify.capacity.loads import PLAN, step


def test_load_of_which_all_came_in_time_is_carried() -> None:
    assert step(1_000).carried


@pytest.mark.parametrize(("late", "carried"), [(3, True), (10, False), (11, False)])
def test_lower_end_of_the_interval_decides_and_not_the_share(late: int, carried: bool) -> None:
    """10 late of 1,000 are 99 % in time, and the interval goes down to 98.2 %."""
    assert step(1_000, late=late).carried is carried


def test_few_events_are_not_enough_to_say_so() -> None:
    assert not step(300).carried


def test_load_that_falls_behind_is_not_carried_though_all_came_in_time() -> None:
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
def test_books_do_not_close_where_anything_is_unaccounted_for(wrong: dict[str, int]) -> None:
    assert step(1_000).closes
    assert not step(1_000, **wrong).closes


def test_lost_event_closes_the_books_if_both_sides_know_of_it() -> None:
    assert step(1_000, delivered=999, lost=1, taken=999, refused=1).closes


def test_runs_at_once_are_how_many_begin_while_one_lasts() -> None:
    assert step(1_000).runs_at_once == pytest.approx(1_000 / PLAN.events * PLAN.run_seconds)


def test_event_keeps_a_process_busy_for_longer_where_others_have_the_processor() -> None:
    alone, held_up = step(4_000, us=100.0), step(4_000, us=100.0, kept_waiting=0.4)
    assert (alone.service_us, held_up.service_us) == pytest.approx((100.0, 200.0))
    assert (alone.wanted, held_up.wanted) == pytest.approx((0.4, 0.8))
    assert (alone.held_up, held_up.held_up) == (False, True)
