"""The native hand-off: uvicorn hands the connections of the bridge's WebSocket routes to the native edge.

uvicorn serves all other connections: those of the application's pages, and of its other WebSocket routes. Code in front
of the application's routes, such as middleware, is not called for a connection that is handed off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, WebSocketRoute
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState
from websockets.asyncio.server import Server
from websockets.protocol import State

from bridgekit.errors import ServeError
from bridgekit.serve.connection_limits import LimitedWebSocketProtocol, few_files_left, rejection
from bridgekit.transport.asgi import NO_LIFESPAN, routes
from bridgekit.transport.native import NativeConnection, adopt_connection, serve_native

__all__ = [
    "EDGES",
    "HANDOFF_KEY",
    "UpgradeProtocol",
    "bridge_applications",
    "bridge_paths",
    "check_lifespans",
    "choose_edge",
    "native_handoff",
    "unwrapped",
]

EDGES: Final = ("asgi", "native")
NO_BRIDGE: Final = "it does not start the bridge; create it with lifespan=lifespan(config)"
NON_WEBSOCKET_MIDDLEWARE: Final = (BaseHTTPMiddleware, CORSMiddleware, GZipMiddleware)
"""Middleware classes that pass WebSocket connections on unchanged."""
HANDOFF_KEY: Final = "bridgekit.handoff"
"""The key under which uvicorn's application state holds the HandoffTarget."""
SERVICE_RESTART: Final = 1_012
"""The close code of a socket that was not drained. uvicorn uses the same code."""


def choose_edge(target: str, app: ASGIApp, requested: str | None) -> str:
    """Return the requested edge.

    If no edge is requested, return "native" for a Starlette application with routes of the bridge, unless its
    middleware, or code of its own in front of the routes, may act on WebSockets. Otherwise, return "asgi".

    Raises ServeError if the native edge is requested and the application is neither Starlette nor FastAPI.
    """
    if not isinstance(app, Starlette):
        if requested == "native":
            raise ServeError(
                target,
                f"it is of type {type(app).__name__}, and the native edge serves Starlette and FastAPI applications;"
                " use --edge asgi",
            )
        return "asgi"
    if requested is not None:
        return requested
    return "native" if bridge_paths(app) and _has_plain_front(app) and not _websocket_middleware(app) else "asgi"


def _has_plain_front(app: Starlette) -> bool:
    """Return whether only code of Starlette and FastAPI runs between the server and the application's middleware and
    routes."""
    built, router = app.middleware_stack, app.router
    front = (type(app).__call__, app.build_middleware_stack, type(router).__call__, router.middleware_stack)
    return type(built) in (type(None), ServerErrorMiddleware) and all(map(_is_starlettes, front))


def _is_starlettes(call: object) -> bool:
    # Do not compare `__module__`, because `functools.wraps` copies it to a wrapper.
    module: str = getattr(getattr(call, "__func__", call), "__globals__", {}).get("__name__", "")
    return module.partition(".")[0] in ("starlette", "fastapi")


def _websocket_middleware(app: Starlette) -> bool:
    """Return whether middleware of the application may act on WebSocket connections."""
    kinds: list[Any] = [middleware.cls for middleware in app.user_middleware]
    return not all(isinstance(kind, type) and _passes_websockets(kind) for kind in kinds)


def _passes_websockets(kind: Any) -> bool:
    # Compare the `__call__` methods, because a subclass may act on connections that its base class passes on unchanged.
    return any(kind.__call__ is known.__call__ for known in NON_WEBSOCKET_MIDDLEWARE)


def bridge_paths(app: Starlette) -> frozenset[str]:
    """Return the paths of the application's routes to the bridge, except routes with middleware of their own."""
    ours = {route.endpoint for route in routes() if isinstance(route, WebSocketRoute)}
    first: dict[str, WebSocketRoute] = {}
    for route in _websocket_routes(app.routes):
        first.setdefault(route.path, route)
    return frozenset(path for path, route in first.items() if route.endpoint in ours and route.app is route.endpoint)


def bridge_applications(app: Any, owner: Starlette | None = None, prefix: str = "") -> Iterator[tuple[str, Starlette]]:
    """Yield the path of each WebSocket route of the bridge, and the application whose lifespan serves it.

    Routes are found below mounted applications and hosts, and behind middleware that has its application in the
    attribute `app`.
    """
    ours = {route.endpoint for route in routes() if isinstance(route, WebSocketRoute)}
    app = unwrapped(app)
    owner = app if isinstance(app, Starlette) else owner
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount | Host):
            yield from bridge_applications(route.app, owner, prefix + getattr(route, "path", ""))
        elif owner is not None:
            yield from ((prefix + each.path, owner) for each in _websocket_routes([route]) if each.endpoint in ours)


def unwrapped(app: Any) -> Any:
    """Return the application behind middleware."""
    while getattr(app, "routes", None) is None and (inner := getattr(app, "app", None)) is not None:
        app = inner
    return app


def check_lifespans(app: Any) -> None:
    """Raise ServeError if an application has routes of the bridge and its lifespan did not run."""
    for path, owner in bridge_applications(app):
        if "bridgekit_connections" not in owner.state:
            if owner is unwrapped(app):
                raise ServeError("the application", NO_BRIDGE)
            raise ServeError(f"the application at {path.removesuffix('/ws') or '/'}", NO_LIFESPAN)


def _websocket_routes(among: Iterable[Any]) -> Iterator[WebSocketRoute]:
    for route in among:
        if isinstance(route, WebSocketRoute):
            yield route
        # FastAPI keeps the routes of `include_router` in one route, and adds the prefix to the path of each route.
        for nested in getattr(route, "effective_candidates", list)():
            yield from _websocket_routes([getattr(nested, "starlette_route", None) or nested])


@dataclass(frozen=True)
class HandoffTarget:
    """Decides which requests uvicorn hands off, and holds the server that takes them."""

    paths: frozenset[str]
    server: Server

    def accepts(self, head: bytes) -> bool:
        """Return whether the native edge serves a request with this head."""
        target = head.partition(b"\r\n")[0].partition(b" ")[2]
        return target.partition(b" ")[0].partition(b"?")[0].decode("latin-1") in self.paths


@asynccontextmanager
async def native_handoff(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    """Serve a running application's sockets natively while the block runs, and yield entries for uvicorn's state.

    Raises ServeError if the application has no routes of the bridge.
    """
    paths = bridge_paths(app)
    if not paths:
        raise ServeError("the application", "it has no bridgekit routes for the native edge; add routes=[*routes(), …]")
    async with serve_native(app.state.bridgekit_connections) as server:
        yield {HANDOFF_KEY: HandoffTarget(paths, server)}


class _AdoptedConnection(NativeConnection):
    """A native connection that uvicorn counts among its own: on shutdown, uvicorn closes it and waits for it."""

    connections: set[Any]
    """uvicorn's set of open connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connections.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Close the connection, because uvicorn shuts down."""
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(SERVICE_RESTART)
            self.send_data()
        self.abort_soon()


class UpgradeProtocol(asyncio.Protocol):
    """Replaces uvicorn's WebSocket protocol: reads the upgrade request, and then hands the connection to an edge."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if few_files_left(self._server_state) else rejection(data)
        if status is not None:
            line = f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            self._transport.write(f"{line}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
            self._transport.close()
            return
        chosen = self._protocol_for(data)
        # The protocol is set in a scheduled call, because uvicorn sets UpgradeProtocol when the current call returns.
        # The scheduled call runs before the event loop reads more data.
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, chosen)
        chosen.connection_made(self._transport)
        chosen.data_received(data)

    def _protocol_for(self, head: bytes) -> asyncio.Protocol:
        target: HandoffTarget | None = self._app_state.get(HANDOFF_KEY)
        if target is None or not target.accepts(head):
            return LimitedWebSocketProtocol(self._config, self._server_state, self._app_state)
        connection = adopt_connection(
            target.server,
            kind=_AdoptedConnection,
            keepalive_seconds=self._config.ws_ping_interval,
            incoming_bytes=self._config.ws_max_size,
        )
        connection.connections = self._server_state.connections
        return connection
