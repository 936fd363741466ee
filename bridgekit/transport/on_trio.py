"""The server and the client's socket for programs on trio: uvicorn and our usual client are asyncio's own.

What is needed for it is imported when it is used, since most programs run on asyncio and install neither.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskStatus
from starlette.applications import Starlette

from bridgekit.errors import NotInstalled

__all__ = ["ReadableSocket", "open_socket", "running", "serve"]

CLIENT: Final = "websockets>=17,<18"
SERVER: Final = "hypercorn>=0.18,<1"


class ReadableSocket(Protocol):
    """What both libraries' sockets can do."""

    async def recv(self) -> str | bytes: ...


class TrioSocket(ReadableSocket, Protocol):
    """What this one can do besides."""

    async def aclose(self) -> None: ...


def running() -> bool:
    """Whether the task that asks runs on trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def open_socket(url: str, **choices: Any) -> AbstractAsyncContextManager[TrioSocket]:
    """A WebSocket for the length of a block; `choices` are those of `websockets`, whose errors it raises."""
    with _needing("a client on trio", CLIENT):
        from websockets.trio.client import connect
    return connect(url, **choices)


async def serve(
    app: Starlette,
    listener: socket.socket,
    stop: anyio.Event,
    *,
    frame_bytes: int,
    keepalive_seconds: float,
    shutdown_seconds: float,
    task_status: TaskStatus[object],
) -> None:
    """Serve the application on a listening socket until told to stop. Its lifespan is the caller's business."""
    with _needing("a server on trio", SERVER):
        from hypercorn.config import Config
        from hypercorn.trio import serve as serve_until
    config = Config()
    # A copy of the descriptor: hypercorn closes the one that it is given.
    config.bind = [f"fd://{listener.dup().detach()}"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.websocket_max_message_size = frame_bytes
    config.websocket_ping_interval = keepalive_seconds
    # It sends pings and waits for no pong. But whoever answers them says something, so that who is silent is dead.
    config.read_timeout = math.ceil(2 * keepalive_seconds)
    config.graceful_timeout = shutdown_seconds
    calls = _Calls(app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_end_when_idle, calls, stop, tasks.cancel_scope)
        await serve_until(calls, config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")
        tasks.cancel_scope.cancel()


class _Calls:
    """The application without its lifespan, and how many calls of it are under way."""

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._count = 0
        self._ended = anyio.Event()

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

    async def none(self) -> None:
        while self._count:
            await self._ended.wait()


async def _end_when_idle(calls: _Calls, stop: anyio.Event, server: anyio.CancelScope) -> None:
    """Hypercorn would wait until the last ping of sockets that are gone already would have been sent."""
    await stop.wait()
    await calls.none()
    await anyio.wait_all_tasks_blocked()  # what it still does for them
    server.cancel()


@contextmanager
def _needing(use: str, requirement: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise NotInstalled(use, requirement) from error
