"""The log while connections are cut or silently dead: nothing is lost or duplicated, and health is correct."""

from __future__ import annotations

import anyio
import pytest

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Receipt
from bridgekit.stores.redis.log import RedisEventLog
from bridgekit.stores.redis.subscriptions import PubSubReader
from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit.transport.log import Retention
from bridgekit_verify.faults.redis_servers import redis_server
from bridgekit_verify.faults.toxics import Direction, Partition
from tests.factories import THREAD
from tests.stores.redis.workers import (
    POLL_SECONDS,
    SOON_SECONDS,
    RecordingSink,
    publish,
    publish_and_wait,
    redis_worker,
    through_proxy,
    until_server_replies,
)

pytestmark = pytest.mark.slow


async def test_events_are_appended_once_when_the_reply_is_lost() -> None:
    async with redis_server() as server, through_proxy(server) as (through, worker):
        log = worker.topology.names.thread(THREAD).log.decode()
        receipts: list[Receipt] = []

        async def publish_two() -> None:
            receipts.extend(await publish_and_wait(worker, "a", "b"))

        with through.start(Partition(directions=(Direction.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish_two)
                await until_server_replies(server, ("XLEN", log), "1")
                with through.down():
                    held.stop()
        # On a busy machine, either may take long enough to be PENDING.
        assert all(receipt.seq in (None, seq) for seq, receipt in enumerate(receipts, 1))
        await until_server_replies(server, ("XLEN", log), "2")
        await publish(worker, "c")
        replay = await worker.log.replay(THREAD, Cursor("0" * 16, 0))
        assert [frame.event.payload["text"] for frame in replay.frames] == ["a", "b", "c"]


@pytest.mark.parametrize("keep", [Retention(), Retention(events=0)], ids=["kept", "not kept"])
async def test_killed_subscription_is_replaced_and_missed_events_are_read(keep: Retention) -> None:
    async with (
        redis_server() as server,
        redis_worker(server.url, keep=keep) as reader,
        redis_worker(server.url, keep=keep) as writer,
    ):
        await reader.log.join(THREAD)

        async def kill_again_and_again() -> None:
            for _ in range(3):
                await server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await reader.until_healthy(healthy=False)
                await reader.until_healthy()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_again_and_again)
            for number in range(100):
                await publish(writer, number)
        numbers = reader.sink.numbers()
        if keep.events:
            await reader.sink.until_delivered(100)
            assert reader.sink.texts() == list(range(100))
            assert reader.sink.restarts == []
        else:
            # Events published meanwhile are lost, so clients reconnect and get a gap. The others arrived in order.
            assert numbers == sorted(set(numbers))
            assert set(reader.sink.restarts) == {THREAD}


async def test_events_published_during_a_lost_connection_arrive_without_a_later_event() -> None:
    async with redis_server() as server, redis_worker(server.url) as writer, through_proxy(server) as (through, reader):
        await reader.log.join(THREAD)
        await publish(writer, "a")
        await reader.sink.until_delivered(1)
        with through.down():
            await publish(writer, "b", "c")
            await reader.until_healthy(healthy=False)
        await reader.sink.until_delivered(3)
        assert reader.sink.texts() == ["a", "b", "c"]


async def test_silently_dead_subscription_is_detected_and_replaced(short_timeouts: None) -> None:
    """Both ends see an open connection, but it carries no bytes."""
    async with redis_server() as server, redis_worker(server.url) as writer, through_proxy(server) as (through, reader):
        await reader.log.join(THREAD)
        with through.start(Partition(directions=(Direction.TO_CLIENT,))) as held:
            await publish(writer, "a", "b")
            await reader.until_healthy(healthy=False)
            assert reader.sink.numbers() == []
            held.stop()
        await reader.sink.until_delivered(2)
        await reader.until_healthy()
        assert reader.sink.texts() == ["a", "b"]


async def test_subscription_at_another_server_than_the_publisher_is_detected(short_timeouts: None) -> None:
    """The host name resolved to one server for the publishing connection, and resolves to another one now."""
    async with (
        redis_server() as one,
        redis_server() as other,
        ClusterTopology(one.url) as topology,
        ClusterTopology(other.url) as elsewhere,
        anyio.create_task_group() as tasks,
    ):
        [node], [stray] = topology, elsewhere
        stray.request = node.request  # type: ignore[method-assign]  # commands go there, subscriptions here
        read = RedisEventLog(topology)._read
        reader = PubSubReader(stray, elsewhere, "worker", read, RecordingSink)
        tasks.start_soon(reader.run)
        with anyio.fail_after(SOON_SECONDS):
            while "different servers" not in reader.problem:  # noqa: ASYNC110  # a problem sets no event
                await anyio.sleep(POLL_SECONDS)
        assert not reader.live.is_set()
        tasks.cancel_scope.cancel()
