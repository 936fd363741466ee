"""IntervalSet. The CoalescingQueue is tested with the outbox."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.transport.coalescing import IntervalSet


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), unique=True), st.lists(st.integers(1, 31)))
def test_pop_below_returns_each_number_once_in_merged_ascending_intervals(
    numbers: list[int], limits: list[int]
) -> None:
    intervals, model = IntervalSet(), set(numbers)
    for number in numbers:
        intervals.add(number)
    assert len(intervals) == sum(number - 1 not in model for number in model)
    for limit in [limit for limit in limits if limit not in numbers]:
        taken = intervals.pop_below(limit)
        below = {number for number in model if number < limit}
        assert [number for first, last in taken for number in range(first, last + 1)] == sorted(below)
        assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(taken))
        model -= below
