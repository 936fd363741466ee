"""What a client can do outside the outbox, and before it is a request or a subscribed socket, on uvicorn's edges."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
from bridgekit.transport.authorization import Handshake, OwnerAuthorizer
from bridgekit.transport.tickets import Tickets
from tests.factories import ALICE, THREAD, emitted
from tests.transport.raw_client import BUFFER_BYTES, HEADER_END, MASK, RawPeer, handshake, raw_peer

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


async def echo(request: Request) -> Response:
    return Response(f"{len(await request.body())} bytes")


async def early(request: Request) -> Response:
    return Response(b"answered")


ROUTES = [
    Route("/slow", slow, methods=["GET", "POST"]),
    Route("/echo", echo, methods=["POST"]),
    Route("/early", early, methods=["POST"]),
]


@asynccontextmanager
async def served(
    edge: str, authorizer: type[OwnerAuthorizer | Tickets] = OwnerAuthorizer
) -> AsyncIterator[tuple[Starlette, str]]:
    config = BridgeConfig(agents={}, authorizer=authorizer)
    app = Starlette(routes=[*routes(), *ROUTES], lifespan=lifespan(config))
    app.state.released = anyio.Event()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async with serving(app, edge=edge, send_buffer_bytes=BUFFER_BYTES) as url:
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


@pytest.mark.slow
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


async def send_slowly(peer: RawPeer, parts: tuple[bytes, ...]) -> None:
    """Send the parts with pauses, and read until the server closes the connection."""
    for part in parts:
        await peer.write(part)
        with anyio.move_on_after(SHORT_SECONDS / 20):
            await peer.read_until(NEVER_SENT)
    await peer.read_until(NEVER_SENT)


HEADS = {
    "long line": (b"X: " + b"x" * 9_000, 431),
    "line of 60 kB": (b"X: " + b"x" * 60_000, 431),
    "control character": (b"X: a\x01b", 400),
    "delete character": (b"X: a\x7f", 400),
    "many headers": (b"\r\n".join([b"X: x"] * 200), 431),
    "long query": (b"", 414),
    "two origins": (b"Origin: http://a.example\r\norigin: http://b.example", 400),
    "body": (b"Content-Length: 5\r\n\r\nhello", 400),
    "body that awaits an answer": (b"Content-Length: 5\r\nExpect: 100-continue", 400),
    "chunked body": (b"Transfer-Encoding: chunked", 400),
}


@both_edges
@pytest.mark.parametrize(("extra", "status"), HEADS.values(), ids=HEADS)
async def test_head_that_no_edge_can_serve_gets_its_status_and_uses_no_ticket(
    edge: str, extra: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(edge, Tickets) as (app, url), connected(url) as peer:
        ticket = app.state.bridgekit.ticket(THREAD, ALICE)
        query = "x" * 9_000 if status == 414 else ""
        offered = f"Sec-WebSocket-Protocol: bridgekit.ticket.{ticket}".encode()
        head = handshake(urlsplit(url).netloc, query).removesuffix(HEADER_END)
        await peer.write(b"\r\n".join([head, *filter(None, (offered, extra))]) + HEADER_END)
        await peer.read_until(f"HTTP/1.1 {status} ".encode())
        assert await app.state.bridgekit.authorizer.authorize(Handshake(query={}, ticket=ticket))
    assert "Traceback" not in caplog.text


INVALID = {
    "no key": (b"Sec-WebSocket-Key", b"X-Key", 400),
    "another version": (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12", 400),
}


@both_edges
@pytest.mark.parametrize(("old", "new", "status"), INVALID.values(), ids=INVALID)
async def test_invalid_handshake_uses_no_ticket(edge: str, old: bytes, new: bytes, status: int) -> None:
    async with served(edge, Tickets) as (app, url), connected(url) as peer:
        ticket = app.state.bridgekit.ticket(THREAD, ALICE)
        offered = f"\r\nSec-WebSocket-Protocol: bridgekit.ticket.{ticket}".encode()
        head = handshake(urlsplit(url).netloc, "").removesuffix(HEADER_END).replace(old, new)
        await peer.write(head + offered + HEADER_END)
        await peer.read_until(f"HTTP/1.1 {status} ".encode())
        assert await app.state.bridgekit.authorizer.authorize(Handshake(query={}, ticket=ticket))


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


BODY_HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
STALLED_BODIES = {
    "nothing": (BODY_HEAD + b"Content-Length: 10\r\n\r\n",),
    "a part": (BODY_HEAD + b"Content-Length: 10\r\n\r\n", b"12345"),
    "one more byte at a time": (BODY_HEAD + b"Content-Length: 10000\r\n\r\n", *[b"x"] * 1_000),
    "one more chunk at a time": (BODY_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 1_000),
    "that of a second request": (BODY_HEAD + b"Content-Length: 1\r\n\r\nx", BODY_HEAD + b"Content-Length: 2\r\n\r\nx"),
    "that of a request which is answered": (b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", b"1"),
}
TIMEOUTS = {name: ("HEAD_TIMEOUT_SECONDS", parts) for name, parts in INCOMPLETE.items()} | {
    f"body, {name}": ("BODY_TIMEOUT_SECONDS", parts) for name, parts in STALLED_BODIES.items()
}


@both_edges
@pytest.mark.parametrize(("limit", "parts"), TIMEOUTS.values(), ids=TIMEOUTS)
async def test_connection_whose_request_is_not_complete_in_time_is_closed(
    edge: str, limit: str, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_limits, limit, SHORT_SECONDS)
    async with served(edge) as (_, url), connected(url) as peer:
        with pytest.raises((EOFError, ConnectionError)):
            await send_slowly(peer, parts)


@both_edges
async def test_body_is_not_limited_while_the_client_sends_enough_or_the_application_does_not_read(
    edge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several times the limit."""
    monkeypatch.setattr(connection_limits, "BODY_TIMEOUT_SECONDS", SHORT_SECONDS)
    monkeypatch.setattr(connection_limits, "BODY_BYTES", 1_000)
    part, count = b"x" * 1_000, 50
    async with served(edge) as (app, url), connected(url) as fast, connected(url) as unread:
        await unread.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        await fast.write(BODY_HEAD + b"Content-Length: 50000\r\n\r\n")
        for _ in range(count):
            await fast.write(part)
            await anyio.sleep(SHORT_SECONDS / 20)  # the time itself is tested
        await fast.read_until(b"50000 bytes")
        app.state.released.set()
        await unread.write(b"x" * 100_000)
        await unread.read_until(b"released")


@both_edges
async def test_head_without_an_end_is_not_kept(edge: str) -> None:
    async with served(edge) as (_, url), connected(url) as peer:
        await peer.write(b"GET /healthz HTTP/1.1\r\n")
        with suppress(ConnectionError):
            assert await flood(peer, b"X: " + b"x" * 1_000 + b"\r\n") < FLOOD_BYTES
        with pytest.raises((EOFError, ConnectionError)):
            await peer.read_until(NEVER_SENT)


FRAGMENTS = {
    "empty": (b"\x00\x80" + MASK, b""),
    "of one byte": (b"\x00\x81" + MASK + b"x", b""),
    "empty, between pings": (b"\x00\x80" + MASK, b"\x89\x80" + MASK),
}


@both_edges
@pytest.mark.parametrize("authorizer", [OwnerAuthorizer, Tickets], ids=["with access", "without a ticket"])
@pytest.mark.parametrize(("fragment", "between"), FRAGMENTS.values(), ids=FRAGMENTS)
async def test_message_of_too_many_fragments_is_refused(
    edge: str, fragment: bytes, between: bytes, authorizer: type[OwnerAuthorizer | Tickets]
) -> None:
    async with served(edge, authorizer) as (_, url), connected(url) as peer:
        query = f"user_id={ALICE}&thread_id={THREAD}" if authorizer is OwnerAuthorizer else ""
        await peer.write(handshake(urlsplit(url).netloc, query))
        await peer.read_until(HEADER_END)
        await peer.write(b"\x01\x80" + MASK)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.read_until, (1_009).to_bytes(2, "big"))
            with suppress(ConnectionError):
                await peer.write((fragment + between) * 10_000)
            tasks.cancel_scope.deadline = anyio.current_time() + TIMEOUT_SECONDS


NO_TEXT = {
    "whole": (b"\x81\x82" + MASK + b"\xff\xfe",),
    "in parts": (b"\x01\x81" + MASK + b"\xc3", b"\x80\x81" + MASK + b"x"),
}


@both_edges
@pytest.mark.parametrize("authorizer", [OwnerAuthorizer, Tickets], ids=["with access", "without a ticket"])
@pytest.mark.parametrize("frames", NO_TEXT.values(), ids=NO_TEXT)
async def test_text_that_is_not_utf8_is_refused_without_a_traceback(
    edge: str, frames: tuple[bytes, ...], authorizer: type[OwnerAuthorizer | Tickets], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(edge, authorizer) as (_, url), connected(url) as peer:
        query = f"user_id={ALICE}&thread_id={THREAD}" if authorizer is OwnerAuthorizer else ""
        await peer.write(handshake(urlsplit(url).netloc, query))
        await peer.read_until(HEADER_END)
        for frame in frames:
            await peer.write(frame)
        await peer.read_until((1_007).to_bytes(2, "big"))
    assert "Traceback" not in caplog.text


@both_edges
async def test_fragmented_message_is_received(edge: str) -> None:
    async with served(edge, Tickets) as (app, url), connected(url) as peer:
        await peer.write(handshake(urlsplit(url).netloc, ""))
        await peer.read_until(HEADER_END)
        message = f'{{"type":"authorise","ticket":"{app.state.bridgekit.ticket(THREAD, ALICE)}"}}'.encode()
        for index, byte in enumerate(message):
            await peer.write(bytes((0 if index else 1, 0x81)) + MASK + bytes((byte,)))
        await peer.write(b"\x80\x80" + MASK)
        await peer.read_until(b'"type":"subscribed"')


def test_writes_to_a_lost_connection_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Asyncio logs each of them, so that a client that left during a replay would cause thousands of lines."""
    connection_limits.limit_connection_errors()
    for message in (connection_limits.LOST_CONNECTION, "another warning"):
        logging.getLogger("asyncio").warning(message)
    assert [record.getMessage() for record in caplog.records] == ["another warning"]
