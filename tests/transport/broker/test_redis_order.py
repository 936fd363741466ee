"""A thread's frames in rising order, each once, whatever is lost, late or told twice; without a store and a loop."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.events import Frame
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.storage.redis_library import Names
from bridgekit.transport.broker.redis_order import HELD_BYTES, Joined, Log, Told
from bridgekit.transport.log import Replay
from tests.samples import THREAD
from tests.transport.broker.redis_workers import said

EPOCH = "e" * 16
OLD = "0" * 16


@dataclass
class Noted:
    """A sink that keeps numbers."""

    numbers: list[int] = field(default_factory=list)
    restarts: int = 0

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.numbers.append(frame.seq)
        return 1

    def restart(self, thread_id: ThreadId) -> None:
        self.restarts += 1


def frames(*numbers: int) -> tuple[Frame, ...]:
    return tuple(said().frame(number) for number in numbers)


def told(*numbers: int, after: int | None = None, last: int | None = None, epoch: str = EPOCH) -> Told:
    """Numbers that are told in one go, right after the one before them unless said otherwise."""
    return Told(
        epoch,
        numbers[0] - 1 if after is None else after,
        numbers[-1] if last is None else last,
        frames(*numbers),
        100 * len(numbers),
    )


def log(*numbers: int, head: int | None = None, oldest: int | None = None, epoch: str = EPOCH) -> Log:
    last = numbers[-1] if head is None else head
    first = numbers[0] if numbers else last + 1
    return Log(Cursor(epoch, last), first if oldest is None else oldest, frames(*numbers))


def joined_at(seq: int) -> tuple[Joined, Noted]:
    joined, sink = Joined(THREAD, Names("test").thread(THREAD)), Noted()
    assert joined.catch_up(log(head=seq), sink)
    return joined, sink


def test_what_comes_next_is_delivered_and_what_came_already_is_not() -> None:
    joined, sink = joined_at(5)
    assert [joined.hear(each, sink) for each in (told(4, 5), told(6), told(6), told(6, 7, 8))] == [True] * 4
    assert sink.numbers == [6, 7, 8]


def test_nothing_is_delivered_before_it_is_known_from_where_on() -> None:
    joined, sink = Joined(THREAD, Names("test").thread(THREAD)), Noted()
    assert not joined.hear(told(7), sink)
    assert not joined.hear(told(8), sink)
    assert not joined.ready.is_set()
    assert joined.catch_up(log(head=7), sink)
    assert joined.ready.is_set()
    assert sink.numbers == [8]


def test_what_is_missing_is_taken_from_the_log_before_anything_later() -> None:
    joined, sink = joined_at(5)
    assert not joined.hear(told(8), sink)
    assert not joined.hear(told(9), sink)
    assert sink.numbers == []
    assert joined.catch_up(log(6, 7, 8), sink)
    assert sink.numbers == [6, 7, 8, 9]
    assert joined.hear(told(10), sink)


def test_what_is_still_missing_after_a_read_is_read_for_again() -> None:
    joined, sink = joined_at(5)
    joined.hear(told(7), sink)
    joined.hear(told(10), sink)
    assert not joined.catch_up(log(6, 7, 8), sink)
    assert sink.numbers == [6, 7, 8]
    assert joined.catch_up(log(9, 10), sink)
    assert sink.numbers == [6, 7, 8, 9, 10]


def test_what_is_held_is_bounded_and_the_rest_is_read_for() -> None:
    joined, sink = joined_at(0)
    large = Told(EPOCH, 1, 2, frames(2), HELD_BYTES)
    joined.hear(large, sink)
    joined.hear(msgspec.structs.replace(large, after=2, last=3, frames=frames(3)), sink)
    assert not joined.catch_up(log(1), sink)
    assert joined.catch_up(log(2, 3), sink)
    assert sink.numbers == [1, 2, 3]


def test_number_that_was_left_out_before_an_event_is_seen_from_its_number() -> None:
    joined, sink = joined_at(5)
    assert joined.hear(told(9, after=5), sink)
    assert (sink.numbers, sink.restarts) == ([9], 0)


@pytest.mark.parametrize("by_log", [False, True])
def test_number_that_was_left_out_at_the_end_sends_sockets_away_to_be_told(by_log: bool) -> None:
    joined, sink = joined_at(5)
    if by_log:
        assert joined.catch_up(log(6, head=8), sink)
    else:
        assert joined.hear(told(6), sink)
        assert joined.hear(Told(EPOCH, 6, 8, (), 10), sink)
    assert (sink.numbers, sink.restarts) == ([6], 1)
    assert joined.hear(told(9), sink)
    assert (sink.numbers, sink.restarts) == ([6, 9], 1)


def test_numbering_that_began_anew_sends_sockets_away_and_goes_on_from_there() -> None:
    joined, sink = joined_at(5)
    assert not joined.hear(told(1, epoch=OLD), sink)
    assert joined.catch_up(log(1, 2, epoch=OLD), sink)
    assert (sink.numbers, sink.restarts) == ([], 1)
    assert joined.hear(told(3, epoch=OLD), sink)
    assert sink.numbers == [3]


@given(st.data())
def test_whatever_is_lost_late_or_told_twice_each_event_is_delivered_once_in_order(data: st.DataObject) -> None:
    """Events are told in order by one connection after another: each may lose any, and repeat what one before told."""
    joined, sink = joined_at(0)
    written = 0
    for _ in range(data.draw(st.integers(1, 12))):
        count = data.draw(st.integers(1, 3))
        numbers = range(written + 1, written + count + 1)
        written += count
        fate = data.draw(st.sampled_from(["told", "told", "lost", "told twice", "connection lost"]))
        for _ in range({"told": 1, "told twice": 2}.get(fate, 0)):
            joined.hear(told(*numbers), sink)
        if fate == "connection lost":
            joined.behind = True
        if data.draw(st.booleans()) and joined.behind:
            at = joined.at or Cursor(EPOCH, 0)
            joined.catch_up(log(*range(at.seq + 1, written + 1), head=written), sink)
        assert sink.numbers == list(range(1, len(sink.numbers) + 1))
    at = joined.at or Cursor(EPOCH, 0)
    assert joined.catch_up(log(*range(at.seq + 1, written + 1), head=written), sink)
    assert sink.numbers == list(range(1, written + 1))
    assert sink.restarts == 0


@pytest.mark.parametrize(
    ("entries", "after", "numbers", "gap"),
    [
        ([6, 7], 5, [6, 7], None),
        ([7, 8], 5, [], (6, 8, GapReason.EXPIRED)),
        (["h6 8", 9], 5, [9], None),
        (["h3 8", 9], 5, [9], None),
        ([6, "h7 9", 10], 5, [6, 10], None),
        (["h6 9"], 5, [], (6, 9, GapReason.LOST)),
        (["h7 9"], 5, [], (6, 9, GapReason.EXPIRED)),
        ([6, "h7 9"], 5, [6], None),
        ([], 5, [], None),
    ],
)
def test_what_a_reader_is_sent_by_what_the_log_has(
    entries: list[int | str], after: int, numbers: list[int], gap: tuple[int, int, GapReason] | None
) -> None:
    last = entries[-1] if entries else after
    head = Cursor(EPOCH, last if isinstance(last, int) else int(last.split(" ")[1]))
    raw = [said().frame(each).data if isinstance(each, int) else each.encode() for each in entries]
    replay = Log.of([EPOCH.encode(), str(head.seq).encode(), *raw]).replay(THREAD, Cursor(EPOCH, after))
    assert [frame.seq for frame in replay.frames] == numbers
    if gap is None:
        assert (replay.cursor, replay.gap) == (Cursor(EPOCH, after), None)
    else:
        first, to, reason = gap
        assert replay == Replay(head, gap=Gap(thread_id=THREAD, epoch=EPOCH, first=first, last=to, reason=reason))


def test_entry_that_is_no_frame_is_left_out_and_its_number_missing(caplog: pytest.LogCaptureFixture) -> None:
    raw = [said().frame(number).data for number in (1, 3)]
    read = Log.of([EPOCH.encode(), b"3", raw[0], b'{"of": "another version"}', raw[1]])
    assert [frame.seq for frame in read.frames] == [1, 3]
    assert "no frame" in caplog.text


def test_message_is_read_back() -> None:
    message = b"\n".join([f"{EPOCH} 4 6".encode(), *(frame.data for frame in frames(5, 6))])
    read = Told.of(message)
    assert (read.epoch, read.after, read.last, [frame.seq for frame in read.frames]) == (EPOCH, 4, 6, [5, 6])
    assert Told.of(f"{EPOCH} 4 6".encode()).frames == ()


@pytest.mark.parametrize("rubbish", [b"", b"a b", b"a b c", b"e 1 2\n", b"e 1 2\n{}", b"\xff 1 2"])
def test_message_that_is_none_of_ours_is_refused(rubbish: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        Told.of(rubbish)
