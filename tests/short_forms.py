"""The short form of a long test: `make test` runs a few of its parameter sets, and `make acceptance` the others.

`@pytest.mark.short_form(4)` selects four parameter sets at equal distances, so that each of several crossed parameters
occurs with different values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

__all__ = ["mark_long_forms", "spread"]


def mark_long_forms(items: Sequence[pytest.Item]) -> None:
    """Mark the parameter sets that `make test` leaves out with `acceptance`."""
    by_function: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("short_form") is not None:
            by_function[item.nodeid.partition("[")[0]].append(item)
    for calls in by_function.values():
        marker = calls[0].get_closest_marker("short_form")
        assert marker is not None
        [number] = marker.args
        kept = spread(number, len(calls))
        for index, call in enumerate(calls):
            if index not in kept:
                call.add_marker("acceptance")


def spread(number: int, count: int) -> set[int]:
    """Return `number` of the indices from 0 to `count` - 1, at equal distances, or all of them if there are fewer."""
    return set(range(count)) if number >= count else {index * count // number for index in range(number)}
