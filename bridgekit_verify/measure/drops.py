"""Count the events of a measurement that were dropped, and the events that another user read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from bridgekit.events import EventType
from bridgekit_verify.measure.experiment import Measurement

__all__ = ["NOTHING", "DropCount", "EventCounts", "count_drops", "have_equal_shares", "total"]


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Outcomes of the expected events. An event with two entitled sockets counts twice, once for each."""

    expected: int
    delivered: int
    """Events that their own user read."""
    lost: int
    """Events that no user read."""
    leaked: int
    """Events that another user read, even if their own user read them as well."""

    @property
    def dropped(self) -> int:
        """Events that were lost, or that only another user read."""
        return self.expected - self.delivered

    @property
    def dropped_and_leaked(self) -> int:
        """Events that another user read but their own user did not read."""
        return self.dropped - self.lost

    @property
    def complete(self) -> bool:
        """Whether every event was delivered and none was leaked. False if no event was expected."""
        return 0 < self.expected == self.delivered and not self.leaked

    @property
    def shares(self) -> tuple[Fraction, Fraction, Fraction] | None:
        """The shares delivered, dropped and leaked, or None if no event was expected."""
        if not self.expected:
            return None
        whole = self.expected
        return Fraction(self.delivered, whole), Fraction(self.dropped, whole), Fraction(self.leaked, whole)


@dataclass(frozen=True, slots=True)
class DropCount(EventCounts):
    """The counts of measurements, with the links that dropped events."""

    false_success: int
    """Events that a receipt reports as sent and that were not delivered."""
    dropped_at: Mapping[int, int]
    """Dropped events, by the link that stopped or misrouted them."""
    arriving: frozenset[EventType]
    """The event types whose events were all delivered."""


NOTHING: Final = DropCount(0, 0, 0, 0, 0, {}, frozenset())
"""The counts of no measurements: every count is 0."""


def count_drops(measurement: Measurement) -> DropCount:
    """Count the drops of one measurement. A chain that refused to start has no expected events."""
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
    """Add counts. The result's `arriving` contains only the event types that are in `arriving` of every count."""
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


def have_equal_shares(counts: Iterable[EventCounts]) -> bool:
    """Return whether all counts have the same shares, so that one bar can represent them."""
    return len({count.shares for count in counts}) <= 1
