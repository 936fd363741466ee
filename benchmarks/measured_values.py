"""Measured values by key and round, and their statistics: medians, quantiles, and ratios within rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from statistics import median
from typing import NamedTuple

__all__ = ["Series", "SeriesKey", "quantile"]


class SeriesKey(NamedTuple):
    """Key of a series: the measure, the stack, and the kind of load or agents."""

    measure: str
    stack: str
    kind: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.measure, self.stack, self.kind) if part)


class Series:
    """Values by key, in the order in which they were added. Most measures have one value for each round."""

    def __init__(self) -> None:
        self._values: dict[SeriesKey, list[float]] = {}

    def add(self, key: SeriesKey, *values: float) -> None:
        self._values.setdefault(key, []).extend(values)

    def __getitem__(self, key: SeriesKey) -> Sequence[float]:
        """Return the values of a key, or an empty sequence."""
        return self._values.get(key, ())

    def __iter__(self) -> Iterator[SeriesKey]:
        return iter(self._values)

    def median(self, key: SeriesKey) -> float | None:
        """Return the median of the values, or None without values."""
        return median(self[key]) if self[key] else None

    def ratio(self, of: SeriesKey, over: SeriesKey) -> float | None:
        """Return the median of the ratios per round, or None without ratios.

        Both values of a ratio come from one round, so a slow phase of the machine affects both.
        """
        ratios = [
            above / below
            for above, below in zip_longest(self[of], self[over])
            if above is not None and below is not None
        ]
        return median(ratios) if ratios else None


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile for this share of the values, without interpolation."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
