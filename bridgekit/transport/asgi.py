"""The ASGI edge: the routes `/ws`, `/metrics` and `/healthz`, for Starlette and FastAPI applications."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from typing import Final

import anyio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import Disconnected, ServeError, SubscriptionRefused
from bridgekit.transport import metrics
from bridgekit.transport.authorization import Handshake, Subscription, parse_handshake
from bridgekit.transport.connections import CLOSE_REASONS, CLOSE_TIMEOUT_SECONDS, ConnectionRegistry
from bridgekit.transport.log_redaction import redact_tickets
from bridgekit.transport.writer import AsgiSubscriber

__all__ = ["MONITORING_PORT", "NO_LIFESPAN", "routes"]

NO_LIFESPAN: Final = (
    "bridgekit's lifespan does not run for its routes. A mounted application's lifespan is not run by the outer one:"
    " pass lifespan=lifespan(config) to the outermost application, or enter inner.router.lifespan_context(inner) in its"
    " lifespan"
)

MONITORING_PORT: Final = "bridgekit.monitoring_port"
"""A key in the server's state, whose value is the only port that serves `/metrics` and `/healthz`. Without the key,
every port serves these two paths."""
SERVER_LOGGERS: Final = (
    "asyncio",
    "bridgekit.transport.connections",
    "hypercorn.access",
    "hypercorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "uvicorn.error",
    "websockets.server",
)
"""Loggers whose records may contain a ticket, in a URL, a traceback, a header or a message."""
DISCONNECT_ERRORS: Final = (WebSocketDisconnect, OSError, RuntimeError)
"""Errors that `send` raises after the client has left or the server has closed the socket. The type of the error
depends on the server and the middleware."""


def routes() -> list[BaseRoute]:
    """Return the routes of the ASGI edge: `/ws`, `/metrics` and `/healthz`."""
    redact_tickets(*SERVER_LOGGERS)
    return [WebSocketRoute("/ws", _endpoint), Route("/metrics", _metrics), Route("/healthz", _healthz)]


class _Endpoint:
    """The ASGI application behind `/ws`. Starlette's WebSocketEndpoint would add four function calls to each event."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connections = _connections(scope["app"])
        socket = _AsgiSocket(receive, send)
        try:
            subscription, after = await _authorize(connections, socket, _parse_handshake(scope))
            code = await _serve(connections, socket, subscription, after)
        except (SubscriptionRefused, Disconnected) as refusal:
            await socket.close(*connections.reject(refusal))
        except _ClientDisconnected:
            return
        else:
            if code is not None:
                await socket.close(code, CLOSE_REASONS[code])


_endpoint: Final = _Endpoint()


def _parse_handshake(scope: Scope) -> Handshake:
    query = scope["query_string"].decode(errors="replace")
    return parse_handshake(query, Headers(scope=scope).items(), secure=scope.get("scheme") == "wss")


async def _authorize(
    connections: ConnectionRegistry, socket: _AsgiSocket, handshake: Handshake
) -> tuple[Subscription, Cursor | None]:
    socket.protocol = handshake.protocol
    after = connections.check_origin_and_cursor(handshake)
    if connections.awaits_message(handshake):
        await socket.accept()
        ticket = await connections.receive_ticket(socket.receive)
        return await connections.authorize(replace(handshake, ticket=ticket)), after
    return await connections.authorize(handshake), after


async def _serve(
    connections: ConnectionRegistry, socket: _AsgiSocket, subscription: Subscription, after: Cursor | None
) -> int | None:
    """Deliver events until the client disconnects or the server must close the socket.

    Return the close code to send, or None if the client has left.
    """
    with anyio.CancelScope() as read_scope:
        subscriber = AsgiSubscriber(subscription, connections.scheduler, send=socket.send, read_scope=read_scope)
        # Subscribe before accepting the handshake, so that the client gets every event that is published after it.
        replay = await connections.join(subscriber, after)
        try:
            await socket.accept()
            subscriber.start_sending(replay)
            # The edge reads the client's messages only to detect a disconnect, and discards them.
            while True:
                await socket.receive()
        except _ClientDisconnected:
            pass
        finally:
            subscriber.abort()
            connections.leave(subscriber)
    await subscriber.wait_closed()
    if subscriber.failure is not None and not isinstance(subscriber.failure, DISCONNECT_ERRORS):
        raise subscriber.failure
    return subscriber.code


class _ClientDisconnected(Exception):
    """The client has closed the connection."""


class _AsgiSocket:
    """One client's ASGI connection: its receive and send functions, and the state of its handshake."""

    __slots__ = ("_accepted", "_connected", "_receive", "protocol", "send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self.send = send
        self.protocol: str | None = None
        """The subprotocol that the server selects in the handshake."""
        self._connected = False
        self._accepted = False

    async def receive(self) -> str | bytes:
        """Return the client's next message. Raise _ClientDisconnected if the client disconnects."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise _ClientDisconnected
        return message.get("text") or message.get("bytes") or b""

    async def accept(self) -> None:
        """Accept the WebSocket handshake, unless it is already accepted."""
        if self._accepted:
            return
        if not self._connected:
            await self.receive()
            self._connected = True
        try:
            await self.send({"type": "websocket.accept", "subprotocol": self.protocol, "headers": []})
        except DISCONNECT_ERRORS as error:
            raise _ClientDisconnected from error
        self._accepted = True

    async def close(self, code: int, reason: str) -> None:
        """Close the socket with this code and reason.

        Accept the handshake first if necessary, because a browser cannot read the HTTP status of a rejected handshake.
        """
        with suppress(_ClientDisconnected, *DISCONNECT_ERRORS), anyio.move_on_after(CLOSE_TIMEOUT_SECONDS):
            await self.accept()
            await self.send({"type": "websocket.close", "code": code, "reason": reason})


def _connections(app: Starlette) -> ConnectionRegistry:
    if "bridgekit_connections" not in app.state:
        raise ServeError("the application", NO_LIFESPAN)
    connections: ConnectionRegistry = app.state.bridgekit_connections
    return connections


def _monitored(request: Request) -> ConnectionRegistry:
    port = request.scope.get("state", {}).get(MONITORING_PORT)
    if port is not None and port != request.scope["server"][1]:  # a Unix socket has the port None
        raise HTTPException(HTTPStatus.NOT_FOUND)
    return _connections(request.app)


async def _metrics(request: Request) -> Response:
    connections = _monitored(request)
    return Response(metrics.exposition(connections.counters, connections.hub), media_type=metrics.CONTENT_TYPE)


async def _healthz(request: Request) -> Response:
    connections = _monitored(request)
    status, code = connections.health
    return Response(metrics.health(status, len(connections.hub)), code, media_type="application/json")
