"""Joining and leaving a thread of the log on a real server."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor, Gap, GapReason
from bridgekit.ids import ThreadId
from bridgekit.transport.log import Retention
from tests.factories import OTHER, THREAD
from tests.stores.redis.workers import RedisWorker, event_with, redis_worker
from tests.stores.redis.workers import publish as publish_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("long_timeouts")]


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> Cursor:
    """Publish the events one by one, and return the thread's position after the last."""
    [*_, last] = await publish_all(worker, *texts, thread_id=thread_id)
    return Cursor(str(last.epoch), int(last.seq or 0))


async def test_thread_is_unsubscribed_when_its_last_socket_leaves_and_can_be_joined_again(
    url: str, prefix: str
) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.log.join(THREAD)
        await worker.log.join(THREAD)
        worker.log.leave(THREAD)
        assert (await worker.log.publish(event_with())).workers == 1
        worker.log.leave(THREAD)
        # Each join waits for its own confirmation, and not for that of an earlier subscription.
        for _ in range(5):
            await worker.log.join(THREAD)
            assert (await worker.log.publish(event_with())).workers == 1
            worker.log.leave(THREAD)


async def test_cancelled_join_leaves_no_subscription(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await worker.log.join(THREAD)
        assert scope.cancelled_caught
        await worker.log.join(OTHER)
        assert (await worker.log.publish(event_with())).workers == 0


async def test_last_of_several_joins_and_leaves_decides(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await worker.log.join(THREAD)
            tasks.start_soon(worker.log.join, THREAD)
        await worker.log.publish(event_with("read"))
        await worker.sink.until_delivered(1)
        assert worker.sink.texts() == ["read"]


async def test_cursor_of_another_epoch_gets_a_gap_and_the_whole_epoch(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix, keep=Retention(events=3)) as worker:
        await publish(worker, "a", "b")
        strange = Cursor("0" * 16, 7)
        gap = Gap(thread_id=THREAD, epoch=strange.epoch, first=8, last=None, reason=GapReason.RESTARTED)
        replay = await worker.log.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (0, [1, 2], gap)
        head = await publish(worker, "c", "d")
        replay = await worker.log.replay(THREAD, strange)
        assert (replay.cursor.seq, [frame.seq for frame in replay.frames], replay.gap) == (1, [2, 3, 4], gap)
        assert replay.expired == Gap(thread_id=THREAD, epoch=head.epoch, first=1, last=1, reason=GapReason.EXPIRED)
