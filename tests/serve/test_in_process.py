"""A real server, real clients and real frames on a loopback port: uvicorn on asyncio, hypercorn on trio."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app, lifespan
from bridgekit.errors import DeterministicStartupError, Disconnected, MalformedFrame, NotInstalled, SubscriptionRefused
from bridgekit.events import EventType, Frame, RoutedEvent
from bridgekit.ids import ThreadId, UserId
from bridgekit.serve import in_process
from bridgekit.serve.in_process import open_listener
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import EventLog
from tests.factories import ALICE, BOB, OTHER, THREAD, emitted
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture
from tests.transport.raw_client import BUFFER_BYTES, raw_peer
from tests.transport.watched_hub import WatchedHub, wait_for_connections

TIMEOUT_SECONDS = 60.0

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""Backend parameters for tests that open a socket with the asyncio client of `websockets`."""


@asynccontextmanager
async def served(app: Starlette | None = None) -> AsyncIterator[tuple[Starlette, str]]:
    """Serve an application with one thread of Alice's and one of Bob's."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, hub=WatchedHub)) if app is None else app
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            await application.open_thread(OTHER, BOB)
            yield app, url


async def read_all(client: EventClient, events: list[RoutedEvent]) -> None:
    events += [event async for event in client]


async def test_every_subscriber_of_a_thread_reads_every_event_of_it_and_no_other() -> None:
    read: list[list[RoutedEvent]] = [[], [], []]
    async with served() as (app, url), anyio.create_task_group() as readers:
        hub: Hub = app.state.bridgekit.bridge.hub
        async with (
            connect(url, user_id=ALICE, thread_id=THREAD) as first,
            connect(url, user_id=ALICE, thread_id=THREAD) as second,
            connect(url, user_id=BOB, thread_id=OTHER) as other,
        ):
            for client, events in zip((first, second, other), read, strict=True):
                readers.start_soon(read_all, client, events)
            sent = [emitted(payload={"reasoning": f"Zürich {number}"}) for number in range(200)]
            assert [(await hub.publish(event, THREAD)).sockets for event in sent] == [2] * 200
            assert (await hub.publish(emitted(), OTHER)).sockets == 1
            await app.state.bridgekit_connections.drain()
    assert [[event.seq for event in events] for events in read] == [list(range(1, 201))] * 2 + [[1]]
    assert [event.event_id for event in read[0]] == [event.event_id for event in sent]
    assert [event.payload for event in read[0]] == [event.payload for event in sent]


@pytest.mark.parametrize("url_of", ["user", "thread", "name"])
async def test_subscription_is_refused_by_a_terminal_code(url_of: str) -> None:
    asked = {
        "user": (BOB, THREAD, 4503),
        "thread": (ALICE, "thread_nobody", 4503),
        "name": ("", THREAD, 4500),
    }
    user, thread, code = asked[url_of]
    async with served() as (_, url):
        with pytest.raises(SubscriptionRefused) as refused:
            async with connect(url, user_id=user, thread_id=thread):
                raise AssertionError("was let in")
    assert refused.value.code == code
    assert refused.value.reason


async def test_client_receives_the_close_code_when_the_server_drains() -> None:
    async with (
        served() as (app, url),
        connect(url, user_id=ALICE, thread_id=THREAD) as client,
        anyio.create_task_group() as tasks,
    ):
        await app.state.bridgekit.bridge.hub.publish(emitted(), THREAD)
        tasks.start_soon(app.state.bridgekit_connections.drain)
        assert (await client.receive()).seq == 1
        with pytest.raises(Disconnected) as closed:
            await client.receive()
        assert (closed.value.code, closed.value.reason) == (4000, "the server is shutting down: connect again")


async def test_client_rejects_a_frame_that_is_not_an_event() -> None:
    async with served() as (app, url), connect(url, user_id=ALICE, thread_id=THREAD) as client:
        [subscriber] = app.state.bridgekit.bridge.hub.connections(THREAD)
        event = await app.state.bridgekit.bridge.hub.publish(emitted(), THREAD)
        assert event.seq == 1
        assert (await client.receive()).seq == 1
        subscriber.put(Frame(2, EventType.AGENT_ERROR, emitted().run_id, b'{"type":"agent_exploded"}'))
        with pytest.raises(MalformedFrame):
            await client.receive()


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "socks_proxy"])
async def test_proxy_of_the_environment_is_not_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement covers only the path from this server to this client."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with served() as (app, url), connect(url, user_id=ALICE, thread_id=THREAD) as client:
        await app.state.bridgekit.bridge.hub.publish(emitted(), THREAD)
        assert (await client.receive()).seq == 1


async def test_client_is_detached_when_it_leaves() -> None:
    async with served() as (app, url):
        hub: Hub = app.state.bridgekit.bridge.hub
        async with connect(url, user_id=ALICE, thread_id=THREAD):
            assert len(hub) == 1
        await wait_for_connections(hub)
        assert not await hub.publish(emitted(), THREAD)


@on_asyncio
async def test_messages_of_a_client_are_ignored() -> None:
    async with served() as (app, url):
        query = f"user_id={ALICE}&thread_id={THREAD}"
        async with open_socket(f"{url}/ws?{query}") as socket:
            assert json.loads(await socket.recv())["type"] == "subscribed"
            await socket.send("hello?")
            await socket.send(b"\xff")
            await app.state.bridgekit.bridge.hub.publish(emitted(), THREAD)
            assert json.loads(await socket.recv())["seq"] == 1


async def test_metrics_and_healthz_are_served_over_http() -> None:
    async with served() as (app, url):
        bridge = app.state.bridgekit.bridge
        async with connect(url, user_id=ALICE, thread_id=THREAD):
            await bridge.notify(emitted())
            await bridge.notify(emitted(thread_id=OTHER))
            await bridge.notify(emitted(thread_id=None))
            async with httpx.AsyncClient(trust_env=False, base_url=f"http{url[2:]}") as http:
                metrics, health = await http.get("/metrics"), await http.get("/healthz")
    worker = os.getpid()
    assert f'bridgekit_events_sent_total{{type="agent_thinking",worker="{worker}"}} 1.0' in metrics.text
    assert f'bridgekit_events_kept_total{{type="agent_thinking",worker="{worker}"}} 1.0' in metrics.text
    assert (
        'bridgekit_events_lost_total{link="9",'
        f'reason="the event carries no thread; the run is not in the mapping",worker="{worker}"}} 1.0' in metrics.text
    )
    assert health.json() == {"status": "ok", "connections": 1, "worker": worker}


async def test_bridge_mounts_in_a_fastapi_application() -> None:
    app = FastAPI(routes=routes(), lifespan=lifespan(BridgeConfig(agents={}, authorizer=OwnerAuthorizer)))

    @app.get("/hello")
    def hello() -> str:
        return "hello"

    async with in_process.serving(app) as url:
        await app.state.bridgekit.open_thread(THREAD, ALICE)
        async with connect(url, user_id=ALICE, thread_id=THREAD) as client:
            await app.state.agent_websocket_bridge.notify(emitted())
            assert (await client.receive()).thread_id == THREAD
            async with httpx.AsyncClient(trust_env=False, base_url=f"http{url[2:]}") as http:
                assert (await http.get("/hello")).json() == "hello"
                assert (await http.get("/healthz")).json()["connections"] == 1


async def test_startup_error_is_raised_unchanged_and_nothing_is_served() -> None:
    class NoHub(Hub):
        def __init__(self, broker: EventLog) -> None:
            raise RuntimeError("no hub today")

    app = create_app(replace(BridgeConfig(agents={}, authorizer=OwnerAuthorizer), hub=NoHub))
    with pytest.raises(DeterministicStartupError, match=r"^link 1: .*no hub today$") as refused:
        async with serving(app):
            raise AssertionError("was served")
    assert type(refused.value) is DeterministicStartupError
    assert refused.value.link == 1


@pytest.mark.parametrize("error", [AssertionError("mine"), KeyError("mine"), TimeoutError("mine")])
async def test_error_of_the_block_is_raised_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        async with served():
            raise error
    assert raised.value is error


@on_asyncio
async def test_error_of_the_block_leaves_no_socket_open() -> None:
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer))
    clients = list[ClientConnection]()

    async def fail_with_a_socket_open() -> None:
        async with served(app) as (_, url):
            client = await open_socket(f"{url}/ws?user_id={ALICE}&thread_id={THREAD}")
            clients.append(client)
            assert json.loads(await client.recv())["type"] == "subscribed"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_with_a_socket_open()
    assert len(app.state.bridgekit.bridge.hub) == 0
    with anyio.fail_after(TIMEOUT_SECONDS):
        await clients[0].wait_closed()


UNREAD_EVENTS = 32


async def test_server_shuts_down_while_a_client_that_does_not_read_closes_its_socket() -> None:
    """The answer to the client's close frame waits behind frames that the client does not read."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, hub=WatchedHub))
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with AsyncExitStack() as outlives_the_server, serving(app, send_buffer_bytes=BUFFER_BYTES) as url:
            bridge = app.state.agent_websocket_bridge
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            peer = await outlives_the_server.enter_async_context(raw_peer(url))
            for _ in range(UNREAD_EVENTS):
                await bridge.notify(emitted(payload={"text": "x" * 2 * BUFFER_BYTES}))
            await peer.send_close()
            await wait_for_connections(bridge.hub)


def link_local_address() -> str | None:
    """Return an address of this machine that is valid only with its zone, such as fe80::1%eth0."""
    interfaces = Path("/proc/net/if_inet6")
    lines = interfaces.read_text().split("\n")[:-1] if interfaces.exists() else []
    found = [(fields[0], fields[-1]) for fields in map(str.split, lines) if fields[0].startswith("fe80")]
    return next((f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(at))}%{zone}" for at, zone in found), None)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["::1", link_local_address()])
@pytest.mark.parametrize("end", ["", "/"])
async def test_ipv6_address_is_one_that_clients_can_connect_to(host: str | None, end: str) -> None:
    if host is None:
        pytest.skip("no link-local address here")
    async with serving(create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer)), host=host) as url:
        with pytest.raises(SubscriptionRefused):
            async with connect(url + end, user_id=ALICE, thread_id="thread_nobody"):
                raise AssertionError("was let in")


@pytest.mark.parametrize("seconds", [1e-9, 1e10, math.inf])
def test_any_time_between_pings_can_be_chosen(seconds: float) -> None:
    with open_listener("127.0.0.1", 0, keepalive_seconds=seconds) as listener:
        assert listener.getsockname()[1]


async def test_port_is_free_again_after_the_block() -> None:
    async with served() as (_, url):
        port = int(url.rpartition(":")[2])
    with pytest.raises(OSError, match="connection attempts failed"):
        await anyio.connect_tcp("127.0.0.1", port)


@pytest.mark.parametrize("anyio_backend", ["trio"])
@pytest.mark.parametrize(
    ("module", "requirement"),
    [("hypercorn.config", r"hypercorn>=\S+"), ("websockets.trio.client", r"websockets>=17\S+")],
)
async def test_on_trio_a_missing_package_is_named(
    module: str, requirement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotInstalled, match=rf"on trio needs a package .* pip install '{requirement}'$") as missing:
        async with served() as (_, url), connect(url, user_id=ALICE, thread_id=THREAD):
            raise AssertionError("was served")
    assert type(missing.value) is NotInstalled


async def test_two_servers_at_once_are_independent() -> None:
    async with (
        served() as (one, url),
        served() as (other, _),
        connect(url, user_id=UserId("alice"), thread_id=ThreadId("thread_123")) as client,
    ):
        assert not await other.state.bridgekit.bridge.hub.publish(emitted(), THREAD)
        assert (await one.state.bridgekit.bridge.hub.publish(emitted(), THREAD)).seq == 1
        assert (await client.receive()).seq == 1
