"""The bounded outbox between the hub, which never waits, and one socket, which may be slow."""

from __future__ import annotations

import math
import re
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from bridgekit.cursors_and_gaps import GapReason
from bridgekit.errors import InvalidId
from bridgekit.events import POLICIES, EventType, Frame, Policy
from bridgekit.transport.authorization import CLOSE_ACCESS_ENDED
from bridgekit.transport.log import DEFAULT_RETENTION, Retention
from bridgekit.transport.outbox import BATCH_FRAMES, OUTBOX_LIMITS, SLOW_AFTER_TICKS, WRITE_BYTES, OutboxLimits
from tests.transport.outboxes import Box, gap, numbered, progress, thought, tool

# Order and limits.


def test_frames_are_taken_in_order_and_once() -> None:
    box = Box()
    assert all(box.put_all(tool(1), tool(2), tool(3)))
    assert box.taken(2) == ["1", "2"]
    assert box.put(tool(4))
    assert box.taken() == ["3", "4"]
    assert box.taken() == []


def test_duplicate_frame_is_taken_once() -> None:
    box = Box(events=2)
    assert box.put_all(*map(tool, (1, 1, 2, 2, 1))) == [True] * 5
    assert box.taken() == ["1", "2"]
    assert box.put(tool(2))
    assert box.taken() == []


def test_outbox_is_bounded_in_frames() -> None:
    box = Box(events=OUTBOX_LIMITS.events)
    assert all(box.put_all(*map(tool, range(1, OUTBOX_LIMITS.events + 1))))
    assert box.is_full()
    assert not box.put(tool(OUTBOX_LIMITS.events + 1))
    assert len(box) == OUTBOX_LIMITS.events == 8_192
    assert (box.aborted, box.code) == (1, 4008)


def test_outbox_is_bounded_in_bytes() -> None:
    box = Box(size_bytes=20)
    assert box.put_all(tool(1), tool(2)) == [True, True]
    assert box.is_full()
    box.next_frames(1)
    assert not box.is_full()
    assert box.put_all(tool(3), tool(4)) == [True, False]
    assert OUTBOX_LIMITS.size_bytes == 4 * 1_048_576


def test_frame_that_reaches_the_limit_may_exceed_it() -> None:
    box = Box(size_bytes=11)
    assert box.put_all(tool(1), tool(2, size=1_000), tool(3)) == [True, True, False]


def test_limits_never_exceed_the_logs_retention() -> None:
    assert OUTBOX_LIMITS.within(DEFAULT_RETENTION) == OUTBOX_LIMITS
    assert OUTBOX_LIMITS.within(Retention(events=10, size_bytes=99_999)) == OutboxLimits(events=10, size_bytes=99_999)
    assert OutboxLimits(events=5).within(Retention(events=10)) == OutboxLimits(events=5)
    assert OUTBOX_LIMITS.within(Retention(events=0)) == OUTBOX_LIMITS, "a log that retains nothing sets no limit"
    assert DEFAULT_RETENTION.events >= 2 * OUTBOX_LIMITS.events
    assert DEFAULT_RETENTION.size_bytes >= 2 * OUTBOX_LIMITS.size_bytes


@pytest.mark.parametrize("name", ["events", "size_bytes"])
@pytest.mark.parametrize("value", [0, -1, 1.5, math.inf, math.nan, "8", None, True, 10**400])
def test_limit_that_no_outbox_can_keep_is_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidId, match=rf"^OutboxLimits.{name}: must be .*, not {re.escape(repr(value))}$"):
        OutboxLimits(**{name: value})


# Coalescing.


def test_no_frame_is_coalesced_below_the_limits() -> None:
    box = Box(events=4)
    assert all(box.put_all(*map(thought, (1, 2, 3, 4))))
    assert box.taken() == ["1", "2", "3", "4"]
    assert box.counters.coalesced == 0


def test_latest_frame_of_a_run_and_type_supersedes_earlier_ones_when_the_outbox_is_full() -> None:
    box = Box(events=4)
    assert all(box.put_all(thought(1), thought(2, "run_2"), progress(3), tool(4), thought(5), progress(6), thought(7)))
    assert box.seqs() == [2, 4, 6, 7]
    assert box.counters.coalesced == 3


def test_event_that_may_not_be_coalesced_is_never_dropped() -> None:
    box = Box(events=2)
    assert box.put_all(tool(1), thought(2), thought(3), tool(4)) == [True, True, True, False]
    assert box.seqs() == [1, 3]


def test_latest_of_each_run_and_type_is_never_dropped() -> None:
    box = Box(events=2)
    assert box.put_all(thought(1), thought(2, "run_2"), progress(3)) == [True, True, False]
    assert box.seqs() == [1, 2]


def test_frames_are_coalesced_at_the_byte_limit() -> None:
    box = Box(size_bytes=30)
    assert all(box.put_all(thought(1), thought(2), thought(3), tool(4, size=20)))
    assert box.seqs() == [2, 3, 4]


def test_outbox_is_not_full_while_a_frame_is_superseded() -> None:
    box = Box(events=2)
    box.put_all(thought(1), thought(2))
    assert not box.is_full()
    assert box.put(tool(3))
    assert box.is_full()
    assert box.taken() == ["1-1 coalesced", "2", "3"]


def test_taken_frame_is_not_coalesced() -> None:
    box = Box(events=2)
    box.put(thought(1))
    assert box.taken() == ["1"]
    assert all(box.put_all(thought(2), thought(3), tool(4)))
    assert box.taken() == ["2-2 coalesced", "3", "4"]


def test_taken_frame_is_not_superseded() -> None:
    box = Box(events=2)
    assert all(box.put_all(thought(1), tool(2)))
    assert box.taken(1) == ["1"]
    assert box.put_all(thought(3), tool(4)) == [True, False]
    assert box.taken() == ["2", "3"]


def test_state_of_a_flooded_outbox_does_not_grow() -> None:
    """One run emits only thoughts, to a socket that reads nothing."""
    box = Box(events=8)
    assert all(box.put_all(*map(thought, range(1, 5_001))))
    assert len(box) == 8
    assert box._queue is not None
    assert len(box._queue._latest) == 1
    assert len(box._queue._superseded) <= 8
    assert box._queue._skipped == []


def test_state_of_a_never_empty_outbox_does_not_grow() -> None:
    """The socket reads as fast as frames are put, so nothing is coalesced, but the outbox is never empty."""
    box = Box(events=8)
    for seq in range(1, 5_001):
        assert box.put(thought(seq))
        if len(box) > 4 and seq >= 9:
            box.next_frames(1)
    assert box.counters.coalesced == 1
    assert box._queue is not None
    assert len(box._queue._superseded) <= 8


def test_superseded_frames_are_tracked_only_while_the_outbox_is_full() -> None:
    box, looked_for = Box(events=8), list[bool]()
    for seq in range(1, 10):
        assert box.put(thought(seq))
        looked_for.append(box._queue is not None)
    assert box.taken() == ["1-1 coalesced", "2", "3", "4", "5", "6", "7", "8", "9"]
    assert box.put(thought(10))
    assert [*looked_for, box._queue is not None] == [False] * 8 + [True, False]
    assert box.taken() == ["10"]


frames = st.tuples(st.sampled_from(list(EventType)), st.sampled_from(["a", "b"]), st.integers(2, 40))


@settings(deadline=None)
@given(st.lists(st.just("take") | st.integers(1, 3) | frames, max_size=60))
def test_outbox_behaves_like_a_bounded_list(steps: list[str | int | tuple[EventType, str, int]]) -> None:
    """Compares with a plain list. "take" takes all frames, a number takes that many, and a triple puts a frame: type,
    run and size."""
    box, model = Box(events=4, size_bytes=80), list[Frame]()
    read, coalesced = list[str](), list[int]()
    for seq, step in enumerate(steps, 1):
        if isinstance(step, tuple):
            new = numbered(seq, step[0], step[1], step[2])
            fits = _put(model, new, coalesced)
            assert box.put(new) is fits
            assert len(box) == len(model)
            if not fits:
                break
        else:
            count = len(model) if step == "take" else int(step)
            read += box.taken(count)
            del model[:count]
    read += box.taken()
    reported = [range(int(first), int(last) + 1) for first, last in _gaps(read, "coalesced")]
    assert sorted(seq for numbers in reported for seq in numbers) == sorted(coalesced)


def _gaps(read: list[str], reason: str) -> list[list[str]]:
    return [each.split()[0].split("-") for each in read if each.endswith(reason)]


def _put(model: list[Frame], new: Frame, coalesced: list[int]) -> bool:
    """The rule in simple code: while the frame does not fit, drop the oldest frame that a later one supersedes."""
    queue = [*model, new]
    while len(model) >= 4 or sum(len(each.data) for each in model) >= 80:
        superseded = [
            each
            for index, each in enumerate(queue[:-1])
            if POLICIES[each.type] is Policy.COALESCE
            and any((later.type, later.run_id) == (each.type, each.run_id) for later in queue[index + 1 :])
        ]
        if not superseded:
            return False
        # The frame whose successor arrived first was superseded first.
        first = min(superseded, key=lambda each: _successor(queue, each))
        queue.remove(first)
        model.remove(first)
        coalesced.append(first.seq)
    model.append(new)
    return True


def _successor(queue: list[Frame], frame: Frame) -> int:
    return next(
        later.seq
        for later in queue
        if later.seq > frame.seq and (later.type, later.run_id) == (frame.type, frame.run_id)
    )


# The first messages, and gaps.


def test_confirmation_gaps_replay_and_new_frames_are_sent_in_this_order() -> None:
    box = Box()
    assert box.put_all(tool(8), tool(9)) == [True, True]
    restarted, expired = gap(3, None, GapReason.RESTARTED), gap(1, 5, GapReason.EXPIRED)
    first = box.started(5, tool(6), tool(7), gap=restarted, expired=expired)
    assert first == ["subscribed 5", "3- restarted", "1-5 expired", "6", "7"]
    assert box.taken() == ["8", "9"]
    assert box.taken() == []


def test_event_that_is_both_replayed_and_put_is_sent_once() -> None:
    box = Box()
    box.put_all(tool(6), tool(7), tool(8))
    assert box.started(5, tool(6), tool(7)) == ["subscribed 5", "6", "7"]
    assert box.taken() == ["8"]


def test_replayed_event_that_is_put_later_is_sent_once() -> None:
    """A shared store adds an event to its log first, and delivers it to the workers slightly later."""
    box = Box()
    assert box.started(5, tool(6), tool(7)) == ["subscribed 5", "6", "7"]
    assert box.put_all(tool(6), tool(7), tool(8)) == [True] * 3
    assert box.taken() == ["8"]


def test_socket_without_a_cursor_is_sent_no_past_events() -> None:
    box = Box()
    box.put(tool(5))
    assert box.started(5) == ["subscribed 5"]
    assert box.put_all(tool(5), tool(6)) == [True, True]
    assert box.taken() == ["6"]


def test_skipped_number_is_sent_as_a_gap_before_the_next_event() -> None:
    box = Box()
    assert box.started(0, tool(2)) == ["subscribed 0", "1-1 lost", "2"]
    box.put_all(tool(5), tool(6))
    assert box.taken() == ["3-4 lost", "5", "6"]
    assert box.counters.gaps == {GapReason.LOST: 2}


def test_lost_end_of_a_replay_is_sent_as_a_gap_at_once() -> None:
    """No later event may follow: the lost one may be the last of its run."""
    box = Box()
    box.put_all(tool(4), tool(5))
    assert box.started(0, tool(1), tool(2), last=4) == ["subscribed 0", "1", "2", "3-4 lost"]
    assert box.taken() == ["5"]


def test_coalesced_and_lost_numbers_are_sent_as_separate_gaps() -> None:
    box = Box(events=3)
    box.started()
    assert box.put_all(thought(2), thought(3), thought(4), thought(5), tool(8)) == [True] * 5
    assert box.taken() == ["1-1 lost", "2-3 coalesced", "4", "5", "6-7 lost", "8"]
    assert box.counters.gaps == {GapReason.LOST: 2, GapReason.COALESCED: 1}


def test_frame_coalesced_during_joining_is_in_no_gap_when_it_is_in_the_replay() -> None:
    box = Box(events=2)
    box.put_all(thought(1), thought(2), thought(3), thought(4))
    assert box.started(0, *map(tool, (1, 2, 3))) == ["subscribed 0", "1", "2", "3"]
    assert box.taken() == ["4"]


def test_frames_coalesced_during_joining_are_in_a_gap_when_they_are_not_in_the_replay() -> None:
    box = Box(events=2)
    box.put_all(*map(thought, range(1, 7)))
    assert box.started(0, tool(1), tool(2)) == ["subscribed 0", "1", "2"]
    assert box.taken() == ["3-4 coalesced", "5", "6"]


def test_frame_coalesced_during_joining_is_in_no_later_gap_when_it_is_in_the_replay() -> None:
    box = Box(events=2)
    box.put_all(thought(1), thought(2), thought(3), thought(4))
    assert box.started(0, *map(tool, (1, 2, 3, 4))) == ["subscribed 0", "1", "2", "3", "4"]
    box.put(tool(7))
    assert box.taken() == ["5-6 lost", "7"]


@pytest.mark.parametrize("limits", [{"events": 2}, {"size_bytes": 20}], ids=["events", "bytes"])
def test_limits_apply_during_joining(limits: dict[str, int]) -> None:
    box = Box(**limits)
    assert box.put_all(tool(1), tool(2), tool(3)) == [True, True, False]
    assert (box.aborted, box.code) == (1, 4008)


# The end of a subscription.


def test_slow_client_is_disconnected_once_and_gets_no_more_frames() -> None:
    box = Box(events=1)
    box.started()
    assert box.put_all(tool(1), tool(2), tool(3)) == [True, False, False]
    assert (box.aborted, box.schedule.scheduled, box.code) == (1, 1, 4008)
    assert box.unwritten == 1


def test_drained_socket_accepts_no_frames_and_sends_the_waiting_ones() -> None:
    box = Box()
    box.started()
    box.put(tool(1))
    box.drain()
    box.force_reconnect()
    assert box.put(tool(2)) is False
    assert (box.taken(), box.aborted) == (["1"], 0)
    assert box.code == 4000


@pytest.mark.parametrize(("waiting", "code"), [(0, 4000), (1, 4008)])
def test_drained_socket_that_is_disconnected_is_closed_with_4000_only_if_no_frame_waits(
    waiting: int, code: int
) -> None:
    box = Box()
    box.started()
    for seq in range(1, 1 + waiting):
        box.put(tool(seq))
    box.drain()
    box.disconnect_slow()
    assert (box.code, box.aborted, box.schedule.scheduled) == (code, 1, 1)


def test_socket_whose_access_ended_keeps_its_close_code_when_it_is_disconnected() -> None:
    box = Box()
    box.started()
    box.put(tool(1))
    box.code = CLOSE_ACCESS_ENDED
    box.disconnect_slow()
    assert box.code == CLOSE_ACCESS_ENDED


def test_socket_of_a_restarted_thread_accepts_no_frame_of_the_new_epoch() -> None:
    box = Box()
    box.started(9)
    box.put(tool(10))
    box.force_reconnect()
    assert box.put(tool(1)) is False
    assert box.taken() == ["10"]
    assert box.code == 4001


def test_taken_frames_count_as_unwritten_until_they_are_written() -> None:
    box = Box()
    box.started()
    box.put_all(*map(tool, range(1, BATCH_FRAMES + 11)))
    assert len(box.next_frames()) == BATCH_FRAMES
    assert (box.in_flight, box.unwritten) == (BATCH_FRAMES, BATCH_FRAMES + 10)
    box.in_flight = 0
    assert box.taken() == [str(seq) for seq in range(BATCH_FRAMES + 1, BATCH_FRAMES + 11)]


def test_frames_of_one_iteration_schedule_one_flush() -> None:
    box = Box()
    box.put_all(tool(1), tool(2), tool(3))
    assert (box.schedule.scheduled, box.schedule.enqueued) == (1, 3)


# Crowded outboxes: emitters wait for those whose clients read, and for no others.


@pytest.mark.parametrize(
    ("limits", "size", "at"),
    [({"events": 8}, 10, 4), ({"size_bytes": 100}, 10, 5), ({}, WRITE_BYTES // 4, 4), ({"events": 1}, 10, 1)],
    ids=["half of the events", "half of the bytes", "more than one write", "a single event"],
)
def test_outbox_is_crowded_from_half_of_its_limits_or_more_than_one_write(
    limits: dict[str, int], size: int, at: int
) -> None:
    box = Box(**limits)
    for seq in range(1, at + 1):
        assert box.crowded.by_thread == {}
        assert box.put(tool(seq, size=size))
    assert box.crowded.by_thread == {box.thread_id: [box]}
    box.next_frames(1)
    assert box.crowded.by_thread == {}


def test_outbox_is_no_longer_crowded_when_its_client_leaves() -> None:
    box = Box(events=2)
    box.put_all(tool(1), tool(2))
    box.clear_crowded()
    box.clear_crowded()
    assert box.crowded.by_thread == {}


async def test_emitter_waits_until_the_outbox_is_no_longer_crowded() -> None:
    box, went_on = Box(events=4), list[int]()
    box.put_all(tool(1), tool(2), tool(3))

    async def emitter() -> None:
        await box.crowded.wait_for_room(box.thread_id)
        went_on.append(len(box))

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emitter)
            for _ in range(3):
                await checkpoint()
            assert went_on == []
            box.next_frames(2)
    assert went_on == [1]


async def test_emitter_does_not_wait_for_a_client_that_reads_nothing() -> None:
    box = Box(events=4)
    box.put_all(tool(1), tool(2), tool(3))
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(box.crowded.watch)
            await box.crowded.wait_for_room(box.thread_id)
            assert box.is_slow()
            tasks.cancel_scope.cancel()
        # From now on the emitter only yields, and waits for nothing.
        await box.crowded.wait_for_room(box.thread_id)


def test_client_is_slow_after_ticks_without_progress_until_it_reads() -> None:
    box = Box(events=8)
    box.put_all(*map(tool, range(1, 8)))
    for _ in range(SLOW_AFTER_TICKS):
        assert not box.is_slow()
        box.tick()
    assert box.is_slow()
    box.next_frames(1)
    assert not box.is_slow()
    assert box.crowded.by_thread


def test_event_is_refused_only_when_the_client_of_a_full_outbox_reads() -> None:
    box = Box(events=2)
    box.put_all(tool(1), tool(2))
    assert box.crowded.refuses(box.thread_id)
    for _ in range(SLOW_AFTER_TICKS):
        box.tick()
    assert not box.crowded.refuses(box.thread_id), "a slow client is disconnected, and its thread goes on"
