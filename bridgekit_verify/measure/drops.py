"""How many events of a measurement were dropped, and which of those another user read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from bridgekit.events import EventType
from bridgekit_verify.measure.experiment import Measurement

__all__ = ["NOTHING", "DropCount", "count_drops", "have_equal_shares", "total"]


@dataclass(frozen=True, slots=True)
class DropCount:
    """What became of the expected events. An event with two entitled sockets counts twice, once for each."""

    expected: int
    delivered: int
    """Read by their own user."""
    lost: int
    """Read by no user."""
    leaked: int
    """Read by another user."""
    false_success: int
    """Reported as sent, and not delivered."""
    dropped_at: Mapping[int, int]
    """Dropped events, by the link that stopped or misrouted them."""
    arriving: frozenset[EventType]
    """The types of event of which every one was delivered."""

    @property
    def dropped(self) -> int:
        """Not delivered: lost, or read by another user only."""
        return self.expected - self.delivered

    @property
    def dropped_and_leaked(self) -> int:
        """Read by another user and not by their own."""
        return self.dropped - self.lost

    @property
    def complete(self) -> bool:
        """Whether every event was delivered and none was leaked. False if no event was expected: nothing was tried."""
        return 0 < self.expected == self.delivered and not self.leaked

    @property
    def shares(self) -> tuple[Fraction, Fraction, Fraction] | None:
        """The shares delivered, dropped and leaked; None if no event was expected."""
        if not self.expected:
            return None
        whole = self.expected
        return Fraction(self.delivered, whole), Fraction(self.dropped, whole), Fraction(self.leaked, whole)


NOTHING: Final = DropCount(0, 0, 0, 0, 0, {}, frozenset())
"""The count of no measurement at all."""


def count_drops(measurement: Measurement) -> DropCount:
    """Count one measurement. A chain that refused to start has nothing expected."""
    history, verdict = measurement.history, measurement.verdict
    owners = {expectation.key: expectation.user_id for expectation in history.expected}
    leaked = {
        arrival.key
        for arrival in history.arrivals
        if arrival.key in owners and arrival.socket.user_id != owners[arrival.key]
    }
    rows = measurement.ledger
    missing = {row.expectation.key.type for row in rows if not row.copies}
    return DropCount(
        expected=verdict.expected,
        delivered=verdict.delivered,
        lost=sum(not row.copies and row.expectation.key not in leaked for row in rows),
        leaked=sum(row.expectation.key in leaked for row in rows),
        false_success=verdict.false_success,
        dropped_at=verdict.lost_at,
        arriving=frozenset(row.expectation.key.type for row in rows) - missing,
    )


def total(counts: Iterable[DropCount]) -> DropCount:
    """Add up counts. A type of event arrives only if it arrives in each of them."""
    counts = tuple(counts)
    at = sorted({link for count in counts for link in count.dropped_at})
    return DropCount(
        expected=sum(count.expected for count in counts),
        delivered=sum(count.delivered for count in counts),
        lost=sum(count.lost for count in counts),
        leaked=sum(count.leaked for count in counts),
        false_success=sum(count.false_success for count in counts),
        dropped_at={link: sum(count.dropped_at.get(link, 0) for count in counts) for link in at},
        arriving=frozenset.intersection(*(count.arriving for count in counts)) if counts else frozenset(),
    )


def have_equal_shares(counts: Iterable[DropCount]) -> bool:
    """Return whether one bar represents all these counts, because each has the same shares."""
    return len({count.shares for count in counts}) <= 1
