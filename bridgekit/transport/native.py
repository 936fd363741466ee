"""The native edge: WebSocket connections on the asyncio server of the `websockets` library, without ASGI.

Frames that are put in a socket's outbox within one event-loop iteration are sent in one write. Clients receive the same
frames as from the ASGI edge. Asyncio only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar, cast

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import Disconnected, SubscriptionRefused
from bridgekit.transport.authorization import Handshake, Subscription, parse_handshake
from bridgekit.transport.connections import (
    AUTHORIZE_TIMEOUT_SECONDS,
    CLOSE_REASONS,
    CLOSE_TIMEOUT_SECONDS,
    ConnectionRegistry,
)
from bridgekit.transport.log_redaction import redact_tickets
from bridgekit.transport.writer import NativeSubscriber

__all__ = ["NativeConnection", "adopt_connection", "serve_native"]

LOGGER: Final = "websockets.server"
WRITE_BYTES: Final = 65_536
"""Limit on the bytes in a connection's write buffer. Over this limit, frames stay in the outbox."""
QUEUE_FRAMES: Final = 4
"""Limit on the client's frames that wait to be discarded."""
OPEN_TIMEOUT_SECONDS: Final = AUTHORIZE_TIMEOUT_SECONDS + 5.0
"""How long the handshake may take. Longer than the authorization in it, because the library sends no close code."""
EMPTY_REQUEST: Final = Request("", Headers())
"""Replaces the request of a connection after the handshake, to save memory."""


class _AlwaysServing:
    """Replaces the server of an adopted connection, because another server owns the listening socket."""

    @staticmethod
    def is_serving() -> bool:
        return True


class NativeConnection(ServerConnection):
    """A server connection that flushes its subscriber when the transport becomes writable again.

    The connection stops reading from a client that sends pings and does not read the answers.
    """

    # Slots save memory, because instance dictionaries share their keys only while no key is added.
    __slots__ = ("answers_unread", "close_frame_sent", "closing", "pending", "socket")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pending: _PendingHandshake | None = None
        self.socket: NativeSubscriber | None = None
        self.answers_unread = False
        self.closing = False
        self.close_frame_sent = False
        """True if a close frame was sent behind waiting frames, which the client may take time to read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # After `connection_made`, the library uses the server only to check whether the server is serving.
        self.server = cast("Server", _AlwaysServing)
        self.recv_messages.resume = self._resume_reading

    def abort_soon(self) -> None:
        """Abort the connection after CLOSE_TIMEOUT_SECONDS, unless the close handshake has ended."""
        if not self.closing:
            self.closing = True
            self.loop.call_later(CLOSE_TIMEOUT_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        unsent = self.transport.get_write_buffer_size()
        super().data_received(data)
        if self.paused and self.transport.get_write_buffer_size() > unsent:
            self.answers_unread = True
            self.transport.pause_reading()
        # The library itself waits without limit for the client to close the connection.
        if self.protocol.close_expected() and (self.protocol.close_rcvd is not None or not self.close_frame_sent):
            self.abort_soon()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.answers_unread = False
        if not self.recv_messages.paused:
            self.transport.resume_reading()
        if self.socket is not None:
            self.socket.flush()

    def _resume_reading(self) -> None:
        if not self.answers_unread:
            self.transport.resume_reading()


class _PendingHandshake(msgspec.Struct):
    """A handshake and its authorization, until the socket is served."""

    handshake: Handshake
    after: Cursor | None = None
    subscription: Subscription | None = None
    refusal: SubscriptionRefused | Disconnected | None = None


ConnectionT = TypeVar("ConnectionT", bound=NativeConnection)


@asynccontextmanager
async def serve_native(connections: ConnectionRegistry) -> AsyncIterator[Server]:
    """Run the native edge while the block runs, and yield the server for `adopt_connection`.

    The `websockets` library creates a server only for a socket, so this server gets a socket that never listens.
    """
    redact_tickets(LOGGER)
    with socket.socket() as placeholder:
        async with serve(
            partial(_handle, connections),
            sock=placeholder,
            start_serving=False,
            process_request=partial(_authorize_request, connections),
            open_timeout=OPEN_TIMEOUT_SECONDS,
            server_header=None,
            logger=logging.getLogger(LOGGER),
        ) as server:
            yield server


def adopt_connection(
    server: Server, *, kind: type[ConnectionT], keepalive_seconds: float | None, incoming_bytes: int | None
) -> ConnectionT:
    """Return the asyncio protocol for a connection whose request has not been received."""
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


async def _authorize_request(
    connections: ConnectionRegistry, connection: ServerConnection, request: Request
) -> Response | None:
    """Authorize a client before its handshake is accepted.

    The function stores a refusal, which `_handle` sends later as a close frame.
    """
    if not isinstance(connection, NativeConnection):
        raise TypeError(type(connection).__name__)
    # Check the request here too, because the library checks the request only after the ticket has been used.
    if (rejection := connection.protocol.accept(request)).status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        return rejection
    headers = request.headers
    query = request.path.partition("?")[2]
    handshake = parse_handshake(query, headers.raw_items(), secure=_over_tls(connection, headers))
    pending = connection.pending = _PendingHandshake(handshake)
    try:
        pending.after = connections.check_origin_and_cursor(handshake)
        if not connections.awaits_message(handshake):
            pending.subscription = await connections.authorize(handshake)
    except (SubscriptionRefused, Disconnected) as refusal:
        # Accept the handshake and close the socket later, because a browser cannot read the HTTP status of a refused
        # handshake.
        pending.refusal = refusal
    return None


def _over_tls(connection: ServerConnection, headers: Headers) -> bool:
    # X-Forwarded-Proto can be trusted: a client that forges it can only cause its own page to be refused.
    schemes = {value.strip() for value in headers.get_all("X-Forwarded-Proto")}
    return connection.transport.get_extra_info("sslcontext") is not None or bool(schemes & {"https", "wss"})


def _subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    chosen = Handshake(query={}, protocols=tuple(offered)).protocol
    return None if chosen is None else Subprotocol(chosen)


async def _handle(connections: ConnectionRegistry, connection: ServerConnection) -> None:
    """Serve one socket from the accepted handshake to its end."""
    if not isinstance(connection, NativeConnection):
        raise TypeError(type(connection).__name__)
    with suppress(ConnectionClosed):
        try:
            await _serve(connections, connection, *await _authorize(connections, connection))
        except (SubscriptionRefused, Disconnected) as refusal:
            await connection.close(*connections.reject(refusal))


async def _authorize(
    connections: ConnectionRegistry, connection: NativeConnection
) -> tuple[Subscription, Cursor | None]:
    pending, connection.pending = connection.pending, None
    assert pending is not None
    # Nothing reads the request and the response later, and they take a sixth of an idle connection's memory.
    connection.request, connection.response = EMPTY_REQUEST, None
    if pending.refusal is not None:
        raise pending.refusal
    if pending.subscription is None:
        ticket = await connections.receive_ticket(connection.recv)
        pending.subscription = await connections.authorize(replace(pending.handshake, ticket=ticket))
    return pending.subscription, pending.after


async def _serve(
    connections: ConnectionRegistry, connection: NativeConnection, subscription: Subscription, after: Cursor | None
) -> None:
    subscriber = NativeSubscriber(subscription, connections.scheduler, send_close=partial(_send_close, connection))
    replay = await connections.join(subscriber, after)
    try:
        subscriber.start_sending(connection, replay)
        connection.socket = subscriber
        # The edge reads the client's messages only to detect a disconnect, and discards them.
        while True:
            await connection.recv()
    except ConnectionClosed:
        pass
    finally:
        connections.leave(subscriber)
    if subscriber.failure is not None:
        raise subscriber.failure


def _send_close(connection: NativeConnection, code: int) -> None:
    """Send a close frame behind all waiting frames, and return immediately."""
    if connection.protocol.state is State.OPEN:
        connection.protocol.send_close(code, CLOSE_REASONS[code])
        connection.close_frame_sent = True
        connection.send_data()
