"""The ASGI edge: one WebSocket endpoint, `/metrics` and `/healthz`. Mounts in Starlette and FastAPI."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

import anyio
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from bridgekit.errors import Disconnected, SubscriptionRefused
from bridgekit.signals import Cursor
from bridgekit.transport import metrics
from bridgekit.transport.authorization import Handshake, Subscription, parse_handshake
from bridgekit.transport.connections import CLOSE_TIMEOUT_SECONDS, REASONS, ConnectionRegistry
from bridgekit.transport.log_redaction import redact_tickets
from bridgekit.transport.writer import AsgiSubscriber

__all__ = ["routes"]

SERVERS_LOGGERS: Final = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets.server", "hypercorn.access")
"""Where servers write down addresses and, at level DEBUG, headers and messages."""
GONE: Final = (WebSocketDisconnect, OSError, RuntimeError)
"""What a send raises when the client has left, or the server has closed the socket itself, for a dead peer or a frame
too large: each server says it in its own way, and middleware turns some of it into Starlette's."""


def routes() -> list[BaseRoute]:
    """The edge's routes: `/ws`, `/metrics` and `/healthz`."""
    redact_tickets(*SERVERS_LOGGERS)
    return [WebSocketRoute("/ws", _stream), Route("/metrics", _metrics), Route("/healthz", _healthz)]


class _Endpoint:
    """An ASGI application for WebSockets. Starlette's own class for one would be four more frames for each event."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        edge: ConnectionRegistry = scope["app"].state.bridgekit_connections
        line = _Line(receive, send)
        try:
            subscription, after = await _admitted(edge, line, _handshake_of(scope))
            code = await _served(edge, line, subscription, after)
        except (SubscriptionRefused, Disconnected) as refusal:
            await line.close(*edge.reject(refusal))
        except _Gone:
            return
        else:
            if code is not None:
                await line.close(code, REASONS[code])


_stream: Final = _Endpoint()


def _handshake_of(scope: Scope) -> Handshake:
    headers = Headers(scope=scope)
    return parse_handshake(
        scope["query_string"].decode(errors="replace"),
        protocols=headers.getlist("sec-websocket-protocol"),
        origin=headers.get("origin"),
        host=headers.get("host"),
        secure=scope.get("scheme") == "wss",
    )


async def _admitted(edge: ConnectionRegistry, line: _Line, asked: Handshake) -> tuple[Subscription, Cursor | None]:
    line.protocol = asked.protocol
    after = edge.check_origin_and_cursor(asked)
    if edge.authorizer.awaits_message(asked):
        await line.accept()
        ticket = await edge.first_ticket(line.hear)
        return await edge.authorize(replace(asked, ticket=ticket)), after
    return await edge.authorize(asked), after


async def _served(
    edge: ConnectionRegistry, line: _Line, subscription: Subscription, after: Cursor | None
) -> int | None:
    """The close code, when its end has come; None where the client has left, or nothing can be said to it."""
    with anyio.CancelScope() as stay:
        socket = AsgiSubscriber(subscription, edge.scheduler, send=line.send, read_scope=stay)
        # Attached before the client can know that it is subscribed: no event falls between.
        async with edge.attached(socket, after) as replay:
            try:
                await line.accept()
                socket.begin(replay)
                # Events go one way; what a client says is read, so that its leaving is noticed, and dropped.
                while True:
                    await line.hear()
            except _Gone:
                pass
            finally:
                socket.abort()
    await socket.wait_closed()
    if socket.failure is not None and not isinstance(socket.failure, GONE):
        raise socket.failure
    return socket.code


class _Gone(Exception):
    """The client has left."""


class _Line:
    """A client's connection, as the server gives it, with what it said so far."""

    __slots__ = ("_accepted", "_begun", "_receive", "protocol", "send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self.send = send
        self.protocol: str | None = None
        """The subprotocol to answer with."""
        self._begun = False
        self._accepted = False

    async def hear(self) -> str | bytes:
        """What the client says next; _Gone when it leaves."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise _Gone
        return message.get("text") or message.get("bytes") or b""

    async def accept(self) -> None:
        """Accept it, if that was not done before."""
        if self._accepted:
            return
        if not self._begun:
            await self.hear()
            self._begun = True
        try:
            await self.send({"type": "websocket.accept", "subprotocol": self.protocol, "headers": []})
        except GONE as error:
            raise _Gone from error
        self._accepted = True

    async def close(self, code: int, reason: str) -> None:
        """Accepted, if need be, only to be closed: a browser cannot read the status of a refused handshake."""
        with suppress(_Gone, *GONE), anyio.move_on_after(CLOSE_TIMEOUT_SECONDS):
            await self.accept()
            await self.send({"type": "websocket.close", "code": code, "reason": reason})


async def _metrics(request: Request) -> Response:
    edge: ConnectionRegistry = request.app.state.bridgekit_connections
    return Response(metrics.exposition(edge.counters, edge.hub), media_type=metrics.CONTENT_TYPE)


async def _healthz(request: Request) -> Response:
    edge: ConnectionRegistry = request.app.state.bridgekit_connections
    status, code = edge.health
    return Response(metrics.health(status, len(edge.hub)), code, media_type="application/json")
