"""Tracks one numbering to find which positions are missing, repeated or late."""

from __future__ import annotations

import enum

__all__ = ["Numbering", "PositionStep"]

MAX_RANGES = 1_000
"""Limit on the ranges of missing positions that one numbering remembers. Further ranges are not reported."""


class PositionStep(enum.Enum):
    """The relation of a position to the positions that arrived before it."""

    NEXT = "next"
    SKIPS = "skips"
    """Positions before this one are missing so far."""
    LATE = "late"
    """The position was missing, and arrives after a later one."""
    REPEATED = "repeated"
    REPLAYED = "replayed"
    """The position arrives again after a reconnect, and does not count as a duplicate."""
    RECOVERED = "recovered"
    """The position was missing before a reconnect, and arrives after the reconnect."""


class Numbering:
    """The state of one numbering at one client."""

    __slots__ = ("_before_cut", "_connection", "_previous", "first", "first_is_known", "last", "missing")

    def __init__(self, expected: int | None, connection: int) -> None:
        self.first_is_known = expected is not None
        self.first = self.last = -1 if expected is None else expected - 1
        self.missing: list[tuple[int, int, int, bool]] = []
        """Missing ranges: first and last position, the index of the message after the range, and whether this message
        is the first after a reconnect."""
        self._connection = connection
        self._before_cut: int | None = None
        self._previous = self.last

    @property
    def complete(self) -> bool:
        """True if the first position is known and every position up to the last arrived."""
        return self.first_is_known and not self.missing

    def add(self, first: int, last: int, connection: int, index: int) -> PositionStep:
        """Record that the positions `first` to `last` arrived in the message `index`."""
        if connection == self._connection and first == self.last + 1:
            self.last = self._previous = last
            return PositionStep.NEXT
        cut = connection != self._connection
        if cut:
            self._connection, self._before_cut, self._previous = connection, self.last, first - 1
        if not self.first_is_known and self.last < 0:
            self.first, self.last = first, last
            return PositionStep.NEXT
        if first > self.last:
            step = PositionStep.NEXT if first == self.last + 1 else PositionStep.SKIPS
            if step is PositionStep.SKIPS and len(self.missing) < MAX_RANGES:
                self.missing.append((self.last + 1, first - 1, index, cut))
            self.last = self._previous = last
            return step
        return self._repeated(first, last)

    def _repeated(self, first: int, last: int) -> PositionStep:
        replays = self._before_cut is not None and self._previous < last <= self._before_cut
        found = self._fill(first, last)
        if last < self.first and not self.first_is_known:  # The first position to arrive was not the lowest.
            self.first, found = first, True
        self.last = max(self.last, last)
        if replays:
            self._previous = last
            return PositionStep.RECOVERED if found else PositionStep.REPLAYED
        return PositionStep.LATE if found else PositionStep.REPEATED

    def _fill(self, first: int, last: int) -> bool:
        kept, found = [], False
        for low, high, index, cut in self.missing:
            if last < low or first > high:
                kept.append((low, high, index, cut))
                continue
            found = True
            if low < first:
                kept.append((low, first - 1, index, cut))
            if last < high:
                kept.append((last + 1, high, index, cut))
        self.missing = kept
        return found

    def announce(self, first: int, last: int | None) -> None:
        """Excuse positions that the server announced as a gap. A gap without an end restarts the numbering."""
        if last is None:
            self.first_is_known, self.first, self.last, self.missing = False, -1, -1, []
            return
        self._fill(first, last)
        if first <= self.last + 1:
            self.last = max(self.last, last)
