"""The native edge: sockets on the asyncio server of the `websockets` library, without ASGI between.

What is put to a socket within one turn of the event loop leaves in one write. Frames stay one event each; what a client
reads is what it reads from the ASGI edge. On asyncio only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bridgekit.errors import Disconnected, SubscriptionRefused
from bridgekit.signals import Cursor
from bridgekit.transport.authorization import Handshake, Subscription, parse_handshake
from bridgekit.transport.connections import CLOSE_TIMEOUT_SECONDS, REASONS, ConnectionRegistry
from bridgekit.transport.log_redaction import redact_tickets
from bridgekit.transport.writer import NativeSubscriber

__all__ = ["Connection", "adopt_connection", "serve_native"]

LOGGER: Final = "websockets.server"
WRITE_BYTES: Final = 65_536
"""What may wait in a connection's own buffer before its frames stay in the outbox."""
QUEUE_FRAMES: Final = 4
"""What a client says is dropped; so many of its frames may wait to be."""
OPEN_TIMEOUT_SECONDS: Final = 10.0
"""How long a handshake may take."""
FORGOTTEN: Final = Request("", Headers())
"""What is left of a request that was answered."""


class _OpenDoor:
    """What a connection sees of the server that took it in at another door than its own."""

    def is_serving(self) -> bool:
        return True


_OPEN_DOOR: Final = _OpenDoor()


class Connection(ServerConnection):
    """A connection that tells its socket when it can be written to again."""

    # Beside the dictionary of the library's attributes, which is shared by all connections while it holds no more.
    __slots__ = ("asks", "ends", "goodbye", "socket")

    def __init__(self, *arguments: Any, **choices: Any) -> None:
        super().__init__(*arguments, **choices)
        self.asks: _Asks | None = None
        self.socket: NativeSubscriber | None = None
        self.ends = False
        self.goodbye = False
        """Whether it was said goodbye to, behind all that waits for it: then it may take its time to read that."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # From here on it is asked for nothing else.
        self.server = cast("Server", _OPEN_DOOR)

    def abort_soon(self) -> None:
        """Do not wait long for a client that has been said goodbye to, or is to say it."""
        if not self.ends:
            self.ends = True
            self.loop.call_later(CLOSE_TIMEOUT_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # The library waits for the other end to close, for as long as nobody sends anything.
        if self.protocol.close_expected() and (self.protocol.close_rcvd is not None or not self.goodbye):
            self.abort_soon()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.socket is not None:
            self.socket.flush()


class _Asks:
    """What a client asks for, and what it is to have, until it is served."""

    __slots__ = ("after", "handshake", "refusal", "subscription")

    def __init__(self, handshake: Handshake) -> None:
        self.handshake = handshake
        self.after: Cursor | None = None
        self.subscription: Subscription | None = None
        self.refusal: SubscriptionRefused | Disconnected | None = None


Taken = TypeVar("Taken", bound=Connection)


@asynccontextmanager
async def serve_native(edge: ConnectionRegistry) -> AsyncIterator[Server]:
    """Live sockets, for the length of a block: of the connections that are `adopt_connection` from who has the door.

    The library looks after connections only where it has a door of its own. So it has one, which is never opened.
    """
    redact_tickets(LOGGER)
    with socket.socket() as door:
        async with serve(
            partial(_handle, edge),
            sock=door,
            start_serving=False,
            process_request=partial(_look_at, edge),
            open_timeout=OPEN_TIMEOUT_SECONDS,
            server_header=None,
            logger=logging.getLogger(LOGGER),
        ) as server:
            yield server


def adopt_connection(
    server: Server, *, kind: type[Taken], keepalive_seconds: float | None, incoming_bytes: int | None
) -> Taken:
    """The protocol of a connection whose request is still to be received."""
    return kind(
        ServerProtocol(
            select_subprotocol=_subprotocol,
            max_size=incoming_bytes,
            logger=logging.getLogger(LOGGER),
        ),
        server,
        ping_interval=keepalive_seconds,
        ping_timeout=keepalive_seconds,
        close_timeout=CLOSE_TIMEOUT_SECONDS,
        max_queue=QUEUE_FRAMES,
        write_limit=WRITE_BYTES,
    )


async def _look_at(edge: ConnectionRegistry, connection: ServerConnection, request: Request) -> Response | None:
    """Before the handshake is accepted: who it is, and what he may have."""
    if not isinstance(connection, Connection):
        raise TypeError(type(connection).__name__)
    headers = request.headers
    handshake = parse_handshake(
        request.path.partition("?")[2],
        protocols=headers.get_all("Sec-WebSocket-Protocol"),
        origin=headers.get("Origin"),
        host=headers.get("Host"),
        secure=_over_tls(connection, headers),
    )
    asks = connection.asks = _Asks(handshake)
    try:
        asks.after = edge.check_origin_and_cursor(handshake)
        if not edge.authorizer.awaits_message(handshake):
            asks.subscription = await edge.authorize(handshake)
    except (SubscriptionRefused, Disconnected) as refusal:
        # Accepted only to be closed: a browser cannot read the status of a refused handshake.
        asks.refusal = refusal
    return None


def _over_tls(connection: ServerConnection, headers: Headers) -> bool:
    # Believed whoever says it: the most that it can do is to have its own page refused.
    said = {value.strip() for value in headers.get_all("X-Forwarded-Proto")}
    return connection.transport.get_extra_info("sslcontext") is not None or bool(said & {"https", "wss"})


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    chosen = Handshake(query={}, protocols=tuple(offered)).protocol
    return None if chosen is None else Subprotocol(chosen)


async def _handle(edge: ConnectionRegistry, connection: ServerConnection) -> None:
    """One socket, from its acceptance to its end."""
    if not isinstance(connection, Connection):
        raise TypeError(type(connection).__name__)
    with suppress(ConnectionClosed):
        try:
            await _serve(edge, connection, *await _admitted(edge, connection))
        except (SubscriptionRefused, Disconnected) as refusal:
            await connection.close(*edge.reject(refusal))


async def _admitted(edge: ConnectionRegistry, connection: Connection) -> tuple[Subscription, Cursor | None]:
    asks, connection.asks = connection.asks, None
    assert asks is not None
    # The library keeps both for who wants to know, and nobody does: they are a sixth of what an idle connection holds.
    connection.request, connection.response = FORGOTTEN, None
    if asks.refusal is not None:
        raise asks.refusal
    if asks.subscription is None:
        ticket = await edge.first_ticket(connection.recv)
        asks.subscription = await edge.authorize(replace(asks.handshake, ticket=ticket))
    return asks.subscription, asks.after


async def _serve(
    edge: ConnectionRegistry, connection: Connection, subscription: Subscription, after: Cursor | None
) -> None:
    subscriber = NativeSubscriber(subscription, edge.scheduler, send_close=partial(_send_close, connection))
    async with edge.attached(subscriber, after) as replay:
        subscriber.begin(connection, replay)
        connection.socket = subscriber
        # Events go one way; what a client says is read, so that its leaving is noticed, and dropped.
        with suppress(ConnectionClosed):
            while True:
                await connection.recv()
    if subscriber.failure is not None:
        raise subscriber.failure


def _send_close(connection: Connection, code: int) -> None:
    """Say goodbye behind all that waits, without waiting for it: who drains says for how long."""
    if connection.protocol.state is State.OPEN:
        connection.protocol.send_close(code, REASONS[code])
        connection.goodbye = True
        connection.send_data()
