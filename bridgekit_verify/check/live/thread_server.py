"""Serves an ASGI application on 127.0.0.1, in a thread with an event loop of its own."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp

__all__ = ["ThreadServer"]


class ThreadServer:
    """Serves an application during a `with` block. Blocking code in the application does not delay the caller.

    With port 0 the system chooses the port. `options` are uvicorn's options.
    """

    def __init__(self, app: ASGIApp, name: str, port: int = 0, **options: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", port), backlog=512)
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1, **options)
        self._server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self._serve, name=name)

    def _serve(self) -> None:
        with (
            suppress(SystemExit),
            self._socket,
        ):  # uvicorn exits if the application's lifespan fails, and no client can then connect.
            self._server.run([self._socket])

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self.thread.join()
