"""The search for what is carried: against processes whose capacity is known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit_verify.capacity.edges import ASGI
from bridgekit_verify.capacity.ladder import FINEST, Ladder, next_load, round_load
from bridgekit_verify.capacity.step import Step
from tests.verify.capacity.loads import carried, failed, step


def climb(capacity: float, *, least: float = 500.0, most: float = 100_000.0, us: float = 60.0) -> list[Step]:
    """What is tried of a process that carries so much, and not more."""
    steps = [carried(least, us=us) if least <= capacity else failed(least, us=us)]
    while (load := next_load(steps, least=least, most=most)) is not None:
        steps.append(carried(load, us=us) if load <= capacity else failed(load, us=us))
        assert len(steps) < 30, "it does not end"
    return steps


@settings(max_examples=30, deadline=None)
@given(st.floats(1_000, 80_000))
def test_known_capacity_is_found_as_closely_as_promised(capacity: float) -> None:
    carries = Ladder(ASGI, climb(capacity)).carries
    assert carries is not None
    assert carries <= capacity <= carries * FINEST * 1.05


def test_second_load_goes_by_what_an_event_cost_and_the_next_is_twice_that() -> None:
    loads = [each.events_per_second for each in climb(40_000, us=80.0)][:4]
    assert loads == [500.0, round_load(0.8 * 1e6 / 80.0), 20_000.0, 40_000.0]


def test_process_that_carries_everything_is_said_to_carry_at_least_the_most() -> None:
    ladder = Ladder(ASGI, climb(1e9, most=8_000))
    assert ladder.carries == 8_000
    assert ladder.at_least == "no load was found that it does not carry"


def test_process_that_does_not_carry_the_least_load_carries_nothing_that_is_known() -> None:
    ladder = Ladder(ASGI, climb(100))
    assert (ladder.carries, ladder.best) == (None, None)


def test_load_that_failed_while_others_had_the_processors_is_tried_once_more() -> None:
    steps = [carried(500), carried(4_000), failed(8_000, share=0.4, kept_waiting=0.5)]
    assert next_load(steps, least=500, most=50_000) == 8_000
    again = [*steps, failed(8_000, share=0.4, kept_waiting=0.5)]
    assert next_load(again, least=500, most=50_000) == 5_700
    assert next_load([*steps, carried(8_000)], least=500, most=50_000) == 16_000


def test_failed_load_of_a_process_that_had_its_core_is_not_tried_again() -> None:
    assert next_load([carried(500), failed(8_000)], least=500, most=50_000) == 2_000


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ({"share": 0.95}, ""),
        ({"share": 0.5, "kept_waiting": 0.5}, "other programs had the processors, too"),
    ],
)
def test_what_limits_is_said(why: dict[str, float], words: str) -> None:
    assert Ladder(ASGI, [carried(500), failed(8_000, **why)]).at_least == words


def test_reader_that_cannot_keep_up_is_said_to_be_the_limit() -> None:
    slow = step(8_000, late=800, reader_waiting=0.9)
    assert Ladder(ASGI, [carried(500), slow]).at_least == "the reader could not keep up"


def test_nothing_above_a_load_that_failed_counts_as_carried() -> None:
    assert Ladder(ASGI, [carried(500), failed(1_000), carried(2_000)]).carries == 500


def test_one_step_a_load_is_told_and_the_better_one() -> None:
    again = carried(1_000)
    ladder = Ladder(ASGI, [carried(2_000), failed(1_000), again])
    assert [each.events_per_second for each in ladder.climbed] == [1_000, 2_000]
    assert ladder.climbed[0] is again


def test_core_does_as_many_events_as_fit_into_a_second_of_it() -> None:
    assert Ladder(ASGI, [carried(500, us=200), failed(30_000, us=50)]).core_does == pytest.approx(20_000)
