"""A client's stream over several sockets: no duplicates, and no unreported gap."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason
from bridgekit.errors import MalformedFrame
from bridgekit.transport.cursor_tracker import CursorTracker, Item
from tests.factories import THREAD, routed

OLD, NEW = "0" * 16, "1" * 16


def gap(first: int, last: int | None, reason: GapReason = GapReason.EXPIRED, epoch: str = OLD) -> Gap:
    return Gap(thread_id=THREAD, epoch=epoch, first=first, last=last, reason=reason)


def new_in(tracker: CursorTracker, *items: Item) -> list[str]:
    """Return the new items in short form: numbers of events, and gaps with their reasons."""
    return [short(item) for each in items for item, _ in tracker.accept(each)]


def short(item: Item) -> str:
    return f"{item.first}-{item.last or ''} {item.reason}" if isinstance(item, Gap) else str(item.seq)


def subscribed_tracker(after: Cursor | None, start: Cursor) -> CursorTracker:
    tracker = CursorTracker(after)
    tracker.start(start)
    return tracker


def test_new_client_starts_at_the_servers_position() -> None:
    tracker = subscribed_tracker(None, Cursor(OLD, 7))
    assert tracker.cursor == Cursor(OLD, 7)
    assert new_in(tracker, routed(seq=8)) == ["8"]
    assert tracker.cursor == Cursor(OLD, 8)


def test_duplicate_event_is_discarded_and_counted() -> None:
    tracker = subscribed_tracker(None, Cursor(OLD, 0))
    assert new_in(tracker, routed(seq=1), routed(seq=2), routed(seq=1), routed(seq=2), routed(seq=3)) == ["1", "2", "3"]
    assert tracker.duplicates == 2


def test_unreported_gap_is_reported_before_the_next_event() -> None:
    tracker = subscribed_tracker(None, Cursor(OLD, 0))
    assert tracker.accept(routed(seq=4)) == [
        (gap(1, 3, GapReason.LOST), Cursor(OLD, 3)),
        (routed(seq=4), Cursor(OLD, 4)),
    ]


def test_unreported_gap_before_a_reported_one_is_reported() -> None:
    tracker = subscribed_tracker(None, Cursor(OLD, 0))
    assert new_in(tracker, gap(3, 4, GapReason.COALESCED), routed(seq=5)) == ["1-2 lost", "3-4 coalesced", "5"]


def test_gap_is_reported_once_and_an_overlapping_one_is_shortened() -> None:
    tracker = subscribed_tracker(Cursor(OLD, 2), Cursor(OLD, 6))
    assert new_in(tracker, gap(3, 6), gap(3, 6), gap(5, 8)) == ["3-6 expired", "7-8 expired"]


def test_gap_is_not_lost_when_the_socket_breaks_before_reporting_it() -> None:
    """The client has events up to 2, is subscribed from 6, and has no gap for 3 to 6 yet. So the next socket resumes
    after 2."""
    tracker = subscribed_tracker(Cursor(OLD, 2), Cursor(OLD, 6))
    assert tracker.cursor == Cursor(OLD, 2)
    tracker.start(Cursor(OLD, 9))
    assert new_in(tracker, gap(3, 9), routed(seq=10)) == ["3-9 expired", "10"]


def test_gap_that_the_server_never_reports_is_reported() -> None:
    assert new_in(subscribed_tracker(Cursor(OLD, 2), Cursor(OLD, 6)), routed(seq=7)) == ["3-6 lost", "7"]


def test_new_epoch_follows_the_gap_that_ends_the_old_one() -> None:
    tracker = subscribed_tracker(Cursor(OLD, 9), Cursor(NEW, 2))
    assert new_in(tracker, gap(10, None, GapReason.RESTARTED)) == ["10- restarted"]
    assert tracker.cursor == Cursor(NEW, 0)
    assert new_in(tracker, gap(1, 2, epoch=NEW), routed(seq=3)) == ["1-2 expired", "3"]
    assert tracker.cursor == Cursor(NEW, 3)


def test_both_gaps_of_a_new_epoch_survive_a_socket_that_breaks_between_them() -> None:
    tracker = subscribed_tracker(Cursor(OLD, 9), Cursor(NEW, 2))
    new_in(tracker, gap(10, None, GapReason.RESTARTED))
    tracker.start(Cursor(NEW, 5))
    assert new_in(tracker, gap(1, 5, epoch=NEW), routed(seq=6)) == ["1-5 expired", "6"]


@pytest.mark.parametrize("first", [routed(seq=1), gap(1, 1, epoch=NEW)], ids=["event", "gap"])
def test_unreported_new_epoch_is_reported(first: Item) -> None:
    items = subscribed_tracker(Cursor(OLD, 9), Cursor(NEW, 0)).accept(first)
    assert [(short(item), cursor) for item, cursor in items] == [
        ("10- restarted", Cursor(NEW, 0)),
        (short(first), Cursor(NEW, 1)),
    ]


def test_gap_of_an_unknown_epoch_is_rejected() -> None:
    with pytest.raises(MalformedFrame):
        subscribed_tracker(None, Cursor(OLD, 0)).accept(gap(1, 2, epoch=NEW))


runs = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@settings(deadline=None)
@given(runs, st.data())
def test_every_number_is_an_event_or_in_a_gap_exactly_once(lengths: list[int], data: st.DataObject) -> None:
    """The server resumes from any earlier position, and skips and repeats events at random."""
    tracker, seen, published = subscribed_tracker(None, Cursor(OLD, 0)), list[int](), 0
    for length in lengths:
        published += length
        resumed = data.draw(st.integers(0, published), "resumed after")
        tracker.start(Cursor(OLD, resumed))
        brought = data.draw(st.lists(st.integers(1, max(published, 1)), max_size=12), "brought")
        for seq in [seq for seq in sorted(brought) if resumed < seq <= published]:
            for item, cursor in tracker.accept(routed(seq=seq)):
                covered = range(item.first, (item.last or 0) + 1) if isinstance(item, Gap) else (item.seq,)
                seen += covered
                assert cursor == Cursor(OLD, seen[-1])
    assert seen == list(range(1, len(seen) + 1))
