"""What was measured, value by value, and what can be said of it: medians, spreads, ratios within rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from statistics import median
from typing import NamedTuple

__all__ = ["Series", "SeriesKey", "quantile"]


class SeriesKey(NamedTuple):
    """What was measured, of which stack, and under which circumstances."""

    measure: str
    stack: str
    kind: str = ""

    def __str__(self) -> str:
        return ", ".join(part for part in (self.measure, self.stack, self.kind) if part)


class Series:
    """Values by key, one a round, in the order of the rounds."""

    def __init__(self) -> None:
        self._values: dict[SeriesKey, list[float]] = {}

    def add(self, key: SeriesKey, *values: float) -> None:
        self._values.setdefault(key, []).extend(values)

    def __getitem__(self, key: SeriesKey) -> Sequence[float]:
        """What was measured; nothing where nothing was."""
        return self._values.get(key, ())

    def __iter__(self) -> Iterator[SeriesKey]:
        return iter(self._values)

    def median(self, key: SeriesKey) -> float | None:
        """None where nothing was measured."""
        return median(self[key]) if self[key] else None

    def ratio(self, of: SeriesKey, over: SeriesKey) -> float | None:
        """The median of the ratios within each round, so that a slow minute of the machine weighs on both alike."""
        ratios = [
            above / below
            for above, below in zip_longest(self[of], self[over])
            if above is not None and below is not None
        ]
        return median(ratios) if ratios else None


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
