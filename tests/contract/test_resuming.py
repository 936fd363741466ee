"""With every store, a resuming client gets every event after its cursor, or a gap."""

from __future__ import annotations

import re

import anyio
import pytest

from bridgekit.cursors_and_gaps import START, Cursor, GapReason
from bridgekit.ids import ThreadId
from bridgekit.transport.log import Replay, Retention
from tests.contract.stores import (
    POLL_INTERVAL_SECONDS,
    WAIT_SECONDS,
    StoreLocation,
    Worker,
    event_with_number,
    merged,
    numbers,
)
from tests.factories import OTHER, THREAD


async def published(worker: Worker, count: int, thread_id: ThreadId = THREAD) -> Cursor:
    """Publish this many events and return the thread's cursor."""
    last = [await worker.publish(thread_id, number) for number in range(count)][-1]
    return Cursor(last.epoch or "", last.seq or 0)


async def test_every_cursor_gets_all_later_events(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        head = await published(sender, 12)
        for seq in range(13):
            replay = await holder.join(THREAD, Cursor(head.epoch, seq))
            assert replay.gap is None
            assert replay.cursor == Cursor(head.epoch, seq)
            assert numbers(replay.frames) == list(range(seq + 1, 13))


async def test_socket_without_a_cursor_starts_at_the_threads_end(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        begun = await holder.join(THREAD)
        assert (begun.cursor.seq, begun.frames, begun.gap) == (0, (), None)
        head = await published(sender, 3)
        assert head.epoch == begun.cursor.epoch
        await holder.wait_for_frames(THREAD, 3)
        assert await holder.join(THREAD) == Replay(head)


@pytest.mark.parametrize(("retained", "first"), [(8, 1), (2, 2)])
async def test_start_gets_everything_that_is_retained(location: StoreLocation, retained: int, first: int) -> None:
    async with location.workers(Retention(events=retained)) as (sender, holder):
        nothing = ThreadId("thread_of_nothing")
        assert await holder.join(nothing, START) == Replay((await holder.join(nothing)).cursor)
        head = await published(sender, 3)
        replay = await holder.join(THREAD, START)
        assert numbers(replay.frames) == list(range(first, 4))
        assert replay.cursor == Cursor(head.epoch, first - 1)
        gaps = [(gap.first, gap.last, gap.reason) for gap in replay.gaps]
        assert gaps == ([(1, first - 1, GapReason.EXPIRED)] if first > 1 else [])


async def test_epoch_is_unique_per_thread_and_unguessable(location: StoreLocation) -> None:
    async with location.worker() as worker:
        epochs = [(await worker.join(ThreadId(f"thread_{number}"))).cursor.epoch for number in range(20)]
        assert len(set(epochs)) == 20
        assert all(re.fullmatch("[0-9a-f]{16}", epoch) for epoch in epochs)


async def test_cursor_of_another_thread_reveals_none_of_its_events(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        foreign = await published(sender, 3, OTHER)
        own = await published(sender, 2)
        replay = await holder.join(THREAD, Cursor(foreign.epoch, 1))
        assert replay.gap is not None
        assert (replay.gap.epoch, replay.gap.first, replay.gap.last) == (foreign.epoch, 2, None)
        assert replay.gap.reason is GapReason.RESTARTED
        assert replay.gap.thread_id == THREAD
        assert replay.cursor.epoch == own.epoch
        assert {frame.event.thread_id for frame in replay.frames} == {THREAD}


async def test_cursor_ahead_of_the_log_gets_a_gap_without_an_end(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        head = await published(sender, 3)
        replay = await holder.join(THREAD, Cursor(head.epoch, 9))
        assert replay.gap is not None
        assert (replay.gap.first, replay.gap.last, replay.gap.reason) == (10, None, GapReason.RESTARTED)


async def test_oldest_retained_cursor_gets_everything_and_the_one_before_gets_a_gap(location: StoreLocation) -> None:
    async with location.workers(Retention(events=5)) as (sender, holder):
        head = await published(sender, 20)
        whole = await holder.join(THREAD, Cursor(head.epoch, 15))
        assert (numbers(whole.frames), whole.gap) == ([16, 17, 18, 19, 20], None)
        for seq in (0, 13, 14):
            replay = await holder.join(THREAD, Cursor(head.epoch, seq))
            assert replay.frames == ()
            assert replay.cursor == head
            assert replay.gap is not None
            assert (replay.gap.epoch, replay.gap.first, replay.gap.last) == (head.epoch, seq + 1, 20)
            assert replay.gap.reason is GapReason.EXPIRED
        assert (await holder.join(THREAD, head)).gap is None


async def test_log_is_bounded_in_bytes_and_retains_the_latest_event_of_any_size(location: StoreLocation) -> None:
    async with location.workers(Retention(size_bytes=2_000)) as (sender, holder):
        head = await published(sender, 20)
        kept = [seq for seq in range(20) if numbers((await holder.join(THREAD, Cursor(head.epoch, seq))).frames)]
        assert kept == list(range(kept[0], 20))
        replay = await holder.join(THREAD, Cursor(head.epoch, kept[0]))
        assert sum(len(frame.data) for frame in replay.frames) <= 2_000
        await sender.log.publish(event_with_number(THREAD, padding=10_000))
        assert numbers((await holder.join(THREAD, Cursor(head.epoch, 20))).frames) == [21]
        assert (await holder.join(THREAD, Cursor(head.epoch, 19))).gap is not None


async def test_resuming_client_gets_a_gap_for_expired_events(location: StoreLocation) -> None:
    async with location.workers(Retention(seconds=0.2)) as (sender, holder):
        head = await published(sender, 3)
        with anyio.fail_after(WAIT_SECONDS):
            while (replay := await holder.join(THREAD, Cursor(head.epoch, 1))).gap is None:
                assert numbers(replay.frames) == [2, 3]
                holder.leave(THREAD)
                await anyio.sleep(POLL_INTERVAL_SECONDS)
        assert (replay.gap.first, replay.gap.last, replay.gap.reason) == (2, 3, GapReason.EXPIRED)
        assert (replay.cursor, replay.frames) == (head, ())
        assert (await holder.join(THREAD, head)).gap is None
        assert (await sender.publish(THREAD)).seq == 4
        assert numbers((await holder.join(THREAD, head)).frames) in ([4], [])


async def test_forgotten_thread_begins_a_new_epoch_and_a_resuming_client_gets_a_gap(location: StoreLocation) -> None:
    if not location.kind.forgets_threads:
        return
    async with location.worker(Retention(threads=2)) as worker:
        held, forgotten = await published(worker, 3), await published(worker, 3, OTHER)
        await worker.join(THREAD)
        for number in range(5):
            await worker.publish(ThreadId(f"thread_new_{number}"))
        assert (await worker.join(THREAD, Cursor(held.epoch, 1))).gap is None, "a thread with sockets is not forgotten"
        replay = await worker.join(OTHER, Cursor(forgotten.epoch, 1))
        assert replay.gap is not None
        assert (replay.gap.epoch, replay.gap.last) == (forgotten.epoch, None)
        assert replay.cursor.epoch != forgotten.epoch
        assert (await worker.publish(OTHER)).seq == 1


@pytest.mark.parametrize("before", [0, 1, 5])
async def test_socket_that_joins_during_publishing_reads_each_event_once(location: StoreLocation, before: int) -> None:
    """Provokes the race: some events are published before, some during, and some between join and replay."""
    async with location.workers() as (sender, holder):
        cursor = (await holder.join(THREAD)).cursor
        holder.leave(THREAD)
        for number in range(before):
            await sender.publish(THREAD, number)
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(sender.publish, THREAD, number)
            await anyio.wait_all_tasks_blocked()
            await holder.log.join(THREAD)
            holder.sockets[THREAD] += 1
            for number in range(3):
                tasks.start_soon(sender.publish, THREAD, number)
            await anyio.wait_all_tasks_blocked()
            replay = await holder.log.replay(THREAD, cursor)
            for number in range(3):
                tasks.start_soon(sender.publish, THREAD, number)
        assert replay.gap is None
        with anyio.fail_after(WAIT_SECONDS):
            while len(read := merged(replay, holder.received[THREAD])) < before + 9:
                await anyio.lowlevel.checkpoint()
        assert numbers(read) == list(range(1, before + 10))


async def test_socket_that_joins_without_a_cursor_gets_every_later_event(location: StoreLocation) -> None:
    async with location.workers() as (sender, holder):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(sender.publish, THREAD, number)
            await anyio.wait_all_tasks_blocked()
            replay = await holder.join(THREAD)
            for number in range(5):
                tasks.start_soon(sender.publish, THREAD, number)
        with anyio.fail_after(WAIT_SECONDS):
            while numbers(read := merged(replay, holder.received[THREAD]))[-1:] != [25]:
                await anyio.lowlevel.checkpoint()
        assert numbers(read) == list(range(replay.cursor.seq + 1, 26))
