"""Compute a verdict from a history: a pure function, like Jepsen's total-queue checker.

The checker counts only what was observed. Three identities must hold for every history. If an identity does not hold,
the counts are wrong, and `check` raises LedgerImbalance. A caller can pass the number of expected events, computed from
the workload's parameters. With this number, `check` also raises LedgerImbalance if a run is missing from the history.
"""

from __future__ import annotations

import enum
import gc
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bridgekit.events import Outcome, Receipt
from bridgekit_verify.errors import LedgerImbalance
from bridgekit_verify.measure.history import Arrival, EventKey, Expectation, ExpectedEvents, History
from bridgekit_verify.measure.ledger import Attribution, Row, attribute_misroute, ledger
from bridgekit_verify.measure.numbering import false_gaps, irregular_sockets, reordered_in_run
from bridgekit_verify.measure.statistics import Rate

__all__ = ["Verdict", "check"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts of events and frames.

    An event that two sockets must receive counts twice in expected, delivered and lost.
    """

    expected: int
    """Events that must arrive at a socket entitled to them."""
    no_socket: int
    """Events that no socket is entitled to, because their user has no socket. `expected` omits these events."""
    delivered: int
    """Events that arrived at least once at a socket entitled to them."""
    lost_signalled: int
    """Events that never arrived, and whose client received a gap that covers them."""
    lost_silent: int
    """Events that never arrived, and whose client received no gap that covers them."""
    frames: int
    """Frames that sockets read."""
    extra_copies: int
    """Frames that repeat a delivered frame."""
    wrong_thread: int
    """Misrouted frames that a socket of the right user read, but for another thread of that user."""
    wrong_user: int
    """Misrouted frames that another user's socket read."""
    unexpected: int
    """Frames that belong to no attempted event."""
    reordered: int
    """Frames read after a frame with a higher `seq` (RFC 4737, type-P-reordered)."""
    reordering_extent: int
    """The largest delay of a reordered frame, in frames (RFC 4737, section 4.2.2), or 0 if no frame is reordered."""
    reordered_in_run: int
    """Frames with a higher `seq` than an event that their run emitted later. The order of reading does not matter."""
    false_gaps: int
    """Gaps that a client received, or can infer from `seq`, although no event in the gap is lost."""
    false_success: int
    """Events that a receipt reports as sent, but that no entitled socket read."""
    false_failure: int
    """Events that a receipt reports as not sent, but that a socket read."""
    acknowledged: int
    """Events for which the bridge returned a receipt."""
    losses: dict[Attribution, int]
    """All losses, counted by attributed link and reason."""
    misroutes: dict[Attribution, int]
    """All misrouted frames, counted by attributed link and reason."""

    @property
    def misrouted(self) -> int:
        return self.wrong_thread + self.wrong_user

    @property
    def lost(self) -> int:
        """Events that did not arrive at a socket entitled to them, even if another socket read them."""
        return self.lost_signalled + self.lost_silent

    @property
    def all_delivered(self) -> bool:
        """Whether events were expected, all of them reached their user, and no frame was misrouted."""
        return self.delivered == self.expected > 0 == self.misrouted

    @property
    def attributions(self) -> list[Attribution]:
        """Every link and reason that caused a loss or a misroute, in the order of the chain."""
        return sorted({*self.losses, *self.misroutes}, key=lambda attribution: (attribution.link, attribution.reason))

    @property
    def delivery(self) -> Rate:
        return Rate(self.delivered, self.expected)

    @property
    def drop(self) -> Rate:
        return Rate(self.lost, self.expected)

    @property
    def misrouting(self) -> Rate:
        """The rate of misrouted frames among all frames read."""
        return Rate(self.misrouted, self.frames)

    @property
    def lost_at(self) -> dict[int, int]:
        """Losses by link."""
        by_link: Counter[int] = Counter()
        for attribution, count in self.losses.items():
            by_link[attribution.link] += count
        return dict(sorted(by_link.items()))


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Pause the garbage collector, which would traverse the history although the checker creates no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_collection_paused()
def check(history: History, expected: ExpectedEvents | None = None) -> Verdict:
    """Return the verdict on a history. Raises LedgerImbalance if the counts contradict each other.

    `expected` is the number of events that follows from the workload's parameters. By default, the checker counts the
    history's own events and sockets. This default detects an error in the ledger, but not an event that is missing
    from the history.
    """
    rows = ledger(history)
    planned = _count_expected(history) if expected is None else expected
    owners = {expectation.key: expectation for expectation in history.expected}
    found = [(arrival, _destination(owners, arrival)) for arrival in history.arrivals]
    by_destination = Counter(destination for _, destination in found)
    entitled = [arrival for arrival, destination in found if destination is Destination.ENTITLED]
    misrouted = (Destination.WRONG_THREAD, Destination.WRONG_USER)
    unexpected = by_destination[Destination.UNEXPECTED]
    own = [arrival for arrival, destination in found if destination not in misrouted] if unexpected else entitled
    positions = {key: place for place, key in enumerate(owners)}
    irregular = irregular_sockets(positions, own)
    reordered, extent = _reordering(entitled)
    verdict = Verdict(
        expected=planned.at_sockets,
        no_socket=planned.without_socket,
        delivered=sum(row.copies > 0 for row in rows),
        lost_signalled=sum(row.copies == 0 and row.signalled for row in rows),
        lost_silent=sum(row.copies == 0 and not row.signalled for row in rows),
        frames=len(history.arrivals),
        extra_copies=sum(max(row.copies - 1, 0) for row in rows),
        wrong_thread=by_destination[Destination.WRONG_THREAD],
        wrong_user=by_destination[Destination.WRONG_USER],
        unexpected=unexpected,
        reordered=reordered,
        reordering_extent=extent,
        reordered_in_run=reordered_in_run(positions, entitled, irregular),
        false_gaps=false_gaps(history, rows, own, irregular),
        false_success=_false_success(history, rows),
        false_failure=_false_failure(history),
        acknowledged=len(history.acknowledged),
        losses=dict(Counter(row.attribution for row in rows if row.attribution is not None)),
        misroutes=dict(
            Counter(
                attribute_misroute(history, owners[arrival.key])
                for arrival, destination in found
                if arrival.key is not None and destination in misrouted
            )
        ),
    )
    _assert_identities(verdict, without_row=_without_row(history, rows))
    return verdict


def _count_expected(history: History) -> ExpectedEvents:
    """Count each event once for each socket of its thread and user, without the ledger."""
    sockets = Counter((socket.thread_id, socket.user_id) for socket in history.sockets)
    entitled = [sockets[expectation.thread_id, expectation.user_id] for expectation in history.expected]
    return ExpectedEvents(at_sockets=sum(entitled), without_socket=entitled.count(0))


def _without_row(history: History, rows: Iterable[Row]) -> int:
    keys = {row.expectation.key for row in rows}
    return sum(expectation.key not in keys for expectation in history.expected)


class Destination(enum.IntEnum):
    """The kind of socket that read a frame, or UNEXPECTED if no such event was attempted."""

    ENTITLED = enum.auto()
    WRONG_THREAD = enum.auto()
    WRONG_USER = enum.auto()
    UNEXPECTED = enum.auto()


def _destination(owners: Mapping[EventKey, Expectation], arrival: Arrival) -> Destination:
    owner = None if arrival.key is None else owners.get(arrival.key)
    if owner is None:
        return Destination.UNEXPECTED
    if arrival.socket.user_id != owner.user_id:
        return Destination.WRONG_USER
    return Destination.ENTITLED if arrival.socket.thread_id == owner.thread_id else Destination.WRONG_THREAD


def _reordering(arrivals: Iterable[Arrival]) -> tuple[int, int]:
    """Return how many frames a socket read after a frame with a higher `seq`, and the largest delay in frames.

    Only the first copy of an event counts, and only at an entitled socket. Sockets and epochs are counted separately.
    """
    highest: dict[tuple[int, str | None], list[int]] = defaultdict(list)
    seen: set[tuple[int, EventKey | None]] = set()
    reordered = extent = 0
    for arrival in arrivals:
        if (copy := (arrival.socket.number, arrival.key)) in seen:
            continue
        seen.add(copy)
        so_far = highest[arrival.socket.number, arrival.epoch]
        if so_far and arrival.seq < so_far[-1]:
            reordered += 1
            # The running maximum of `seq` never falls, so bisection finds the first frame with a higher `seq`.
            extent = max(extent, len(so_far) - bisect_right(so_far, arrival.seq))
        so_far.append(max(arrival.seq, so_far[-1] if so_far else 0))
    return reordered, extent


def _false_success(history: History, rows: Iterable[Row]) -> int:
    delivered = {row.expectation.key for row in rows if row.copies}
    return sum(bool(receipt) and key not in delivered for key, (_, receipt) in history.acknowledged.items())


def _false_failure(history: History) -> int:
    read = {arrival.key for arrival in history.arrivals}
    return sum(_reports_not_sent(receipt) and key in read for key, (_, receipt) in history.acknowledged.items())


def _reports_not_sent(receipt: Receipt) -> bool:
    """Return whether the receipt states that no socket will get the event.

    Return False if the event is retained or waits for the store, because a socket may read it later.
    """
    return not receipt and not receipt.kept and receipt.outcome is not Outcome.PENDING


def _assert_identities(verdict: Verdict, *, without_row: int) -> None:
    identities = (
        ("expected = delivered + dropped", verdict.expected, verdict.delivered + verdict.lost),
        ("expected without a socket = events without a row of the ledger", verdict.no_socket, without_row),
        (
            "frames = delivered + extra copies + misrouted + unexpected",
            verdict.frames,
            verdict.delivered + verdict.extra_copies + verdict.misrouted + verdict.unexpected,
        ),
    )
    for identity, left, right in identities:
        if left != right:
            raise LedgerImbalance(identity, left, right)
