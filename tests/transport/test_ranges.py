"""Sets of numbers, held as ranges."""

from __future__ import annotations

from itertools import pairwise

from bridgekit.transport.ranges import Ranges
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), unique=True), st.lists(st.integers(1, 31)))
def test_what_was_added_below_a_number_comes_out_once_in_order_and_joined(numbers: list[int], asked: list[int]) -> None:
    ranges, model = Ranges(), set(numbers)
    for number in numbers:
        ranges.add(number)
    assert len(ranges) == sum(number - 1 not in model for number in model)
    for limit in [limit for limit in asked if limit not in numbers]:
        taken = ranges.take_below(limit)
        below = {number for number in model if number < limit}
        assert [number for first, last in taken for number in range(first, last + 1)] == sorted(below)
        assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(taken))
        model -= below
