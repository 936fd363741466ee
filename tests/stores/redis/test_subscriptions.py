"""The subscription to one server by itself: which confirmation is whose, and what ends it."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from bridgekit.storage.redis_door import Door
from bridgekit.transport.broker.redis_listening import Listener
from bridgekit.transport.broker.redis_order import Joined

from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit_verify.faults.proxy import proxy
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.faults.toxics import Partition, Way
from tests.samples import THREAD
from tests.stores.redis.workers import SOON_SECONDS, RecordingSink

pytestmark = pytest.mark.slow


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(SOON_SECONDS):
        while not holds():  # noqa: ASYNC110  # what a listener knows is read, not waited for
            await anyio.sleep(0.005)


async def until_channels(server: RedisServer, count: int) -> None:
    """Wait until the server has so many channels: the listener's own, and threads'."""
    with anyio.fail_after(SOON_SECONDS):
        while f"pubsubshard_channels:{count}\r" not in await server.ask("INFO", "stats"):  # noqa: ASYNC110
            await anyio.sleep(0.005)


async def test_confirmation_of_a_subscription_that_was_given_up_is_not_taken_for_that_of_the_next_one() -> None:
    """A way that is slow in one direction, then in the other; commands and answers do not go by it."""
    async with (
        redis_server() as server,
        proxy("127.0.0.1", server.port) as through,
        ClusterTopology(server.url) as servers,
        anyio.create_task_group() as tasks,
    ):
        [direct] = servers
        slow = Server(Door.of(through.url("redis")), lambda: None)
        slow.line, slow.slots = direct.line, direct.slots
        to_read: list[Joined] = []
        listener = Listener(slow, servers, "worker", RecordingSink(), to_read.append)
        tasks.start_soon(listener.run)
        await listener.proven()
        given_up, wanted = (Joined(THREAD, servers.names.thread(THREAD)) for _ in range(2))
        answers = through.start(Partition(ways=(Way.TO_CLIENT,)))
        listener.add(given_up)
        await until_channels(server, 2)
        listener.remove(given_up)
        await until_channels(server, 1)
        commands = through.start(Partition(ways=(Way.TO_SERVER,)))
        listener.add(wanted)
        answers.stop()
        await until(lambda: not listener._leaving)
        assert to_read == []
        commands.stop()
        await until(lambda: to_read == [wanted])
        assert listener.alive
        tasks.cancel_scope.cancel()


async def test_subscription_that_is_refused_ends_the_connection_and_is_asked_for_again() -> None:
    """A user who may not listen to anything, until he may."""
    async with redis_server() as server, ClusterTopology(server.url) as servers, anyio.create_task_group() as tasks:
        await server.ask("ACL", "SETUSER", "default", "resetchannels")
        [only] = servers
        listener = Listener(only, servers, "worker", RecordingSink(), lambda joined: None)
        tasks.start_soon(listener.run)
        await until(lambda: "channel" in listener.problem)
        assert not listener.alive
        await server.ask("ACL", "SETUSER", "default", "allchannels")
        with anyio.fail_after(SOON_SECONDS):
            await listener.proven()
        tasks.cancel_scope.cancel()
