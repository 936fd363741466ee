"""What a client can do outside the outbox, and before it is a request or a subscribed socket, on uvicorn's edges."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridgekit.chain.link_1_startup import BridgeConfig, lifespan
from bridgekit.serve import connection_limits
from bridgekit.serve.in_process import serving
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.tickets import Tickets
from tests.factories import ALICE, THREAD, emitted
from tests.transport.raw_client import HEADER_END, MASK, RawPeer, handshake, raw_peer

TIMEOUT_SECONDS = 60.0
STALLED_SECONDS = 1.0
"""A server that reads nothing for this long has stopped reading."""
FLOOD_BYTES = 40_000_000
PINGS = (b"\x89\xfd" + MASK + b"x" * 125) * 500
SHORT_SECONDS = 0.2
NEVER_SENT = b"a text that no server sends"

both_edges = pytest.mark.parametrize("edge", ["asgi", "native"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """uvicorn needs asyncio."""
    return "asyncio"


async def slow(request: Request) -> Response:
    await request.app.state.released.wait()
    return Response(b"released")


@asynccontextmanager
async def served(
    edge: str, authorizer: type[OwnerAuthorizer | Tickets] = OwnerAuthorizer
) -> AsyncIterator[tuple[Starlette, str]]:
    config = BridgeConfig(agents={}, authorizer=authorizer)
    app = Starlette(routes=[*routes(), Route("/slow", slow)], lifespan=lifespan(config))
    app.state.released = anyio.Event()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge) as url:
            await app.state.bridgekit.open_thread(THREAD, ALICE)
            yield app, url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RawPeer]:
    """A TCP connection that has sent nothing."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as here:
        here.setblocking(False)
        yield RawPeer(here)


async def flood(peer: RawPeer, data: bytes) -> int:
    """Send until the server stops reading, and return the number of bytes that it took, at most FLOOD_BYTES."""
    sent = 0
    while sent < FLOOD_BYTES:
        with anyio.move_on_after(STALLED_SECONDS) as stalled:
            sent += await peer.write_some(data[sent % len(data) :])
        if stalled.cancelled_caught:
            break
    return sent


@both_edges
async def test_client_that_reads_no_answers_is_read_again_when_it_reads(edge: str) -> None:
    async with served(edge) as (app, url), raw_peer(url) as peer:
        sent = await flood(peer, PINGS)
        assert sent < FLOOD_BYTES
        await app.state.bridgekit.bridge.notify(emitted())
        await peer.read_until(b'"seq":1,')
        rest = PINGS[sent % len(PINGS) :] + b"\x89\x84" + MASK + b"last"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.read_until, b"\x8a\x04last")
            await peer.write(rest)


@both_edges
async def test_client_without_a_ticket_is_not_read_while_it_reads_no_answers(edge: str) -> None:
    async with served(edge, Tickets) as (_, url), connected(url) as peer:
        await peer.write(handshake(urlsplit(url).netloc, ""))
        await peer.read_until(HEADER_END)
        assert await flood(peer, PINGS) < FLOOD_BYTES


INCOMPLETE = {
    "nothing": (b"",),
    "a part of the first line": (b"GET /ws",),
    "a part of the head of a socket": (b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n",),
    "a part of the head of a page": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n",),
    "one more byte at a time": (b"GET /healthz HTTP/1.1\r\nX: ", *[b"x"] * 1_000),
    "a part of a second request": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost:"),
}


@both_edges
@pytest.mark.parametrize("parts", INCOMPLETE.values(), ids=INCOMPLETE)
async def test_connection_without_a_complete_request_is_closed_in_time(
    edge: str, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_TIMEOUT_SECONDS", SHORT_SECONDS)
    async with served(edge) as (_, url), connected(url) as peer:
        with pytest.raises((EOFError, ConnectionError)):
            await send_slowly(peer, parts)


async def send_slowly(peer: RawPeer, parts: tuple[bytes, ...]) -> None:
    """Send the parts with pauses, and read until the server closes the connection."""
    for part in parts:
        await peer.write(part)
        with anyio.move_on_after(SHORT_SECONDS / 20):
            await peer.read_until(NEVER_SENT)
    await peer.read_until(NEVER_SENT)


@both_edges
async def test_deadline_of_the_head_ends_neither_a_request_in_progress_nor_a_socket(
    edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_TIMEOUT_SECONDS", SHORT_SECONDS)
    async with served(edge) as (app, url), raw_peer(url) as socket_peer, connected(url) as page, connected(url) as idle:
        await page.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises((EOFError, ConnectionError)):  # connected last, so its deadline is the last one
            await idle.read_until(NEVER_SENT)
        app.state.released.set()
        await page.read_until(b"released")
        await app.state.bridgekit.bridge.notify(emitted())
        await socket_peer.read_until(b'"seq":1,')
