"""Keepalive over real sockets: dead peers are detected, live ones are not disconnected, and frame size is limited."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.errors import Disconnected
from bridgekit.events import EventType
from bridgekit.serve.in_process import KEEPALIVE_SECONDS as SERVERS_KEEPALIVE_SECONDS
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.client import KEEPALIVE_SECONDS, connect
from bridgekit.transport.connections import INCOMING_BYTES
from bridgekit.transport.outbox import OutboxLimits
from tests.factories import ALICE, THREAD, emitted
from tests.transport.edges import anyio_backend, serving  # noqa: F401  # a fixture
from tests.transport.fake_browser import Site
from tests.transport.raw_client import BUFFER_BYTES, raw_peer, raw_server, subscribed
from tests.transport.watched_hub import WatchedHub, wait_for_connections

TIMEOUT_SECONDS = 60.0
SHORT_SECONDS = 0.15


@asynccontextmanager
async def pinging(keepalive_seconds: float = SHORT_SECONDS) -> AsyncIterator[tuple[Application, str]]:
    """A real server that pings often."""
    app = create_app(
        BridgeConfig(
            agents={},
            authorizer=OwnerAuthorizer,
            outbox=OutboxLimits(events=10_000, size_bytes=10**9),
            hub=WatchedHub,
        )
    )
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, keepalive_seconds=keepalive_seconds, send_buffer_bytes=BUFFER_BYTES) as url:
            application: Application = app.state.bridgekit
            await application.open_thread(THREAD, ALICE)
            yield application, url


async def is_detected_in_time(seen: Callable[[float], Awaitable[bool]]) -> bool:
    """Return whether the state was observed. A machine that pauses for longer than a ping interval makes every peer
    look dead."""
    return await seen(SHORT_SECONDS) or await seen(10 * SHORT_SECONDS) or await seen(100 * SHORT_SECONDS)


async def test_peer_is_detached_only_when_it_answers_no_ping() -> None:
    async def seen(keepalive_seconds: float) -> bool:
        async with (
            pinging(keepalive_seconds) as (application, url),
            connect(url, user_id=ALICE, thread_id=THREAD) as client,
            raw_peer(url),
        ):
            await wait_for_connections(application.bridge.hub, at_most=1)
            stays = (await application.bridge.notify(emitted())).sockets == 1
            return stays and (await client.receive()).seq == 1

    assert await is_detected_in_time(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux breaks a connection for that")
async def test_peer_that_reads_nothing_is_detached_despite_waiting_frames() -> None:
    """Its outbox is not full, and the transport is blocked, so no close frame reaches the peer."""

    async def seen(keepalive_seconds: float) -> bool:
        async with pinging(keepalive_seconds) as (application, url), raw_peer(url):
            event = emitted(EventType.TOOL_EXECUTING, payload={"parameters": "x" * 10_000})
            taken = [(await application.bridge.notify(event)).sockets for _ in range(100)]
            await wait_for_connections(application.bridge.hub)
            return taken == [1] * 100

    assert await is_detected_in_time(seen)


async def test_frame_of_the_largest_size_is_discarded_and_a_larger_one_closes_the_socket() -> None:
    async with pinging(KEEPALIVE_SECONDS) as (application, url), raw_peer(url) as peer:
        await peer.send_text(b"x" * INCOMING_BYTES)
        await application.bridge.notify(emitted())
        await peer.read_until(b'"seq":1,')
        await peer.send_text(b"x" * (INCOMING_BYTES + 1))
        await peer.read_until(b"\x03\xf1")  # 1009, message too big
        await peer.send_close()
        await wait_for_connections(application.bridge.hub)


async def test_socket_closed_by_the_server_raises_no_error_in_the_application(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """uvicorn refuses to send once it closes the socket, and reports that only later."""
    browser = site.browser(broken_at="websocket.send", broken_by=RuntimeError("after sending 'websocket.close'"))
    with caplog.at_level(logging.INFO):
        await browser.run()
    assert len(site.hub) == 0
    assert caplog.records == []


async def test_client_disconnects_from_a_server_that_answers_no_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts the handshake, confirms the subscription, and then sends nothing."""
    monkeypatch.setattr("bridgekit.transport.client.CLOSE_TIMEOUT_SECONDS", SHORT_SECONDS)
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with (
            raw_server(subscribed()) as server,
            connect(server.url, user_id=ALICE, thread_id=THREAD, keepalive_seconds=SHORT_SECONDS) as client,
        ):
            with pytest.raises(Disconnected) as gone:
                await client.receive()
    assert gone.value.code == 1006


def test_both_ends_ping_every_20_seconds_by_default() -> None:
    assert (KEEPALIVE_SECONDS, SERVERS_KEEPALIVE_SECONDS) == (20.0, 20.0)
