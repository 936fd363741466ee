"""Serves an application in the running event loop, on its own port, for tests, notebooks and other programs."""

from __future__ import annotations

import logging
import math
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from bridgekit.errors import NotInstalled, ServeError, UnknownName, unwrap_single_error
from bridgekit.serve.connection_limits import LimitedHttpProtocol, limit_connection_errors
from bridgekit.serve.native_handoff import EDGES, UpgradeProtocol, check_lifespans, native_handoff
from bridgekit.transport.client import on_trio
from bridgekit.transport.connections import INCOMING_BYTES

__all__ = ["KEEPALIVE_SECONDS", "QUEUED_CONNECTIONS", "open_listener", "serving", "url", "uvicorn_config"]

KEEPALIVE_SECONDS: Final = 20.0
"""Time between pings, and time limit for the answer to a ping. Without an answer, the connection counts as broken."""
SHUTDOWN_TIMEOUT_SECONDS: Final = 2
"""How long open connections may take to end when the server stops."""
POLL_INTERVAL_SECONDS: Final = 0.005
ACCEPT_BATCH: Final = 8
"""Limit on connections that are accepted in one iteration of the event loop, so that other limits apply before the
server accepts more."""
QUEUED_CONNECTIONS: Final = 2_048
"""Limit on connections that wait to be accepted. The limit is set after each start, because asyncio first sets it to
ACCEPT_BATCH."""
MAX_USER_TIMEOUT_MS: Final = 2**31 - 1
DATE_HEADER_SECONDS: Final = 1.0
"""Time between updates of the Date header that uvicorn sends."""
TRIO_SERVER: Final = "hypercorn>=0.18,<1"


@asynccontextmanager
async def serving(
    app: Starlette,
    *,
    edge: str = "asgi",
    host: str = "127.0.0.1",
    port: int = 0,
    keepalive_seconds: float = KEEPALIVE_SECONDS,
    send_buffer_bytes: int | None = None,
) -> AsyncIterator[str]:
    """Serve the application while the block runs, and yield its address, such as `ws://127.0.0.1:49152`.

    With port 0, the system picks a port. The application's lifespan runs in the caller's task, so that errors of the
    lifespan, such as DeterministicStartupError, reach the caller. The server is uvicorn on asyncio and hypercorn on
    trio. Raises NotInstalled if hypercorn is missing. The "native" edge serves the bridge's sockets without ASGI. This
    edge needs asyncio. Raises ServeError if the native edge is not available, and UnknownName for an unknown edge.
    `send_buffer_bytes` limits the system's send buffer of each socket. By default, the system chooses the size, and may
    buffer megabytes for a client that does not read.
    """
    if edge not in EDGES:
        raise UnknownName("edge", edge, EDGES)
    if edge == "native" and on_trio():
        raise ServeError("the native edge", "it needs asyncio; on trio use the asgi edge")
    with (
        unwrap_single_error(),
        open_listener(host, port, keepalive_seconds=keepalive_seconds, send_buffer_bytes=send_buffer_bytes) as listener,
    ):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(app.router.lifespan_context(app))
            check_lifespans(app)
            if on_trio():
                await stack.enter_async_context(_hypercorn(app, listener, keepalive_seconds))
            else:
                state = await stack.enter_async_context(native_handoff(app)) if edge == "native" else {}
                await stack.enter_async_context(_uvicorn(app, listener, keepalive_seconds, state))
            yield url(host, listener.getsockname()[1])


def url(host: str, port: int) -> str:
    """Return the URL for clients, with an IPv6 address in brackets."""
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def open_listener(
    host: str, port: int, *, keepalive_seconds: float, send_buffer_bytes: int | None = None
) -> socket.socket:
    """Return a listening socket with the options of `serving`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Resolve the host here, because the zone of an IPv6 address, as in fe80::1%eth0, is a number in the address.
    address = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
    listener = socket.create_server(address, family=family)
    # Accepted sockets inherit the listening socket's options.
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    if sys.platform == "linux":
        # The system closes a connection whose client acknowledges no data for twice `keepalive_seconds`. Otherwise,
        # asyncio would close it only after writing all data, and hypercorn would continue to write.
        milliseconds = int(min(2_000 * keepalive_seconds, MAX_USER_TIMEOUT_MS))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    return listener


def uvicorn_config(
    app: ASGIApp | Callable[[], ASGIApp], *, keepalive_seconds: float, incoming_bytes: int, **options: Any
) -> uvicorn.Config:
    """Return the configuration that all uvicorn servers of the bridge share, with the caller's `options`."""
    limit_connection_errors()
    return uvicorn.Config(
        app,
        backlog=ACCEPT_BATCH,
        http=LimitedHttpProtocol,
        ws=UpgradeProtocol,
        ws_per_message_deflate=False,
        ws_max_size=incoming_bytes,
        ws_ping_interval=keepalive_seconds,
        ws_ping_timeout=keepalive_seconds,
        access_log=False,
        **options,
    )


@asynccontextmanager
async def _uvicorn(
    app: Starlette, listener: socket.socket, keepalive_seconds: float, state: Mapping[str, Any]
) -> AsyncIterator[None]:
    # `Server.serve` would replace the program's signal handlers. It also polls only ten times a second, which would
    # delay a test suite that starts and stops hundreds of servers.
    config = uvicorn_config(
        app, keepalive_seconds=keepalive_seconds, incoming_bytes=INCOMING_BYTES, lifespan="off", log_config=None
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    server.lifespan.state.update(state)
    # Shielded, because uvicorn leaves sockets and tasks open if a cancellation interrupts its shutdown.
    with anyio.CancelScope(shield=True):
        await server.startup([listener])
    listener.listen(QUEUED_CONNECTIONS)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_update_date_header, server)
            yield
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _shut_down(server)


async def _update_date_header(server: uvicorn.Server) -> None:
    while True:
        await server.on_tick(0)
        await anyio.sleep(DATE_HEADER_SECONDS)


async def _shut_down(server: uvicorn.Server) -> None:
    """Shut down as `Server.shutdown` does, but without its fixed wait of 0.1 s."""
    for listening_server in server.servers:
        listening_server.close()
    state = server.server_state
    for connection in list(state.connections):
        connection.shutdown()
    with anyio.move_on_after(SHUTDOWN_TIMEOUT_SECONDS):
        while state.connections or state.tasks:  # noqa: ASYNC110 - uvicorn has no event for it
            await anyio.sleep(POLL_INTERVAL_SECONDS)
        for listening_server in server.servers:
            await listening_server.wait_closed()
    for task in state.tasks:
        task.cancel()


@asynccontextmanager
async def _hypercorn(app: Starlette, listener: socket.socket, keepalive_seconds: float) -> AsyncIterator[None]:
    try:
        from hypercorn.config import Config
        from hypercorn.trio import serve
    except ImportError as error:
        raise NotInstalled("a server on trio", TRIO_SERVER) from error
    config = Config()
    # hypercorn closes the descriptor that it is given, so it gets a copy.
    config.bind = [f"fd://{listener.dup().detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.websocket_max_message_size = INCOMING_BYTES
    config.websocket_ping_interval = keepalive_seconds
    # hypercorn does not wait for a pong. A client that answers pings sends data, so a client that sends no data is
    # dead.
    config.read_timeout = math.ceil(2 * keepalive_seconds)
    config.graceful_timeout = SHUTDOWN_TIMEOUT_SECONDS
    calls, stop = _ActiveCalls(app), anyio.Event()
    async with anyio.create_task_group() as tasks:
        await tasks.start(partial(serve, calls, config, shutdown_trigger=stop.wait, mode="asgi"))
        yield
        stop.set()
        # hypercorn would wait until the next ping is due, although the sockets are already closed.
        with anyio.move_on_after(SHUTDOWN_TIMEOUT_SECONDS):
            await calls.wait_idle()
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()


class _ActiveCalls:
    """Calls the application except for its lifespan, and counts the calls in progress."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._count = 0
        self._ended = anyio.Event()

    # hypercorn and Starlette declare different types for these parameters.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for stage in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{stage}.complete"})
            return
        self._count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._count -= 1
            self._ended.set()
            self._ended = anyio.Event()

    async def wait_idle(self) -> None:
        while self._count:
            await self._ended.wait()


def show_warnings() -> None:
    """Print bridgekit's warnings and errors on standard error, unless the application configures logging."""
    ours = logging.getLogger("bridgekit")
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and f"{name}.".startswith("bridgekit."):
            logger.disabled = False  # `logging.config` disables every logger that it does not name
    for handler in ours.handlers[:]:
        if isinstance(handler, logging.NullHandler):
            ours.removeHandler(handler)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter("%(levelname)s:  %(name)s: %(message)s"))
