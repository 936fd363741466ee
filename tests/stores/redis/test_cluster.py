"""The log on a Cluster of three real servers: threads on different nodes, slots that move, nodes that fail."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Outcome
from bridgekit.ids import ThreadId
from bridgekit_verify.faults.redis_servers import RedisServer
from tests.servers import SharedCluster
from tests.stores.redis.workers import POLL_SECONDS, SOON_SECONDS, RedisWorker, event_with, publish, redis_worker

pytestmark = pytest.mark.slow


@pytest.fixture
async def workers(redis_cluster: SharedCluster, prefix: str) -> AsyncIterator[tuple[RedisWorker, RedisWorker]]:
    """A worker that writes and one that reads, each opened with the address of a different node."""
    async with (
        redis_worker(redis_cluster.servers[0].url, prefix) as writer,
        redis_worker(redis_cluster.servers[1].url, prefix) as reader,
    ):
        yield writer, reader


def threads_of(worker: RedisWorker, server: RedisServer, count: int) -> list[ThreadId]:
    """Return threads whose slots this server has."""
    found = []
    for number in range(10_000):
        thread = ThreadId(f"thread_{number}")
        owner = worker.topology.node_for_slot(worker.topology.names.thread(thread).slot)
        if owner is not None and str(server.port) in repr(owner):
            found.append(thread)
            if len(found) == count:
                return found
    raise AssertionError("it has no slots")


async def migrate(slot: int, here: RedisServer, there: RedisServer) -> None:
    """Move a slot with its keys to another node. Valkey 9 does it in the background."""
    node = (await there.ask("CLUSTER", "MYID")).strip()
    await here.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", str(slot), str(slot), "NODE", node)


@pytest.mark.usefixtures("long_timeouts")
async def test_threads_on_every_node_are_written_read_and_resumed(workers: tuple[RedisWorker, RedisWorker]) -> None:
    writer, reader = workers
    threads = [ThreadId(f"thread_{number}") for number in range(30)]
    assert len({writer.topology.node_for_slot(writer.topology.names.thread(thread).slot) for thread in threads}) == 3
    for thread in threads:
        await reader.log.join(thread)
    async with anyio.create_task_group() as tasks:
        for number in range(10):
            for thread in threads:
                tasks.start_soon(writer.publish, event_with(number, thread_id=thread))
    for thread in threads:
        await reader.sink.until_delivered(10, thread)
        assert reader.sink.numbers(thread) == list(range(1, 11))
        replay = await reader.log.replay(thread, Cursor("0" * 16, 0))
        assert list(replay.frames) == reader.sink.frames[thread]


@pytest.mark.usefixtures("long_timeouts")
async def test_moving_a_slot_loses_no_event_and_no_connection(
    workers: tuple[RedisWorker, RedisWorker], redis_cluster: SharedCluster
) -> None:
    writer, reader = workers
    here, there, _ = redis_cluster.servers
    [thread] = threads_of(writer, here, 1)
    slot = writer.topology.names.thread(thread).slot
    await reader.log.join(thread)
    outcomes: list[Outcome] = []
    moved = anyio.Event()
    writer.topology.on_change(moved.set)

    async def publish_on() -> None:
        while not (moved.is_set() and outcomes[-20:] == [Outcome.RELAYED] * 20):
            outcomes.append((await writer.log.publish(event_with(len(outcomes), thread_id=thread))).outcome)
            await checkpoint()  # a publisher that is answered immediately lets no other task run

    with anyio.fail_after(SOON_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_on)
            await migrate(slot, here, there)
    assert set(outcomes) <= {Outcome.RELAYED, Outcome.PENDING, Outcome.NO_SUBSCRIBER}
    await reader.sink.until_delivered(len(outcomes), thread)
    assert reader.sink.texts(thread) == list(range(len(outcomes)))
    assert reader.sink.restarts == []


async def test_hanging_node_delays_no_event_of_other_nodes(
    workers: tuple[RedisWorker, RedisWorker], redis_cluster: SharedCluster
) -> None:
    writer, reader = workers
    hanging, alive, _ = redis_cluster.servers
    [stuck], [sound] = threads_of(writer, hanging, 1), threads_of(writer, alive, 1)
    for thread in (stuck, sound):
        await reader.log.join(thread)
    hanging.stop()
    try:
        assert (await writer.publish(event_with("waits", thread_id=stuck))).outcome == Outcome.PENDING
        # Longer than its connections need to time out and the layout needs to be read again.
        [node] = [node for node in writer.topology if str(hanging.port) in repr(node)]
        arrived = 0
        with anyio.fail_after(SOON_SECONDS):
            while not node.failing.is_set():
                [receipt] = await publish(writer, "arrives", thread_id=sound)
                assert receipt.outcome == Outcome.RELAYED
                arrived += 1
        assert arrived > 20, "not one for each timeout"
    finally:
        hanging.resume()
    await reader.sink.until_delivered(1, stuck)
    assert reader.sink.texts(stuck) == ["waits"]
    for each in workers:
        await each.until_healthy()


@pytest.mark.usefixtures("long_timeouts")
async def test_migrating_a_slot_key_by_key_loses_no_event(
    workers: tuple[RedisWorker, RedisWorker], redis_cluster: SharedCluster
) -> None:
    """During the move, the old node replies ASK for keys that it no longer has."""
    writer, reader = workers
    here, there, third = redis_cluster.servers
    [thread] = threads_of(writer, here, 1)
    log, head, slot = writer.topology.names.thread(thread)
    await reader.log.join(thread)
    await publish(writer, "before", thread_id=thread)
    nodes = [(await server.ask("CLUSTER", "MYID")).strip() for server in (here, there)]
    await there.ask("CLUSTER", "SETSLOT", str(slot), "IMPORTING", nodes[0])
    await here.ask("CLUSTER", "SETSLOT", str(slot), "MIGRATING", nodes[1])
    keys = [log.decode(), head.decode()]
    await here.ask("MIGRATE", "127.0.0.1", str(there.port), "", "0", "5000", "KEYS", *keys)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.publish, event_with("during", thread_id=thread))
        [pipeline] = [each for each in writer.log._pipelines.values() if str(here.port) in repr(each.node)]
        with anyio.fail_after(SOON_SECONDS):
            while f":{there.port}" not in pipeline.sender.problem:  # noqa: ASYNC110  # a problem sets no event
                await anyio.sleep(POLL_SECONDS)
        for server in (there, here, third):
            await server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", nodes[1])
    await publish(writer, "after", thread_id=thread)
    await reader.sink.until_delivered(3, thread)
    assert reader.sink.texts(thread) == ["before", "during", "after"]
    assert reader.sink.restarts == []


async def test_killed_node_affects_only_its_own_threads(
    workers: tuple[RedisWorker, RedisWorker], redis_cluster: SharedCluster
) -> None:
    writer, reader = workers
    killed, alive, third = redis_cluster.servers
    [stuck], [sound, another] = threads_of(writer, killed, 1), threads_of(writer, alive, 2)
    moved = anyio.Event()
    writer.topology.on_change(moved.set)
    for thread in (stuck, sound):
        await reader.log.join(thread)
    await writer.log.publish(event_with("before", thread_id=stuck))
    redis_cluster.kill(killed)
    try:
        assert (await writer.log.publish(event_with("waits", thread_id=stuck))).outcome == Outcome.PENDING
        for number in range(20):
            [receipt] = await publish(writer, number, thread_id=sound)
            assert receipt.outcome == Outcome.RELAYED
        assert not writer.log.healthy
        # Events that wait for one server are not lost when slots of other servers move.
        await migrate(writer.topology.names.thread(another).slot, alive, third)
        with anyio.fail_after(SOON_SECONDS):
            await moved.wait()
    finally:
        redis_cluster.start(killed)
    await reader.sink.until_delivered(2, stuck)
    assert reader.sink.texts(stuck) == ["before", "waits"]
    assert reader.sink.restarts == []
    for each in workers:
        await each.until_healthy()
