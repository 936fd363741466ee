"""The broker over a real server that is well: who joins, leaves, resumes, and what each is told."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.events import Outcome
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor, Gap, GapReason
from bridgekit.transport.log import Keep, Replay
from tests.samples import OTHER, THREAD
from tests.transport.broker.redis_workers import RedisWorker, redis_worker, said
from tests.transport.broker.redis_workers import publish as publish_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("patient")]


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> Cursor:
    """Publish one after the other; where the thread is after that."""
    [*_, last] = await publish_all(worker, *texts, thread_id=thread_id)
    return Cursor(str(last.epoch), int(last.seq or 0))


async def test_thread_is_left_when_the_last_socket_leaves_and_can_be_joined_again(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        await worker.broker.join(THREAD)
        worker.broker.leave(THREAD)
        assert (await worker.broker.publish(said())).workers == 1
        worker.broker.leave(THREAD)
        # Each of these waits for its own confirmation, not for that of a subscription before it.
        for _ in range(5):
            await worker.broker.join(THREAD)
            assert (await worker.broker.publish(said())).workers == 1
            worker.broker.leave(THREAD)


async def test_socket_that_gives_up_joining_leaves_nothing_behind(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.broker.join(THREAD)
        assert scope.cancelled_caught
        await worker.broker.join(OTHER)
        assert (await worker.broker.publish(said())).workers == 0


async def test_joining_and_leaving_at_once_ends_as_the_last_word_was(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await worker.broker.join(THREAD)
            tasks.start_soon(worker.broker.join, THREAD)
        await worker.broker.publish(said("heard"))
        await worker.sink.until_delivered(1)
        assert worker.sink.texts() == ["heard"]


async def test_socket_that_resumes_is_given_all_that_came_after_its_cursor(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        head = await publish(writer, "a", "b", "c")
        await reader.broker.join(THREAD)
        after = Cursor(head.epoch, 1)
        replay = await reader.broker.replay(THREAD, after)
        assert (replay.cursor, [frame.seq for frame in replay.frames], replay.gap) == (after, [2, 3], None)
        assert await reader.broker.replay(THREAD, head) == Replay(head)
        assert await reader.broker.replay(THREAD, None) == Replay(head)


async def test_thread_of_which_nothing_is_known_has_an_epoch_that_the_first_event_keeps(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.broker.join(THREAD)
        begin = (await worker.broker.replay(THREAD, None)).cursor
        assert begin.seq == 0
        assert await publish(worker, "a") == Cursor(begin.epoch, 1)
        await worker.sink.until_delivered(1)
        assert worker.sink.restarts == []


async def test_events_during_a_replay_are_in_it_or_delivered_or_both(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        head = await publish(writer, "first")

        async def write() -> None:
            for number in range(50):
                await writer.broker.publish(said(number))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await reader.broker.join(THREAD)
            replay = await reader.broker.replay(THREAD, head)
        await reader.sink.until(lambda: reader.sink.numbers()[-1:] == [51] or replay.frames[-1].seq == 51)
        seen = {frame.seq for frame in replay.frames} | set(reader.sink.numbers())
        assert seen >= set(range(2, 52))
        assert reader.sink.numbers() == sorted(set(reader.sink.numbers()))


async def test_cursor_before_what_is_kept_is_answered_by_the_gap_and_nothing_else(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=2)) as worker:
        head = await publish(worker, "a", "b", "c", "d")
        replay = await worker.broker.replay(THREAD, Cursor(head.epoch, 1))
        gap = Gap(thread_id=THREAD, epoch=head.epoch, first=2, last=4, reason=GapReason.EXPIRED)
        assert replay == Replay(head, gap=gap)
        assert len((await worker.broker.replay(THREAD, Cursor(head.epoch, 2))).frames) == 2


async def test_cursor_of_another_numbering_is_answered_by_its_gap_and_all_of_this_one(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=3)) as worker:
        await publish(worker, "a", "b")
        strange = Cursor("0" * 16, 7)
        gap = Gap(thread_id=THREAD, epoch=strange.epoch, first=8, last=None, reason=GapReason.RESTARTED)
        replay = await worker.broker.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (0, [1, 2], gap)
        head = await publish(worker, "c", "d")
        replay = await worker.broker.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (1, [2, 3, 4], gap)
        assert replay.expired == Gap(thread_id=THREAD, epoch=head.epoch, first=1, last=1, reason=GapReason.EXPIRED)


async def test_cursor_ahead_of_the_log_is_answered_by_a_gap_to_an_unknown_end(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        head = await publish(worker, "a")
        replay = await worker.broker.replay(THREAD, Cursor(head.epoch, 9))
        gap = Gap(thread_id=THREAD, epoch=head.epoch, first=10, last=None, reason=GapReason.RESTARTED)
        assert replay == Replay(head, gap=gap)


async def test_where_nothing_is_kept_events_are_delivered_and_said_not_to_be_kept(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Keep(events=0)) as worker:
        await worker.broker.join(THREAD)
        receipt = await worker.broker.publish(said("a"))
        assert (receipt.outcome, receipt.kept) == (Outcome.RELAYED, False)
        await publish(worker, "b")
        await worker.sink.until_delivered(2)
        replay = await worker.broker.replay(THREAD, Cursor(str(receipt.epoch), 0))
        assert (replay.frames, replay.gap is not None) == ((), True)
