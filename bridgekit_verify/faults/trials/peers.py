"""Three servers that give every event to every subscriber: two as they are usually written, and the bridge.

The usual way waits for one socket after the other. Each is real, and small enough to be read here.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridgekit.chain.link_1_startup import Parts, create_app
from bridgekit.events import AgentEvent, EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit.serve.in_process import serving
from bridgekit.transport.admission import OwnersOnly
from bridgekit.transport.outbox import OutboxLimits

__all__ = ["PEERS", "Peer", "Served", "TheBridge"]

SEND_BUFFER_BYTES: Final = 16_384
"""Small, so that a reader who stops is felt at once and not after megabytes."""
THREAD: Final = ThreadId("thread_1")
USER: Final = "user_1"
OUTBOX_EVENTS: Final = 16


class Served(Protocol):
    """A server that is up."""

    @property
    def url(self) -> str:
        """Where a client subscribes."""

    async def emit(self, number: int, padding: str) -> None:
        """Give one event to every subscriber: a JSON text that holds `"number": …` and the padding."""


class Peer(Protocol):
    """A way to write such a server."""

    @property
    def name(self) -> str: ...

    @property
    def says(self) -> str: ...

    def up(self) -> AbstractAsyncContextManager[Served]: ...


class StarletteLoop:
    """An endpoint that keeps its sockets in a list, and a loop that sends to each of them."""

    name = "Starlette, a loop of sends"
    says = "for socket in sockets: await socket.send_text(event)"

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Served]:
        sockets: list[WebSocket] = []

        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept()
            sockets.append(websocket)
            try:
                while True:
                    await websocket.receive_text()
            except WebSocketDisconnect:
                sockets.remove(websocket)

        app = Starlette(routes=[WebSocketRoute("/", endpoint)])
        async with serving(app, send_buffer_bytes=SEND_BUFFER_BYTES) as url:
            yield _Loop(url, sockets)


class _Loop:
    def __init__(self, url: str, sockets: list[WebSocket]) -> None:
        self.url = url
        self._sockets = sockets

    async def emit(self, number: int, padding: str) -> None:
        for each in list(self._sockets):
            await each.send_text(f'{{"number": {number}, "padding": "{padding}"}}')


class WebsocketsLoop:
    """The same with the websockets library's own server."""

    name = "websockets, a loop of sends"
    says = "for connection in connections: await connection.send(event)"

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Served]:
        connections: list[ServerConnection] = []

        async def handler(connection: ServerConnection) -> None:
            connections.append(connection)
            await connection.wait_closed()
            connections.remove(connection)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            async with serve(handler, sock=listener, compression=None, close_timeout=0.1):
                yield _Sends(f"ws://127.0.0.1:{listener.getsockname()[1]}", connections)


class _Sends:
    def __init__(self, url: str, connections: list[ServerConnection]) -> None:
        self.url = url
        self._connections = connections

    async def emit(self, number: int, padding: str) -> None:
        for each in list(self._connections):
            try:
                await each.send(f'{{"number": {number}, "padding": "{padding}"}}')
            except ConnectionClosed:
                continue


class TheBridge:
    """The bridge: an event is put into each socket's bounded outbox, and nobody waits."""

    name = "bridgekit"
    says = "await bridge.notify(event)"

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Served]:
        app = create_app(Parts(agents={}, admission=OwnersOnly, outbox=OutboxLimits(events=OUTBOX_EVENTS)))
        async with serving(app, send_buffer_bytes=SEND_BUFFER_BYTES) as url:
            await app.state.bridgekit.open_thread(THREAD, USER)
            yield _Bridged(f"{url}/ws?thread_id={THREAD}&user_id={USER}", app)


class _Bridged:
    def __init__(self, url: str, app: Starlette) -> None:
        self.url = url
        self._notify = app.state.agent_websocket_bridge.notify

    async def emit(self, number: int, padding: str) -> None:
        await self._notify(
            AgentEvent(
                type=EventType.TOOL_COMPLETED,
                run_id=RunId("run_1"),
                agent_name="researcher",
                payload={"number": number, "padding": padding},
                thread_id=THREAD,
            )
        )


PEERS: Final[tuple[Peer, ...]] = (StarletteLoop(), WebsocketsLoop(), TheBridge())
