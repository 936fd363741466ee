"""Connecting to the nodes behind a URL: layout, timeouts, reconnection, and messages without passwords."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import trio
from anyio import CancelScope
from anyio.streams.tls import TLSListener

from bridgekit.errors import AsyncioRequired, InvalidId, StoreUnavailable
from bridgekit.ids import RunId, new_id
from bridgekit.stores import REDIS_REQUIREMENT, redis_stores
from bridgekit.stores.redis import topology
from bridgekit.stores.redis.keys_and_functions import GET_ROUTE
from bridgekit.stores.redis.topology import ClusterTopology, RetryDelay, parse_url
from bridgekit_verify.faults.proxy import Proxy, proxy
from bridgekit_verify.faults.redis_servers import RedisServer, redis_server
from bridgekit_verify.faults.toxics import Direction, Partition
from tests.servers import SharedCluster
from tests.stores.redis.workers import until_server_replies
from tests.timeouts import TIMEOUT_SECONDS

pytestmark = pytest.mark.slow

SECRET = "hunter2"
CERTIFICATE = Path(__file__).with_name("localhost.pem")
ANSWERING = pytest.mark.usefixtures("long_timeouts")


async def refusal(url: str) -> StoreUnavailable:
    """Return the error with which a store fails to open. Short timeouts keep the test fast."""
    for seconds in (0.2, 1.0, 5.0):
        if "not connected yet" not in str(error := await refusal_within(seconds, url)):
            return error
    return await refusal_within(TIMEOUT_SECONDS, url)


async def refusal_within(seconds: float, url: str) -> StoreUnavailable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topology, "OPEN_TIMEOUT_SECONDS", seconds)
        with pytest.raises(StoreUnavailable) as raised:
            async with ClusterTopology(url):
                raise AssertionError("it was opened")
    return raised.value


@asynccontextmanager
async def through_proxy(server: RedisServer) -> AsyncIterator[tuple[Proxy, ClusterTopology]]:
    async with proxy("127.0.0.1", server.port) as through, ClusterTopology(through.url("redis")) as redis:
        yield through, redis


async def ping(redis: ClusterTopology) -> bool:
    return bool(await redis.call(0, "PING"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://localhost",
        "redis://",
        "redis://localhost:port",
        "localhost:6379",
        f"redis://:{SECRET}@/",
        "redis://localhost/?unknown=1",
    ],
)
def test_url_without_a_server_is_refused_in_a_message_without_the_url(url: str) -> None:
    with pytest.raises(InvalidId) as refused:
        redis_stores(url and f"{url}{'&' if '?' in url else '?'}password={SECRET}")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "address", "settings"),
    [
        ("redis://localhost", ("localhost", 6379), {}),
        ("redis://alice:p%40ss%2F%3Aw@example.org:7000/3", ("example.org", 7000), {"username": "alice", "db": 3}),
        ("unix:///var/run/redis.sock?db=2", "/var/run/redis.sock", {"db": 2}),
        ("rediss://localhost:6380?ssl_ca_certs=ca.pem", ("localhost", 6380), {"ssl_ca_certs": "ca.pem"}),
        ("redis://localhost?prefix=mine", ("localhost", 6379), {"prefix": "mine"}),
    ],
)
def test_url_is_parsed(url: str, address: tuple[str, int] | str, settings: dict[str, object]) -> None:
    found, others = parse_url(url)
    assert found == address
    assert settings.items() <= others.items()


async def test_unreachable_address_is_reported_without_the_password() -> None:
    async with redis_server(password=SECRET) as server:
        await server.kill()
        error = await refusal(server.url)
        assert error.store == "redis"
        assert str(server.port) in str(error)
        assert SECRET not in str(error)


@ANSWERING
async def test_wrong_password_is_reported_in_a_message_without_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with redis_server(password=SECRET) as server:
        error = await refusal(server.url.replace(SECRET, "a-wrong-one"))
        assert "password" in str(error)
        async with ClusterTopology(server.url) as redis:
            assert await ping(redis)
            texts = [repr(redis), *map(repr, redis), str(error), caplog.text]
    assert [text for text in texts if SECRET in text or "a-wrong" in text] == []


@ANSWERING
async def test_password_with_reserved_characters_is_read_from_a_url() -> None:
    async with (
        redis_server(password="p@ss/:w") as server,
        ClusterTopology(server.url.replace("p@ss/:w", "p%40ss%2F%3Aw")) as redis,
    ):
        assert await ping(redis)


@ANSWERING
async def test_server_is_reached_through_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    async with redis_server(settings=(f"unixsocket {path}",)), ClusterTopology(f"unix://{path}") as redis:
        assert await ping(redis)


@asynccontextmanager
async def behind_tls(server: RedisServer) -> AsyncIterator[int]:
    """A TLS port in front of the server, with a self-signed certificate for localhost."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)

    async def forward(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream, both: CancelScope) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            async for data in source:
                await target.send(data)
        both.cancel()

    async def serve(client: anyio.abc.ByteStream) -> None:
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", server.port) as other,
            anyio.create_task_group() as both,
        ):
            both.start_soon(forward, client, other, both.cancel_scope)
            both.start_soon(forward, other, client, both.cancel_scope)

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as tcp, anyio.create_task_group() as tasks:
        tasks.start_soon(TLSListener(tcp, context, standard_compatible=False).serve, serve)
        yield tcp.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


@ANSWERING
async def test_server_is_reached_over_tls_and_its_certificate_is_verified() -> None:
    async with redis_server(password=SECRET) as server, behind_tls(server) as port:
        url = f"rediss://:{SECRET}@localhost:{port}/1"
        async with ClusterTopology(f"{url}?ssl_ca_certs={CERTIFICATE}") as redis:
            assert await ping(redis)
        error = await refusal(url)
        assert "certificate" in str(error).lower()
        assert SECRET not in str(error)


@ANSWERING
async def test_databases_of_one_server_share_no_channel() -> None:
    """Channels are visible in every database, so their names must differ."""
    async with redis_server() as server:
        names = set()
        for path in ("/1", "/2", ""):
            async with ClusterTopology(f"{server.url}{path}") as redis:
                assert await ping(redis)
                names.add(redis.names.route(RunId("x")))
    assert len(names) == 3


async def test_calls_fail_at_once_after_a_hanging_server_was_marked_unavailable() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        [only] = redis
        server.stop()
        with pytest.raises(StoreUnavailable, match="no reply within 1 s"), anyio.fail_after(TIMEOUT_SECONDS):
            await ping(redis)
        with anyio.fail_after(TIMEOUT_SECONDS):
            await only.failing.wait()
        assert only.unavailable
        with pytest.MonkeyPatch.context() as patch, anyio.fail_after(TIMEOUT_SECONDS):
            patch.setattr(topology, "CALL_TIMEOUT_SECONDS", 2 * TIMEOUT_SECONDS)
            with pytest.raises(StoreUnavailable):
                await ping(redis)
        server.resume()
        with anyio.fail_after(TIMEOUT_SECONDS):
            await only.answering.wait()
        assert await ping(redis)
        assert not only.unavailable


@ANSWERING
async def test_call_whose_reply_is_lost_with_the_connection_is_repeated() -> None:
    async with redis_server() as server, through_proxy(server) as (through, redis):
        replies: list[object] = []

        async def push() -> None:
            replies.append(await redis.call(0, "RPUSH", "key", "value"))

        with through.start(Partition(directions=(Direction.TO_CLIENT,))) as held:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(push)
                await until_server_replies(server, ("LLEN", "key"), "1")
                with through.down():
                    held.stop()
        assert replies == [2]


@ANSWERING
async def test_cancelled_caller_affects_no_connection_and_no_other_caller() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        assert await ping(redis)
        await server.ask("CONFIG", "RESETSTAT")
        for _ in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ping, redis)
                await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert await ping(redis)
        # In addition to the connection that counts: requests never opened more connections than their limit.
        stats = await server.ask("INFO", "stats")
    [line] = [line for line in stats.splitlines() if line.startswith("total_connections_received")]
    assert int(line.partition(":")[2]) <= 1 + topology.REQUEST_CONNECTIONS


@ANSWERING
async def test_functions_that_were_flushed_are_loaded_again() -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        await server.ask("FUNCTION", "FLUSH")
        key, slot = redis.names.route(RunId("x"))
        assert await redis.call(slot, "FCALL", GET_ROUTE, 1, key) is None


async def test_replica_is_refused() -> None:
    async with redis_server() as first, redis_server() as second:
        await second.ask("REPLICAOF", "127.0.0.1", str(first.port))
        assert "replica" in str(await refusal(second.url))


EVICTING = [f"{keys}-{order}" for keys in ("allkeys", "volatile") for order in ("lru", "lfu", "random")]


@pytest.mark.parametrize("policy", [*EVICTING, "volatile-ttl"])
async def test_server_that_may_evict_keys_is_refused_at_startup(policy: str) -> None:
    async with redis_server(settings=(f"maxmemory-policy {policy}",)) as server:
        error = await refusal(server.url)
        assert f"its maxmemory-policy {policy} may delete logs, routes and used tickets" in str(error)
        await server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        async with ClusterTopology(server.url) as redis:
            assert await ping(redis)


@ANSWERING
async def test_warning_is_logged_when_a_server_may_evict_keys_from_now_on(caplog: pytest.LogCaptureFixture) -> None:
    async with redis_server() as server, ClusterTopology(server.url) as redis:
        assert await ping(redis)
        await server.ask("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
        await server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert await ping(redis)
        assert "maxmemory-policy volatile-ttl may delete" in caplog.text


@ANSWERING
async def test_cluster_is_found_from_one_of_its_nodes_and_each_key_at_its_node(redis_cluster: SharedCluster) -> None:
    async with ClusterTopology(redis_cluster.url) as redis:
        assert redis.is_cluster
        assert len(list(redis)) == 3
        for number in range(30):
            key, slot = redis.names.route(RunId(str(number)))
            assert await redis.call(slot, "SET", key, "x") == b"OK"
        await moved(redis_cluster.servers, redis)


async def moved(servers: tuple[RedisServer, ...], redis: ClusterTopology) -> None:
    """The slot moves between two calls: the old node replies MOVED, and the call is repeated at the new one."""
    there = (await servers[1].ask("CLUSTER", "MYID")).strip()
    owner = next(node for node in redis if str(servers[0].port) in repr(node))
    while True:
        key, slot = redis.names.route(RunId(new_id()))
        if slot in owner.slots and await servers[0].ask("CLUSTER", "COUNTKEYSINSLOT", str(slot)) == "0":
            break
    changed = anyio.Event()
    redis.on_change(changed.set)
    for server in servers:
        await server.ask("CLUSTER", "SETSLOT", str(slot), "NODE", there)
    assert await redis.call(slot, "SET", key, "x") == b"OK"
    assert changed.is_set()
    assert redis.node_for_slot(slot) is not owner


def test_store_without_its_package_names_what_to_install() -> None:
    code = (
        "import sys; sys.modules['redis'] = None; from bridgekit.stores import redis_stores; redis_stores('redis://x')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1].endswith(f"pip install {REDIS_REQUIREMENT!r}")


def test_store_on_trio_reports_that_it_needs_asyncio() -> None:
    async def main() -> None:
        async with redis_stores("redis://localhost")():
            raise AssertionError("it was opened")

    with pytest.raises(AsyncioRequired, match="run the application on asyncio") as refused:
        trio.run(main)
    assert "\n" not in str(refused.value)


@ANSWERING
async def test_prefix_in_a_url_keeps_applications_apart(url: str) -> None:
    opened = [redis_stores(f"{url}?prefix={name}") for name in ("test-a", "test-b", "test-a")]
    async with opened[0]() as one, opened[1]() as other, opened[2]() as same:
        ticket = new_id()
        assert [await each.used_tickets.mark_used(ticket, 5) for each in (one, other, same)] == [True, True, False]
        assert [each.shared for each in (one, other)] == [True, True]


def test_retry_pauses_grow_up_to_a_limit_and_are_random() -> None:
    backoff = RetryDelay()
    pauses = [backoff.next() for _ in range(12)]
    assert 0.025 <= pauses[0] <= 0.05
    assert all(0.5 <= pause <= 1.0 for pause in pauses[6:])
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next() <= 0.05
