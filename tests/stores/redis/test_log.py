"""The log on a real server: delivery to all workers, bursts, and cases that the contract suite does not cover."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import EventType, Frame, Outcome, encode_unnumbered, numbered
from bridgekit.ids import RunId, ThreadId
from bridgekit.stores.redis.log import RedisEventLog
from bridgekit_verify.faults.redis_servers import redis_server
from tests.factories import OTHER, THREAD
from tests.stores.redis.workers import RecordingSink, RedisWorker, event_with, redis_worker
from tests.stores.redis.workers import publish as publish_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("long_timeouts")]


async def publish(worker: RedisWorker, *texts: object, thread_id: ThreadId = THREAD) -> Cursor:
    """Publish the events one by one, and return the thread's position after the last."""
    [*_, last] = await publish_all(worker, *texts, thread_id=thread_id)
    return Cursor(str(last.epoch), int(last.seq or 0))


async def test_event_reaches_every_worker_that_joined_its_thread_and_no_other(url: str, prefix: str) -> None:
    async with (
        redis_worker(url, prefix) as agents,
        redis_worker(url, prefix) as one,
        redis_worker(url, prefix) as two,
        redis_worker(url, prefix) as other,
    ):
        for each in (one, two):
            await each.log.join(THREAD)
        await other.log.join(OTHER)
        receipt = await agents.log.publish(event_with())
        assert (receipt.outcome, receipt.workers, receipt.seq, receipt.kept) == (Outcome.RELAYED, 2, 1, True)
        assert receipt
        for each in (one, two):
            await each.sink.until_delivered(1)
        await agents.log.publish(event_with(thread_id=OTHER))
        await other.sink.until_delivered(1, OTHER)
        assert [dict.fromkeys(each.sink.frames) for each in (agents, one, two, other)] == [
            {}, {THREAD: None}, {THREAD: None}, {OTHER: None}
        ]  # fmt: skip


async def test_frame_is_the_event_with_its_seq(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        await worker.log.join(THREAD)
        event = event_with('straße 𐍈\n"{', run_id=RunId("run_7"), type=EventType.TOOL_EXECUTING)
        await worker.log.publish(event_with())
        await worker.log.publish(event)
        await worker.sink.until_delivered(2)
        assert worker.sink.frames[THREAD][1].data == numbered(2, encode_unnumbered(event))
        replay = await worker.log.replay(THREAD, Cursor(str((await worker.log.publish(event_with())).epoch), 1))
        assert replay.frames[0].data == numbered(2, encode_unnumbered(event))


async def test_applications_with_different_prefixes_share_nothing(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as one, redis_worker(url, f"{prefix}-2") as two:
        await two.log.join(THREAD)
        assert (await one.log.publish(event_with())).workers == 0
        assert (await two.log.publish(event_with())).seq == 1


async def test_events_keep_their_publisher_order_and_each_has_its_own_seq(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as one, redis_worker(url, prefix) as two:
        await one.log.join(THREAD)

        async def run(worker: RedisWorker, name: str) -> None:
            for number in range(30):
                assert (await worker.log.publish(event_with(f"{name} {number:02}"))).outcome == Outcome.RELAYED

        async with anyio.create_task_group() as tasks:
            for worker, names in ((one, "abc"), (two, "xyz")):
                for name in names:
                    tasks.start_soon(run, worker, name)
        await one.sink.until_delivered(180)
        assert one.sink.numbers() == list(range(1, 181))
        texts = [str(text) for text in one.sink.texts()]
        for name in "abcxyz":
            assert [text for text in texts if text[0] == name] == [f"{name} {number:02}" for number in range(30)]


async def test_message_of_another_program_loses_no_event(url: str, prefix: str) -> None:
    """Another program with access to the server publishes to the thread's channel."""
    async with redis_worker(url, prefix) as worker:
        await worker.log.join(THREAD)
        channel, _, slot = worker.topology.names.thread(THREAD)
        for rubbish in (b"", b"rubbish", b"a b c\n{}", b"\xff 1 2", b"0000000000000000 0 1\n{}"):
            assert await worker.topology.call(slot, b"SPUBLISH", channel, rubbish) == 1
        await publish(worker, "a", "b")
        await worker.sink.until_delivered(2)
        assert worker.sink.texts() == ["a", "b"]


async def test_stopping_worker_sends_its_backlog_and_refuses_more(prefix: str) -> None:
    async with redis_server() as server, redis_worker(server.url, prefix) as reader:
        await reader.log.join(THREAD)

        async def resume() -> None:
            await anyio.wait_all_tasks_blocked()
            server.resume()

        async with anyio.create_task_group() as tasks, redis_worker(server.url, prefix) as ending:
            server.stop()
            for number in range(100):
                tasks.start_soon(ending.publish, event_with(number))
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(resume)
        await reader.sink.until_delivered(100)
        receipt = await ending.log.publish(event_with("late"))
        assert (receipt.outcome, "shutting down" in receipt.reason) == (Outcome.REFUSED, True)


async def test_log_is_healthy_only_as_long_as_it_is_open(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as worker:
        assert worker.log.healthy
        log = RedisEventLog(worker.topology)
        assert not log.healthy
    await worker.until_healthy(healthy=False)


class BoundedSink(RecordingSink):
    """One socket for each thread, with a limited outbox that is written to in each iteration of the event loop."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.waiting: Counter[ThreadId] = Counter()
        self.overflowed = False
        self.stalled: dict[ThreadId, anyio.Event] = {}
        """Threads whose client does not read until the event is set."""
        self._events = events

    def deliver(self, thread_id: ThreadId, frame: Frame) -> int:
        self.waiting[thread_id] += 1
        self.overflowed = self.overflowed or self.waiting[thread_id] > self._events
        return super().deliver(thread_id, frame)

    async def wait_for_room(self, thread_id: ThreadId) -> None:
        if thread_id in self.stalled:
            await self.stalled[thread_id].wait()
        if self.waiting[thread_id] >= self._events // 2:
            await anyio.lowlevel.checkpoint()
            self.waiting[thread_id] = 0


@pytest.mark.parametrize("padding", [0, 10_000])
async def test_burst_does_not_overflow_the_outbox_of_a_client_that_reads(url: str, prefix: str, padding: int) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        sink = BoundedSink(256)
        reader.log.bind(sink)
        await reader.log.join(THREAD)
        async with anyio.create_task_group() as tasks:
            for number in range(2_000):
                tasks.start_soon(writer.publish, event_with(f"{number} {'x' * padding}"))
        await sink.until_delivered(2_000)
        assert sink.numbers() == list(range(1, 2_001))
        assert not sink.overflowed


async def test_client_that_does_not_read_delays_no_other_thread(url: str, prefix: str) -> None:
    async with redis_worker(url, prefix) as writer, redis_worker(url, prefix) as reader:
        sink = BoundedSink(256)
        sink.stalled[OTHER] = anyio.Event()
        reader.log.bind(sink)
        for thread in (THREAD, OTHER):
            await reader.log.join(thread)
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(writer.publish, event_with(number, thread_id=OTHER))
        await publish(writer, *range(20))
        await sink.until_delivered(20)
        assert len(sink.frames[OTHER]) < 256
        sink.stalled.pop(OTHER).set()
        await sink.until_delivered(500, OTHER)
        assert sink.numbers(OTHER) == list(range(1, 501))
        assert not sink.overflowed
