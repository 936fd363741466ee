"""Medians, quantiles, and ratios within rounds."""

from __future__ import annotations

import pytest

from benchmarks.measured_values import Series, SeriesKey, quantile
from benchmarks.measures.latency import latencies

A, B = SeriesKey("events/s", "a"), SeriesKey("events/s", "b")


def series(**values: list[float]) -> Series:
    made = Series()
    for stack, each in values.items():
        made.add(SeriesKey("events/s", stack), *each)
    return made


def test_ratio_is_taken_within_rounds() -> None:
    # In the second round, the machine was ten times slower for both.
    assert series(a=[200, 20, 210], b=[100, 10, 100]).ratio(A, B) == 2.0


def test_round_with_only_one_value_is_ignored() -> None:
    assert series(a=[200, 20], b=[100]).ratio(A, B) == 2.0


def test_ratio_and_median_without_values_are_none() -> None:
    assert series(a=[1.0]).ratio(A, B) is None
    assert series().median(A) is None


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (0.999, 100), (1.0, 100)])
def test_quantile_is_one_of_the_values(share: float, value: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == value


def test_latency_is_from_an_event_to_its_own_arrival() -> None:
    emissions = [(0, 100, 1), (1, 200, 1), (0, 300, 1), (1, 400, 1)]
    assert latencies(emissions, [(0, [110, 350]), (1, [205]), (0, [120, 301])]) == [10, 50, 5, 20, 1]
