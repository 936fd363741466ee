"""Delivery of a thread's frames once and in order when messages are lost, late or duplicated; without a server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason
from bridgekit.events import Frame, encode_unnumbered, numbered
from bridgekit.ids import ThreadId
from bridgekit.stores.redis.delivery import (
    BUFFER_BYTES,
    EVENT_BYTES,
    PART_BYTES,
    ChannelMessage,
    LogEntries,
    ThreadDelivery,
)
from bridgekit.stores.redis.keys_and_functions import KeyNames
from bridgekit.transport.log import Replay
from tests.factories import THREAD
from tests.stores.redis.workers import event_with

EPOCH = "e" * 16
OLD = "0" * 16
PART_EVENTS = PART_BYTES // EVENT_BYTES
TAIL = encode_unnumbered(event_with())


@dataclass
class NumberSink:
    """A sink that records seqs, and how many were delivered before each call of `wait_for_room`."""

    numbers: list[int] = field(default_factory=list)
    restarts: int = 0
    waits: list[int] = field(default_factory=list)
    room: anyio.Event | None = None

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.numbers.append(frame.seq)
        return 1

    def force_reconnect(self, thread_id: ThreadId) -> None:
        self.restarts += 1

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        self.waits.append(len(self.numbers))
        if self.room is not None:
            await self.room.wait()


def frame(seq: int) -> Frame:
    event = event_with()
    return Frame(seq, event.type, event.run_id, numbered(seq, TAIL))


def frames(*numbers: int) -> tuple[Frame, ...]:
    return tuple(map(frame, numbers))


def message(*numbers: int, after: int | None = None, last: int | None = None, epoch: str = EPOCH) -> ChannelMessage:
    """Build a message with these seqs. Unless `after` is given, it follows directly on the seq before them."""
    return ChannelMessage(
        epoch,
        numbers[0] - 1 if after is None else after,
        numbers[-1] if last is None else last,
        frames(*numbers),
        100 * len(numbers),
    )


def log(*numbers: int, head: int | None = None, epoch: str = EPOCH) -> LogEntries:
    last = numbers[-1] if head is None else head
    return LogEntries(Cursor(epoch, last), numbers[0] if numbers else last + 1, frames(*numbers))


def on_message(thread: ThreadDelivery, each: ChannelMessage, sink: NumberSink) -> bool:
    """Receive a message, and return whether the thread is up to date after it."""
    thread.on_message(each, sink)
    return not thread.behind


def joined() -> tuple[ThreadDelivery, NumberSink]:
    thread = ThreadDelivery(THREAD, KeyNames("test").thread(THREAD))
    thread.sockets = 1
    return thread, NumberSink()


def joined_at(seq: int) -> tuple[ThreadDelivery, NumberSink]:
    thread, sink = joined()
    thread.on_read(log(head=seq), sink)
    assert not thread.behind
    return thread, sink


async def catch_up(thread: ThreadDelivery, entries: LogEntries, sink: NumberSink) -> bool:
    """Read the log and deliver everything. Return whether the thread is up to date."""
    thread.on_read(entries, sink)
    await thread.drain(sink)
    return not thread.must_read


def test_next_message_is_delivered_and_a_repeated_one_is_not() -> None:
    thread, sink = joined_at(5)
    assert [on_message(thread, each, sink) for each in (message(4, 5), message(6), message(6), message(6, 7, 8))] == [
        True
    ] * 4
    assert sink.numbers == [6, 7, 8]


async def test_nothing_is_delivered_before_the_position_is_known() -> None:
    thread, sink = joined()
    assert not on_message(thread, message(7), sink)
    assert not on_message(thread, message(8), sink)
    assert not thread.ready.is_set()
    assert await catch_up(thread, log(head=7), sink)
    assert thread.ready.is_set()
    assert sink.numbers == [8]


async def test_missed_events_are_read_from_the_log_before_later_ones() -> None:
    thread, sink = joined_at(5)
    assert not on_message(thread, message(8), sink)
    assert not on_message(thread, message(9), sink)
    assert sink.numbers == []
    assert await catch_up(thread, log(6, 7, 8), sink)
    assert sink.numbers == [6, 7, 8, 9]
    assert on_message(thread, message(10), sink)
    assert sink.numbers[-1] == 10


async def test_log_is_read_again_when_events_are_still_missing() -> None:
    thread, sink = joined_at(5)
    thread.on_message(message(7), sink)
    thread.on_message(message(10), sink)
    assert not await catch_up(thread, log(6, 7, 8), sink)
    assert sink.numbers == [6, 7, 8]
    assert await catch_up(thread, log(9, 10), sink)
    assert sink.numbers == [6, 7, 8, 9, 10]


async def test_messages_beyond_the_buffer_limit_are_read_from_the_log() -> None:
    thread, sink = joined_at(0)
    large = ChannelMessage(EPOCH, 1, 2, frames(2), BUFFER_BYTES)
    thread.on_message(large, sink)
    thread.on_message(msgspec.structs.replace(large, after=2, last=3, frames=frames(3)), sink)
    assert not await catch_up(thread, log(1), sink)
    assert await catch_up(thread, log(2, 3), sink)
    assert sink.numbers == [1, 2, 3]


async def test_many_events_are_delivered_in_parts_with_a_wait_for_room_after_each() -> None:
    thread, sink = joined_at(0)
    thread.require_read()
    total = 3 * PART_EVENTS + 5
    assert await catch_up(thread, log(*range(1, total + 1)), sink)
    assert sink.numbers == list(range(1, total + 1))
    assert sink.waits == [0, PART_EVENTS, 2 * PART_EVENTS, 3 * PART_EVENTS, total]


async def test_messages_received_during_a_write_are_delivered_after_it() -> None:
    thread, sink = joined_at(0)
    thread.require_read()
    sink.room = anyio.Event()
    thread.on_read(log(*range(1, PART_EVENTS + 2)), sink)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(thread.drain(sink))
        await anyio.wait_all_tasks_blocked()
        assert not on_message(thread, message(PART_EVENTS + 2), sink)
        assert sink.numbers == []
        sink.room.set()
    assert sink.numbers == list(range(1, PART_EVENTS + 3))
    assert not thread.behind


async def test_thread_that_is_left_during_a_write_receives_nothing_more() -> None:
    thread, sink = joined_at(0)
    thread.require_read()
    sink.room = anyio.Event()
    thread.on_read(log(*range(1, PART_EVENTS + 2)), sink)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(thread.drain(sink))
        await anyio.wait_all_tasks_blocked()
        thread.sockets = 0
        sink.room.set()
    assert sink.numbers == []


async def test_messages_are_buffered_until_sockets_are_written_to_when_an_outbox_would_overflow() -> None:
    thread, sink = joined_at(0)
    seq = 0
    while not thread.behind:
        seq += 1
        thread.on_message(ChannelMessage(EPOCH, seq - 1, seq, frames(seq), EVENT_BYTES), sink)
    assert sink.numbers == list(range(1, PART_EVENTS + 1))
    await thread.drain(sink)
    assert sink.numbers == list(range(1, PART_EVENTS + 2))
    assert on_message(thread, message(PART_EVENTS + 2), sink)


def test_skipped_number_before_an_event_is_visible_in_its_seq() -> None:
    thread, sink = joined_at(5)
    assert on_message(thread, message(9, after=5), sink)
    assert (sink.numbers, sink.restarts) == ([9], 0)


@pytest.mark.parametrize("by_log", [False, True])
async def test_skipped_number_at_the_end_makes_clients_reconnect(by_log: bool) -> None:
    thread, sink = joined_at(5)
    if by_log:
        assert await catch_up(thread, log(6, head=8), sink)
    else:
        assert on_message(thread, message(6), sink)
        assert on_message(thread, ChannelMessage(EPOCH, 6, 8, (), 10), sink)
    assert (sink.numbers, sink.restarts) == ([6], 1)
    assert on_message(thread, message(9), sink)
    assert (sink.numbers, sink.restarts) == ([6, 9], 1)


async def test_new_epoch_makes_clients_reconnect_and_delivery_continues_from_its_head() -> None:
    thread, sink = joined_at(5)
    assert not on_message(thread, message(1, epoch=OLD), sink)
    assert await catch_up(thread, log(1, 2, epoch=OLD), sink)
    assert (sink.numbers, sink.restarts) == ([], 1)
    assert on_message(thread, message(3, epoch=OLD), sink)
    assert sink.numbers == [3]


@given(st.data())
async def test_each_event_is_delivered_once_in_order_when_messages_are_lost_late_or_repeated(
    data: st.DataObject,
) -> None:
    """Messages arrive in order over successive connections. Each may lose messages, or repeat those of earlier ones."""
    thread, sink = joined_at(0)
    written = 0
    for _ in range(data.draw(st.integers(1, 12))):
        count = data.draw(st.integers(1, 3))
        new = range(written + 1, written + count + 1)
        written += count
        fate = data.draw(st.sampled_from(["received", "received", "lost", "received twice", "connection lost"]))
        for _ in range({"received": 1, "received twice": 2}.get(fate, 0)):
            thread.on_message(message(*new), sink)
        if fate == "connection lost":
            thread.require_read()
        if data.draw(st.booleans()) and thread.behind:
            position = thread.position or Cursor(EPOCH, 0)
            await catch_up(thread, log(*range(position.seq + 1, written + 1), head=written), sink)
        assert sink.numbers == list(range(1, len(sink.numbers) + 1))
    position = thread.position or Cursor(EPOCH, 0)
    assert await catch_up(thread, log(*range(position.seq + 1, written + 1), head=written), sink)
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
def test_replay_depends_on_the_retained_entries(
    entries: list[int | str], after: int, numbers: list[int], gap: tuple[int, int, GapReason] | None
) -> None:
    last = entries[-1] if entries else after
    head = Cursor(EPOCH, last if isinstance(last, int) else int(last.split(" ")[1]))
    raw = [frame(each).data if isinstance(each, int) else each.encode() for each in entries]
    replay = LogEntries.decode([EPOCH.encode(), str(head.seq).encode(), *raw]).replay(THREAD, Cursor(EPOCH, after))
    assert [each.seq for each in replay.frames] == numbers
    if gap is None:
        assert (replay.cursor, replay.gap) == (Cursor(EPOCH, after), None)
        assert not entries or replay.last == head.seq, "what is lost at the end is a gap"
    else:
        first, to, reason = gap
        assert replay == Replay(head, gap=Gap(thread_id=THREAD, epoch=EPOCH, first=first, last=to, reason=reason))


def test_entry_that_is_not_a_frame_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    raw = [frame(number).data for number in (1, 3)]
    entries = LogEntries.decode([EPOCH.encode(), b"3", raw[0], b'{"of": "another version"}', raw[1]])
    assert [each.seq for each in entries.frames] == [1, 3]
    assert "not a frame" in caplog.text


def test_message_is_decoded() -> None:
    data = b"\n".join([f"{EPOCH} 4 6".encode(), *(each.data for each in frames(5, 6))])
    decoded = ChannelMessage.decode(data)
    assert (decoded.epoch, decoded.after, decoded.last, [each.seq for each in decoded.frames]) == (EPOCH, 4, 6, [5, 6])
    assert ChannelMessage.decode(f"{EPOCH} 4 6".encode()).frames == ()


@pytest.mark.parametrize("data", [b"", b"a b", b"a b c", b"e 1 2\n", b"e 1 2\n{}", b"\xff 1 2"])
def test_message_of_another_program_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        ChannelMessage.decode(data)
