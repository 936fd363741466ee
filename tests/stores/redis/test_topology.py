"""ClusterTopology behind a URL: found, asked in time, lost and found again. And what is said of them holds no secret."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from bridgekit.storage.redis_line import AWAY_SECONDS, SILENCE_SECONDS, Backoff

from bridgekit.errors import InvalidId, StoreAway
from bridgekit.ids import new_id
from bridgekit.storage import redis, redis_line
from bridgekit.stores import REDIS_REQUIREMENT, redis_stores
from bridgekit.stores.redis.functions import GET_ROUTE
from bridgekit.stores.redis.topology import ClusterTopology
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.faults.toxics import Partition, Way
from tests.patience import PATIENCE_SECONDS
from tests.servers import SharedCluster

pytestmark = pytest.mark.slow

SECRET = "hunter2"


WELL = pytest.mark.usefixtures("patient")


async def refusal(url: str) -> StoreAway:
    """Why an application does not start. It is given as little time to find out as it takes."""
    for seconds in (0.2, 1.0, 5.0):
        if "not connected yet" not in str(told := await refusal_within(seconds, url)):
            return told
    return await refusal_within(PATIENCE_SECONDS, url)


async def refusal_within(seconds: float, url: str) -> StoreAway:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis, "OPEN_SECONDS", seconds)
        with pytest.raises(StoreAway) as away:
            async with ClusterTopology(url):
                raise AssertionError("it was opened")
    return away.value


@asynccontextmanager
async def through_proxy(server: RedisServer) -> AsyncIterator[tuple[Proxy, ClusterTopology, Server]]:
    async with proxy("127.0.0.1", server.port) as through, ClusterTopology(through.url("redis")) as servers:
        [only] = servers
        yield through, servers, only


@pytest.mark.parametrize("url", ["", "http://localhost", "redis://", "redis://localhost:port", "localhost:6379"])
def test_url_of_no_server_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidId) as refused:
        ClusterTopology(url and f"{url}/?password={SECRET}")
    assert SECRET not in str(refused.value)


async def test_nobody_at_the_address_is_said_without_the_password() -> None:
    async with redis_server(password=SECRET) as server:
        await server.kill()
        away = await refusal(server.url)
    assert away.store == "redis"
    assert SECRET not in str(away)


@WELL
async def test_wrong_password_is_said_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with redis_server(password=SECRET) as server:
        away = await refusal(server.url.replace(SECRET, "a-guess-of-mine"))
        assert "password" in str(away)
        async with ClusterTopology(server.url) as servers:
            assert await servers.call(0, b"PING") == b"PONG"
            said = [repr(servers), *map(repr, servers), str(away), caplog.text]
    assert [text for text in said if SECRET in text or "a-guess" in text] == []


@WELL
async def test_password_with_reserved_characters_is_read_from_a_url() -> None:
    async with redis_server(password="p@ss/:w") as server:
        url = server.url.replace("p@ss/:w", "p%40ss%2F%3Aw")
        async with ClusterTopology(url) as servers:
            assert await servers.call(0, b"PING") == b"PONG"


@WELL
async def test_server_is_reached_by_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    async with redis_server(settings=(f"unixsocket {path}",)), ClusterTopology(f"unix://{path}") as servers:
        assert await servers.call(0, b"PING") == b"PONG"


@WELL
async def test_databases_of_one_server_share_no_channel() -> None:
    """Channels know no databases, so that the names must."""
    async with (
        redis_server() as server,
        ClusterTopology(f"{server.url}/1") as one,
        ClusterTopology(f"{server.url}/2") as two,
        ClusterTopology(server.url) as none,
    ):
        names = {each.names.ticket("x")[0] for each in (one, two, none)}
    assert len(names) == 3


async def test_server_that_hangs_is_given_up_in_time_and_after_that_nobody_waits() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as servers:
        [only] = servers
        server.stop()
        began = anyio.current_time()
        with pytest.raises(StoreAway):
            await servers.call(0, b"PING")
        assert anyio.current_time() - began >= SILENCE_SECONDS
        with anyio.fail_after(PATIENCE_SECONDS):
            await only.line.down()
            await anyio.sleep(AWAY_SECONDS)
        assert only.line.away
        with pytest.MonkeyPatch.context() as patch, anyio.fail_after(PATIENCE_SECONDS):
            patch.setattr(redis_line, "SILENCE_SECONDS", 2 * PATIENCE_SECONDS)
            with pytest.raises(StoreAway):
                await servers.call(0, b"PING")
        server.resume()
        with anyio.fail_after(PATIENCE_SECONDS):
            await only.line.up()
        assert await servers.call(0, b"PING") == b"PONG"
        assert not only.line.away


@WELL
async def test_question_whose_answer_is_lost_with_the_connection_is_asked_again() -> None:
    async with redis_server() as server, through_proxy(server) as (through, servers, _):
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await servers.call(0, b"RPUSH", b"asked", b"once more"))

        with through.start(Partition(ways=(Way.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await until(server, ("LLEN", "asked"), "1")
                with through.down():
                    held.stop()
        assert answers == [2]


async def until(server: RedisServer, question: tuple[str, ...], answer: str) -> None:
    """Wait until the server, asked by another way, says so."""
    with anyio.fail_after(PATIENCE_SECONDS):
        while await server.ask(*question) != answer:  # noqa: ASYNC110  # a server rings nobody
            await anyio.sleep(0.005)


@WELL
async def test_functions_that_were_flushed_are_loaded_again() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as servers:
        await server.ask("FUNCTION", "FLUSH")
        key, slot = servers.names.ticket("x")
        assert await servers.call(slot, b"FCALL", GET_ROUTE, 1, key) is None


@WELL
async def test_functions_that_are_there_are_not_loaded_again() -> None:
    async with redis_server() as server:
        for _ in range(2):
            async with ClusterTopology(server.url) as servers:
                assert await servers.call(0, b"PING") == b"PONG"
        stats = await server.ask("INFO", "commandstats")
    [said] = [line for line in stats.splitlines() if line.startswith("cmdstat_function|load")]
    assert ["calls=2" in said, "failed_calls=1" in said] == [True, True]


async def test_replica_is_refused() -> None:
    async with redis_server() as first, redis_server() as second:
        await second.ask("REPLICAOF", "127.0.0.1", str(first.port))
        assert "replica" in str(await refusal(second.url))


@WELL
async def test_server_that_may_evict_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    settings = ("maxmemory 100mb", "maxmemory-policy allkeys-lru")
    async with redis_server(settings=settings) as server, ClusterTopology(server.url):
        assert "noeviction" in caplog.text


@WELL
async def test_cluster_is_found_from_one_of_its_servers_and_each_key_with_who_has_it(
    redis_cluster: SharedCluster,
) -> None:
    async with ClusterTopology(redis_cluster.url) as servers:
        assert servers.is_cluster
        assert len(list(servers)) == 3
        for number in range(30):
            key, slot = servers.names.ticket(str(number))
            assert await servers.call(slot, b"SET", key, b"x") == b"OK"
        await moved(redis_cluster.servers, servers)


async def moved(nodes: tuple[RedisServer, ...], servers: ClusterTopology) -> None:
    """A slot changes hands while nobody looks: whoever asks is sent on, and asks there."""
    there = (await nodes[1].ask("CLUSTER", "MYID")).strip()
    owner = next(server for server in servers if str(nodes[0].port) in repr(server))
    while True:
        key, slot = servers.names.ticket(new_id())
        if slot in owner.slots and await nodes[0].ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == "0":
            break
    changed = anyio.Event()
    servers.on_change(changed.set)
    for node in nodes:
        await node.ask("CLUSTER", "SETSLOT", str(slot), "NODE", there)
    assert await servers.call(slot, b"SET", key, b"x") == b"OK"
    assert changed.is_set()
    assert servers.of(slot) is not owner


def test_store_without_its_package_says_what_to_install() -> None:
    code = "import sys; sys.modules['coredis'] = None; from bridgekit.stores import REDIS_REQUIREMENT, redis_stores; redis_stores('redis://x')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1].endswith(f"pip install {REDIS_REQUIREMENT!r}")


def test_url_of_a_store_is_read_when_it_is_chosen() -> None:
    with pytest.raises(InvalidId):
        redis_stores(f"redis://:{SECRET}@/")


@WELL
async def test_prefix_in_a_url_keeps_applications_apart(url: str) -> None:
    opened = [redis_stores(f"{url}?prefix={name}") for name in ("test-a", "test-b", "test-a")]
    async with opened[0]() as one, opened[1]() as other, opened[2]() as same:
        ticket = new_id()
        assert [await each.spent.spend(ticket, 5) for each in (one, other, same)] == [True, True, False]
        assert [each.shared for each in (one, other)] == [True, True]


def test_pauses_grow_are_bounded_and_never_in_step() -> None:
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(12)]
    assert 0.025 <= pauses[0] <= 0.05
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next() <= 0.05
