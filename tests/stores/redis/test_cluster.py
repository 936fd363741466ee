"""The broker over a Cluster of three real servers: threads live on different ones, move, and share nobody's fate."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest
from anyio.lowlevel import checkpoint

from bridgekit.events import Outcome
from bridgekit.ids import ThreadId
from bridgekit.signals import Cursor
from bridgekit_verify.faults.redis_servers import RedisServer
from tests.servers import SharedCluster
from tests.stores.redis.workers import SOON_SECONDS, RedisWorker, event_with, publish, redis_worker

pytestmark = pytest.mark.slow


@pytest.fixture
async def workers(redis_cluster: SharedCluster, prefix: str) -> AsyncIterator[tuple[RedisWorker, RedisWorker]]:
    """One that writes, and one that reads and was given the address of another server."""
    async with (
        redis_worker(redis_cluster.servers[0].url, prefix) as writer,
        redis_worker(redis_cluster.servers[1].url, prefix) as reader,
    ):
        yield writer, reader


def threads_of(worker: RedisWorker, server: RedisServer, count: int) -> list[ThreadId]:
    """Threads that this server has."""
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
    """Have a slot move with all that is in it. Valkey 9 does it in the background."""
    node = (await there.ask("CLUSTER", "MYID")).strip()
    await here.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", str(slot), str(slot), "NODE", node)


@pytest.mark.usefixtures("patient")
async def test_threads_of_all_servers_are_written_read_and_resumed(workers: tuple[RedisWorker, RedisWorker]) -> None:
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


@pytest.mark.usefixtures("patient")
async def test_slot_that_moves_while_events_flow_costs_none_and_nobody_is_sent_away(
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
            await checkpoint()  # who publishes to a server that is away is answered at once, and lets nobody else run

    with anyio.fail_after(SOON_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish_on)
            await migrate(slot, here, there)
    assert set(outcomes) <= {Outcome.RELAYED, Outcome.PENDING, Outcome.NOBODY_LISTENING}
    await reader.sink.until_delivered(len(outcomes), thread)
    assert reader.sink.texts(thread) == list(range(len(outcomes)))
    assert reader.sink.restarts == []


async def test_server_that_is_killed_is_the_trouble_of_its_own_threads_only(
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
        # What waits for one server is not lost when slots of others move.
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
