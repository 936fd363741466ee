"""The subscriptions at one node: matching confirmations to requests, and what ends the connection."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from bridgekit.ids import ThreadId
from bridgekit.stores.redis.delivery import ThreadDelivery
from bridgekit.stores.redis.log import RedisEventLog
from bridgekit.stores.redis.subscriptions import PubSubReader
from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.faults.toxics import Direction, Partition
from tests.factories import THREAD
from tests.stores.redis.workers import POLL_SECONDS, SOON_SECONDS, RecordingSink

pytestmark = pytest.mark.slow


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SOON_SECONDS):
        while not condition():  # noqa: ASYNC110  # a reader's state sets no event
            await anyio.sleep(POLL_SECONDS)


async def until_channels(server: RedisServer, count: int) -> None:
    """Wait until the server has this many channels: the reader's own and those of threads."""
    with anyio.fail_after(SOON_SECONDS):
        while f"pubsubshard_channels:{count}\r" not in await server.ask("INFO", "stats"):  # noqa: ASYNC110
            await anyio.sleep(POLL_SECONDS)


def reader_of(topology: ClusterTopology) -> PubSubReader:
    [node] = topology
    return PubSubReader(node, topology, "worker", RedisEventLog(topology)._read, RecordingSink)


def thread_of(topology: ClusterTopology, thread_id: ThreadId = THREAD) -> ThreadDelivery:
    thread = ThreadDelivery(thread_id, topology.names.thread(thread_id))
    thread.sockets = 1
    return thread


async def test_confirmation_of_a_cancelled_subscription_does_not_confirm_the_next_one(
    long_timeouts: None,
) -> None:
    """The subscription connection is slow in one direction, then in the other. Commands use another connection."""
    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        ClusterTopology(server.url) as direct,
        ClusterTopology(through.url("redis")) as slow,
        anyio.create_task_group() as tasks,
    ):
        reader = reader_of(slow)
        [node], [slow_node] = direct, slow
        slow_node.request = node.request  # type: ignore[method-assign]
        tasks.start_soon(reader.run)
        await reader.live.wait()
        given_up, wanted = thread_of(slow), thread_of(slow)
        replies = through.start(Partition(directions=(Direction.TO_CLIENT,)))
        reader.add(given_up)
        await until_channels(server, 2)
        reader.remove(given_up)
        await until_channels(server, 1)
        commands = through.start(Partition(directions=(Direction.TO_SERVER,)))
        reader.add(wanted)
        other = thread_of(slow, ThreadId("another"))
        replies.stop()
        # Once a later message has arrived, both confirmations of the cancelled subscription have arrived before it.
        commands.stop()
        reader.add(other)
        await until(other.ready.is_set)
        assert not given_up.ready.is_set()
        assert wanted.ready.is_set()
        assert reader.live.is_set()
        tasks.cancel_scope.cancel()


async def test_refused_subscription_ends_the_connection_and_is_retried() -> None:
    """The server's user is not allowed to subscribe to channels, and later is."""
    async with redis_server() as server, ClusterTopology(server.url) as topology, anyio.create_task_group() as tasks:
        await server.ask("ACL", "SETUSER", "default", "resetchannels")
        reader = reader_of(topology)
        tasks.start_soon(reader.run)
        await until(lambda: "channel" in reader.problem)
        assert not reader.live.is_set()
        await server.ask("ACL", "SETUSER", "default", "allchannels")
        with anyio.fail_after(SOON_SECONDS):
            await reader.live.wait()
        tasks.cancel_scope.cancel()
