"""The ASGI edge: one WebSocket endpoint, `/metrics` and `/healthz`. Mounts in Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bridgekit.errors import SubscriptionRefused
from bridgekit.events import Frame
from bridgekit.ids import ThreadId, UserId
from bridgekit.tally import Tally
from bridgekit.transport import monitoring
from bridgekit.transport.admission import CLOSE_DRAINED, CLOSE_TOO_SLOW, Admission, Subscription
from bridgekit.transport.hub import Hub
from bridgekit.transport.outbox import Outbox

__all__ = ["Edge", "Subscribed", "routes"]

DRAIN_SECONDS: Final = 10.0
"""How long sockets that are being drained may take to read what waits for them."""
CLOSE_SECONDS: Final = 1.0
"""How long a socket that is being closed may take over it."""
REASON_BYTES: Final = 123
"""Longest reason that a close frame can carry (RFC 6455, section 5.5)."""
GONE: Final = (WebSocketDisconnect, OSError)
"""What a send raises when the client has left; Starlette turns only some of a server's OSErrors into the former."""


class Subscribed(msgspec.Struct, frozen=True, tag_field="type", tag="subscribed"):
    """The first frame of every socket: from now on it gets each event of the thread after `seq`."""

    thread_id: ThreadId
    seq: int


class Edge:
    """What the endpoints need; the application carries it at `app.state.bridgekit_edge`."""

    def __init__(self, hub: Hub, admission: Admission, tally: Tally) -> None:
        self.hub = hub
        self.admission = admission
        self.tally = tally
        self._sockets: set[_Socket] = set()
        self._left = anyio.Event()

    async def drain(self, *, seconds: float = DRAIN_SECONDS) -> None:
        """Close every socket when all that waits for it is written, and wait until they are gone.

        A socket whose client does not read is cut off after that many seconds.
        """
        # Those that are here now: a client that is told to connect again may do so here, and is not waited for.
        leaving = set(self._sockets)
        for socket in leaving:
            socket.outbox.close()
        with anyio.move_on_after(seconds):
            while leaving & self._sockets:
                await self._left.wait()
        for stuck in leaving & self._sockets:
            stuck.cut()

    @contextmanager
    def attached(self, socket: _Socket) -> Iterator[None]:
        self._sockets.add(socket)
        try:
            with self.hub.attached(socket):
                yield
        finally:
            self._sockets.discard(socket)
            self._left.set()
            self._left = anyio.Event()


def routes() -> list[BaseRoute]:
    """The edge's routes: `/ws`, `/metrics` and `/healthz`."""
    return [WebSocketRoute("/ws", _stream), Route("/metrics", _metrics), Route("/healthz", _healthz)]


class _Socket:
    """A Connection over an outbox. A socket whose outbox is full is given up: it must connect again."""

    def __init__(self, subscription: Subscription, gone: anyio.CancelScope) -> None:
        self._subscription = subscription
        self._gone = gone
        self.outbox = Outbox()
        self.too_slow = False
        self.unwritten = 0
        """Frames taken and not written yet: those in the outbox, and those that the writer holds."""

    @property
    def thread_id(self) -> ThreadId:
        return self._subscription.thread_id

    @property
    def user_id(self) -> UserId:
        return self._subscription.user_id

    def cut(self) -> None:
        """Let go of a client that does not read: the writer may be stuck in a send that never ends."""
        self.too_slow = True
        self._gone.cancel()

    def put(self, frame: Frame) -> bool:
        if self.too_slow or self.outbox.closed:
            return False
        if self.outbox.put(frame):
            self.unwritten += 1
            return True
        self.cut()
        return False


async def _stream(websocket: WebSocket) -> None:
    edge: Edge = websocket.app.state.bridgekit_edge
    try:
        subscription = await edge.admission.admit(websocket)
    except SubscriptionRefused as refusal:
        # Accepted only to be closed: a browser cannot read the status of a refused handshake.
        with suppress(*GONE):
            await websocket.accept()
            await websocket.close(refusal.code, _fitting(refusal.reason))
        return
    async with anyio.create_task_group() as tasks:
        socket = _Socket(subscription, tasks.cancel_scope)
        # Attached before the client can know that it is subscribed: no event falls between.
        with edge.attached(socket):
            # Taken with no await between: each later event is one that this socket gets.
            hello = Subscribed(subscription.thread_id, edge.hub.last_seq(subscription.thread_id))
            try:
                await websocket.accept()
                await websocket.send_text(msgspec.json.encode(hello).decode())
                tasks.start_soon(_read_until_gone, websocket, tasks.cancel_scope)
                await _write(websocket, socket)
                await websocket.close(CLOSE_DRAINED, "the server is going away: connect again")
            except GONE:
                pass
            tasks.cancel_scope.cancel()
    _settle(edge.tally, socket)
    if socket.too_slow:
        with suppress(*GONE), anyio.move_on_after(CLOSE_SECONDS):
            await websocket.close(CLOSE_TOO_SLOW, "too slow: connect again")


async def _write(websocket: WebSocket, socket: _Socket) -> None:
    while frames := await socket.outbox.take():
        for frame in frames:
            await websocket.send_text(frame.data.decode())
            socket.unwritten -= 1


async def _read_until_gone(websocket: WebSocket, gone: anyio.CancelScope) -> None:
    """Events go one way; what a client says is read, so that its leaving is noticed, and dropped."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    gone.cancel()


def _settle(tally: Tally, socket: _Socket) -> None:
    if socket.unwritten:
        tally.unwritten["too slow" if socket.too_slow else "socket left"] += socket.unwritten


def _fitting(reason: str) -> str:
    return reason.encode()[:REASON_BYTES].decode(errors="ignore")


async def _metrics(request: Request) -> Response:
    edge: Edge = request.app.state.bridgekit_edge
    return Response(monitoring.exposition(edge.tally, edge.hub), media_type=monitoring.CONTENT_TYPE)


async def _healthz(request: Request) -> Response:
    edge: Edge = request.app.state.bridgekit_edge
    return JSONResponse({"status": "ok", "connections": len(edge.hub)})
