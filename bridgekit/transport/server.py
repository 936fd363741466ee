"""A real server on a loopback port, for tests, notebooks and the command line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

import anyio
import uvicorn
from starlette.applications import Starlette

from bridgekit.errors import NotServable, UnknownName, first_error
from bridgekit.transport import on_trio
from bridgekit.transport.edge import INCOMING_BYTES
from bridgekit.transport.upgrades import Upgrade, taking

__all__ = ["EDGES", "KEEPALIVE_SECONDS", "listening", "serving"]

EDGES: Final = ("asgi", "native")

KEEPALIVE_SECONDS: Final = 20.0
"""After so long a ping is sent, and after as long again without an answer the client counts as dead."""

STARTUP_SECONDS: Final = 10.0
SHUTDOWN_SECONDS: Final = 2
LOOK_SECONDS: Final = 0.005
"""Between two looks at what is left of a server that ends."""
TICK_SECONDS: Final = 1.0
"""How often the server renews its Date header."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, state: Mapping[str, object]) -> None:
        super().__init__(config)
        self._state = state
        """What its application's lifespan would tell it, which runs elsewhere."""
        self.up = anyio.Event()
        self._ends = anyio.Event()

    def end(self) -> None:
        """Leave the main loop now."""
        self.should_exit = True
        self._ends.set()

    async def main_loop(self) -> None:
        """Wait to be ended. uvicorn asks ten times a second, and a suite starts and ends hundreds of servers."""
        while not await self.on_tick(0):
            with anyio.move_on_after(TICK_SECONDS):
                await self._ends.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.lifespan.state.update(self._state)
        await super().startup(sockets)
        self.up.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does it, but for its nap of a tenth of a second whether or not anything is left to wait for."""
        for server in self.servers:
            server.close()
        left = self.server_state
        for connection in list(left.connections):
            connection.shutdown()
        with anyio.move_on_after(SHUTDOWN_SECONDS):
            while left.connections or left.tasks:  # noqa: ASYNC110 - nothing rings when the last of them has gone
                await anyio.sleep(LOOK_SECONDS)
            for server in self.servers:
                await server.wait_closed()
        for task in left.tasks:
            task.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program around: a kernel or a test runner has its own use for them."""
        yield


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
    """Serve the application for the length of a block; gives its address, such as `ws://127.0.0.1:49152`.

    Port 0 lets the system pick one. The application's lifespan runs here, so that its own error reaches the
    caller, DeterministicStartupError for instance. On asyncio it is uvicorn that serves; on trio hypercorn, and
    NotInstalled says so where it is missing. By the "native" edge the bridge's sockets are served without ASGI between,
    on asyncio only, and all else as before; NotServable where that cannot be. `send_buffer_bytes` is what the system
    may hold for each socket; by default it decides for itself, and then may hide for megabytes that nobody reads.
    """
    served = _server_for(edge)
    with (
        first_error(),
        listening(host, port, keepalive_seconds=keepalive_seconds, send_buffer_bytes=send_buffer_bytes) as listener,
    ):
        async with app.router.lifespan_context(app), served(app, listener, keepalive_seconds):
            yield f"ws://{host}:{listener.getsockname()[1]}"


Served = Callable[[Starlette, socket.socket, float], AbstractAsyncContextManager[None]]


def _server_for(edge: str) -> Served:
    if edge not in EDGES:
        raise UnknownName("edge", edge, EDGES)
    if not on_trio.running():
        return _served_natively if edge == "native" else _served_on_asyncio
    if edge == "native":
        raise NotServable("the native edge", "it is for asyncio alone; on trio the asgi edge serves")
    return _served_on_trio


@contextlib.contextmanager
def listening(
    host: str, port: int, *, keepalive_seconds: float, send_buffer_bytes: int | None = None
) -> Iterator[socket.socket]:
    """A listening socket for the length of a block, set up as `serving` says."""
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        if send_buffer_bytes is not None:
            # Sockets that are accepted have it from the one that listens.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        _give_up_on_who_takes_nothing(listener, 2 * keepalive_seconds)
        yield listener


def _give_up_on_who_takes_nothing(listener: socket.socket, seconds: float) -> None:
    """Have the system break every accepted connection whose other end has taken nothing of what waits for so long.

    Neither server can: with something left to write, asyncio only closes a connection when that is written, and
    hypercorn does not stop writing whatever becomes of the application. Linux only.
    """
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1_000))


@asynccontextmanager
async def _served_natively(app: Starlette, listener: socket.socket, keepalive_seconds: float) -> AsyncIterator[None]:
    async with (
        taking(app) as state,
        _served_on_asyncio(app, listener, keepalive_seconds, ws=Upgrade, state=state),
    ):
        yield


@asynccontextmanager
async def _served_on_asyncio(
    app: Starlette,
    listener: socket.socket,
    keepalive_seconds: float,
    *,
    ws: type[asyncio.Protocol] | Literal["websockets-sansio"] = "websockets-sansio",
    state: Mapping[str, object] = MappingProxyType({}),
) -> AsyncIterator[None]:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws=ws,
        ws_per_message_deflate=False,
        ws_max_size=INCOMING_BYTES,
        ws_ping_interval=keepalive_seconds,
        ws_ping_timeout=keepalive_seconds,
        log_config=None,
        access_log=False,
    )
    server = _Server(config, state)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_serve, server, listener)
        try:
            with anyio.fail_after(STARTUP_SECONDS):
                await server.up.wait()
            yield
        finally:
            server.end()


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until told to exit. Cancelled, uvicorn would leave its sockets and their tasks behind: hence the shield."""
    with anyio.CancelScope(shield=True):
        await server.serve([listener])


@asynccontextmanager
async def _served_on_trio(app: Starlette, listener: socket.socket, keepalive_seconds: float) -> AsyncIterator[None]:
    stop = anyio.Event()
    serve = partial(
        on_trio.serve,
        frame_bytes=INCOMING_BYTES,
        keepalive_seconds=keepalive_seconds,
        shutdown_seconds=SHUTDOWN_SECONDS,
    )
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(STARTUP_SECONDS):
            await tasks.start(serve, app, listener, stop)
        try:
            yield
        finally:
            stop.set()
