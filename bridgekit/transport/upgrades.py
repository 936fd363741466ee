"""A connection that asks for a socket of ours is taken from uvicorn and given to the native edge, behind one door.

What else comes is uvicorn's: the application's pages, and sockets of its own. What of the application stands before
its routes, middleware above all, does not see the sockets that are taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.asyncio.server import Server
from websockets.protocol import State

from bridgekit.errors import NotServable
from bridgekit.transport.asgi import routes
from bridgekit.transport.native import Connection, natively, taken_over

__all__ = ["TAKEN", "Upgrade", "bridge_paths", "taking"]

TAKEN: Final = "bridgekit.taken"
"""Where uvicorn's state of the application says what is taken from it."""
SERVICE_RESTART: Final = 1_012
"""With which code uvicorn, too, closes what nobody has drained."""


def bridge_paths(app: Starlette) -> frozenset[str]:
    """Where the application has sockets of the bridge, among its own routes and with nothing in front of them."""
    ours = {route.endpoint for route in routes() if isinstance(route, WebSocketRoute)}
    first: dict[str, WebSocketRoute] = {}
    for route in app.routes:
        if isinstance(route, WebSocketRoute):
            first.setdefault(route.path, route)
    return frozenset(path for path, route in first.items() if route.endpoint in ours and route.app is route.endpoint)


@dataclass(frozen=True)
class Taken:
    """Which requests are taken, and by whom."""

    paths: frozenset[str]
    server: Server

    def wants(self, head: bytes) -> bool:
        """Whether a request with this head is to be served natively."""
        target = head.partition(b"\r\n")[0].partition(b" ")[2]
        return target.partition(b" ")[0].partition(b"?")[0].decode("latin-1") in self.paths


@asynccontextmanager
async def taking(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Serve an application's sockets natively for the length of a block; gives what uvicorn's state is to hold.

    The application is running. NotServable where it has no routes of the bridge's.
    """
    paths = bridge_paths(app)
    if not paths:
        raise NotServable(
            "the application", "it has no routes of bridgekit's for the native edge: routes=[*routes(), …]"
        )
    async with natively(app.state.bridgekit_edge) as server:
        yield {TAKEN: Taken(paths, server)}


class _Taken(Connection):
    """A connection that uvicorn knows of, as of its own: it waits for it when it stops."""

    among: set[Any]
    """All that uvicorn knows of."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.among.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.among.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """End, now: so uvicorn asks when it stops."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(SERVICE_RESTART)
            self.send_data()
        self.abort_soon()


class Upgrade(asyncio.Protocol):
    """What uvicorn makes of a connection that asks for a socket: it is told the request, and nothing after it."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._taken: Taken | None = app_state.get(TAKEN)
        self._natively = partial(_connection, config, server_state)
        self._by_uvicorn = partial(WebSocketsSansIOProtocol, config, server_state, app_state)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        taken = self._taken
        chosen = self._natively(taken.server) if taken is not None and taken.wants(data) else self._by_uvicorn()
        # Not now: uvicorn puts us in the place when this returns. Before anything else comes of this connection, as
        # this is the first to be called.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, chosen)
        chosen.connection_made(self._transport)
        chosen.data_received(data)


def _connection(config: Config, server_state: ServerState, server: Server) -> asyncio.Protocol:
    connection = taken_over(
        server, kind=_Taken, keepalive_seconds=config.ws_ping_interval, incoming_bytes=config.ws_max_size
    )
    connection.among = server_state.connections
    return connection
