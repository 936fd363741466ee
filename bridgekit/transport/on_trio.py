"""The server and the client's socket for programs on trio: uvicorn and our usual client are asyncio's own.

What is needed for it is imported when it is used, since most programs run on asyncio and install neither.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskStatus
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from bridgekit.errors import NotInstalled

__all__ = ["ReadableSocket", "open_socket", "running", "serve"]

CLIENT: Final = "websockets>=17,<18"
SERVER: Final = "hypercorn>=0.18,<1"


class ReadableSocket(Protocol):
    """What both libraries' sockets can do."""

    async def recv(self) -> str | bytes: ...


def running() -> bool:
    """Whether the task that asks runs on trio."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    return False


def open_socket(url: str, **choices: Any) -> AbstractAsyncContextManager[ReadableSocket]:
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
    config.graceful_timeout = shutdown_seconds
    await serve_until(_without_lifespan(app), config, shutdown_trigger=stop.wait, task_status=task_status, mode="asgi")


def _without_lifespan(app: Starlette) -> Any:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})

    return application


@contextmanager
def _needing(use: str, requirement: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise NotInstalled(use, requirement) from error
