"""The ASGI edge: one WebSocket endpoint, `/metrics` and `/healthz`. Mounts in Starlette and FastAPI."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from bridgekit.errors import Disconnected, SubscriptionRefused, first_error
from bridgekit.signals import Cursor
from bridgekit.transport import monitoring
from bridgekit.transport.admission import Handshake, Subscription, handshake_of
from bridgekit.transport.discretion import keep_tickets_out_of_logs
from bridgekit.transport.edge import CLOSE_SECONDS, REASONS, Edge
from bridgekit.transport.subscriber import Subscriber

__all__ = ["routes"]

SERVERS_LOGGERS: Final = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets.server", "hypercorn.access")
"""Where servers write down addresses and, at level DEBUG, headers and messages."""
GONE: Final = (WebSocketDisconnect, OSError)
"""What a send raises when the client has left; Starlette turns only some of a server's OSErrors into the former."""


def routes() -> list[BaseRoute]:
    """The edge's routes: `/ws`, `/metrics` and `/healthz`."""
    keep_tickets_out_of_logs(*SERVERS_LOGGERS)
    return [WebSocketRoute("/ws", _stream), Route("/metrics", _metrics), Route("/healthz", _healthz)]


async def _stream(websocket: WebSocket) -> None:
    edge: Edge = websocket.app.state.bridgekit_edge
    asked = _handshake_of(websocket)
    with suppress(*GONE):
        try:
            await _serve(edge, websocket, asked, *await _admitted(edge, websocket, asked))
        except (SubscriptionRefused, Disconnected) as refusal:
            await _close(websocket, asked, *edge.turn_away(refusal))


def _handshake_of(websocket: WebSocket) -> Handshake:
    return handshake_of(
        websocket.url.query,
        protocols=websocket.headers.getlist("sec-websocket-protocol"),
        origin=websocket.headers.get("origin"),
        host=websocket.headers.get("host"),
        secure=websocket.scope.get("scheme") == "wss",
    )


async def _admitted(edge: Edge, websocket: WebSocket, asked: Handshake) -> tuple[Subscription, Cursor | None]:
    after = edge.look_at(asked)
    if edge.admission.awaits_message(asked):
        await _accept(websocket, asked)
        ticket = await edge.first_ticket(partial(_message, websocket))
        return await edge.admit(replace(asked, ticket=ticket)), after
    return await edge.admit(asked), after


async def _message(websocket: WebSocket) -> str | bytes:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1_005))
    return message.get("text") or message.get("bytes") or b""


async def _accept(websocket: WebSocket, asked: Handshake) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        await websocket.accept(asked.protocol)


async def _close(websocket: WebSocket, asked: Handshake, code: int, reason: str) -> None:
    """Accepted, if need be, only to be closed: a browser cannot read the status of a refused handshake."""
    with suppress(*GONE), anyio.move_on_after(CLOSE_SECONDS):
        await _accept(websocket, asked)
        await websocket.close(code, reason)


async def _serve(
    edge: Edge, websocket: WebSocket, asked: Handshake, subscription: Subscription, after: Cursor | None
) -> None:
    with first_error():
        async with anyio.create_task_group() as tasks:
            bell = _Bell()
            socket = Subscriber(subscription, wake=bell.ring, cut=tasks.cancel_scope.cancel, outbox=edge.outbox())
            # Attached before the client can know that it is subscribed: no event falls between.
            async with edge.attached(socket, after) as replay:
                with suppress(*GONE):
                    await _accept(websocket, asked)
                    # From the start: a server that nobody reads from does not see its client's pongs either.
                    tasks.start_soon(_read_until_gone, websocket, tasks.cancel_scope)
                    await _write(websocket, socket, bell, socket.begin(replay))
                tasks.cancel_scope.cancel()
    if socket.code is not None:
        await _close(websocket, asked, socket.code, REASONS[socket.code])


class _Bell:
    """Wakes the one task that waits for it; rung early, it rings when that task comes to wait."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        await self._rung.wait()
        self._rung = anyio.Event()


async def _write(websocket: WebSocket, socket: Subscriber, bell: _Bell, first: list[bytes]) -> None:
    for data in first:
        await _send(websocket, data)
    while True:
        for data in socket.take():
            await _send(websocket, data)
            socket.in_hand -= 1
        if not socket.outbox:
            if socket.code is not None:
                return
            await bell.wait()


async def _send(websocket: WebSocket, data: bytes) -> None:
    try:
        await websocket.send_text(data.decode())
    except RuntimeError as error:
        # That the server has closed the socket itself, for a dead peer or a frame too large, it says in different ways.
        raise WebSocketDisconnect(1_006) from error


async def _read_until_gone(websocket: WebSocket, gone: anyio.CancelScope) -> None:
    """Events go one way; what a client says is read, so that its leaving is noticed, and dropped."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    gone.cancel()


async def _metrics(request: Request) -> Response:
    edge: Edge = request.app.state.bridgekit_edge
    return Response(monitoring.exposition(edge.tally, edge.hub), media_type=monitoring.CONTENT_TYPE)


async def _healthz(request: Request) -> Response:
    edge: Edge = request.app.state.bridgekit_edge
    status, code = edge.health
    return Response(monitoring.health(status, len(edge.hub)), code, media_type="application/json")
