"""A reader's stream over many sockets: nothing twice, and nothing missing without a word."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.errors import MalformedFrame
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.cursor_tracker import Item, CursorTracker
from tests.factories import THREAD, routed

OLD, NEW = "0" * 16, "1" * 16


def gap(first: int, last: int | None, reason: GapReason = GapReason.EXPIRED, epoch: str = OLD) -> Gap:
    return Gap(thread_id=THREAD, epoch=epoch, first=first, last=last, reason=reason)


def new_in(tracker: CursorTracker, *items: Item) -> list[str]:
    """What is new, in short: numbers of events, and gaps with their reasons."""
    return [short(item) for each in items for item, _ in tracker.accept(each)]


def short(item: Item) -> str:
    return f"{item.first}-{item.last or ''} {item.reason}" if isinstance(item, Gap) else str(item.seq)


def joined(after: Cursor | None, begins: Cursor) -> CursorTracker:
    tracker = CursorTracker(after)
    tracker.start(begins)
    return tracker


def test_new_reader_begins_where_the_server_says() -> None:
    tracker = joined(None, Cursor(OLD, 7))
    assert tracker.cursor == Cursor(OLD, 7)
    assert new_in(tracker, routed(seq=8)) == ["8"]
    assert tracker.cursor == Cursor(OLD, 8)


def test_event_that_comes_again_is_dropped_and_counted() -> None:
    tracker = joined(None, Cursor(OLD, 0))
    assert new_in(tracker, routed(seq=1), routed(seq=2), routed(seq=1), routed(seq=2), routed(seq=3)) == ["1", "2", "3"]
    assert tracker.duplicates == 2


def test_hole_that_the_server_did_not_tell_is_told_before_what_comes_behind_it() -> None:
    tracker = joined(None, Cursor(OLD, 0))
    assert tracker.accept(routed(seq=4)) == [
        (gap(1, 3, GapReason.LOST), Cursor(OLD, 3)),
        (routed(seq=4), Cursor(OLD, 4)),
    ]


def test_hole_before_a_gap_that_was_told_is_told_too() -> None:
    tracker = joined(None, Cursor(OLD, 0))
    assert new_in(tracker, gap(3, 4, GapReason.COALESCED), routed(seq=5)) == ["1-2 lost", "3-4 coalesced", "5"]


def test_gap_that_was_told_is_not_told_again_and_one_that_reaches_back_is_cut() -> None:
    tracker = joined(Cursor(OLD, 2), Cursor(OLD, 6))
    assert new_in(tracker, gap(3, 6), gap(3, 6), gap(5, 8)) == ["3-6 expired", "7-8 expired"]


def test_socket_that_breaks_before_it_tells_the_gap_costs_nobody_the_gap() -> None:
    """Subscribed from 6 on, the reader was told nothing yet of 3 to 6: the next socket is asked from 2 again."""
    tracker = joined(Cursor(OLD, 2), Cursor(OLD, 6))
    assert tracker.cursor == Cursor(OLD, 2)
    tracker.start(Cursor(OLD, 9))
    assert new_in(tracker, gap(3, 9), routed(seq=10)) == ["3-9 expired", "10"]


def test_gap_that_is_never_told_is_told_here() -> None:
    assert new_in(joined(Cursor(OLD, 2), Cursor(OLD, 6)), routed(seq=7)) == ["3-6 lost", "7"]


def test_new_numbering_begins_behind_the_gap_that_ends_the_old_one() -> None:
    tracker = joined(Cursor(OLD, 9), Cursor(NEW, 2))
    assert new_in(tracker, gap(10, None, GapReason.RESTARTED)) == ["10- restarted"]
    assert tracker.cursor == Cursor(NEW, 0)
    assert new_in(tracker, gap(1, 2, epoch=NEW), routed(seq=3)) == ["1-2 expired", "3"]
    assert tracker.cursor == Cursor(NEW, 3)


def test_socket_that_breaks_between_the_two_gaps_of_a_new_numbering_loses_neither() -> None:
    tracker = joined(Cursor(OLD, 9), Cursor(NEW, 2))
    new_in(tracker, gap(10, None, GapReason.RESTARTED))
    tracker.start(Cursor(NEW, 5))
    assert new_in(tracker, gap(1, 5, epoch=NEW), routed(seq=6)) == ["1-5 expired", "6"]


@pytest.mark.parametrize("first", [routed(seq=1), gap(1, 1, epoch=NEW)], ids=["event", "gap"])
def test_new_numbering_that_nobody_told_is_told_here(first: Item) -> None:
    told = joined(Cursor(OLD, 9), Cursor(NEW, 0)).accept(first)
    assert [(short(item), cursor) for item, cursor in told] == [
        ("10- restarted", Cursor(NEW, 0)),
        (short(first), Cursor(NEW, 1)),
    ]


def test_gap_in_a_numbering_of_nobody_is_refused() -> None:
    with pytest.raises(MalformedFrame):
        joined(None, Cursor(OLD, 0)).accept(gap(1, 2, epoch=NEW))


runs = st.lists(st.integers(0, 12), min_size=1, max_size=8)


@settings(deadline=None)
@given(runs, st.data())
def test_whatever_sockets_bring_every_number_is_an_event_or_in_a_gap_once(
    lengths: list[int], data: st.DataObject
) -> None:
    """A server that resumes from anywhere before, forgets and repeats as it likes."""
    tracker, seen, published = joined(None, Cursor(OLD, 0)), list[int](), 0
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
