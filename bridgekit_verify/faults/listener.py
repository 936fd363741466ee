"""The proxy's port: it can refuse for a while, and has the same number afterwards."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import anyio

from bridgekit_verify.faults.connection import prepare

__all__ = ["Listener"]

BACKLOG: Final = 1_024


class Listener:
    """A port on the loopback that can refuse, and keeps its number while it does."""

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._socket = self._bound(0)
        self.port: int = self._socket.getsockname()[1]
        self.refuses = True
        self.listen()

    def listen(self) -> None:
        if self.refuses:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.listen(BACKLOG)
            self.refuses = False

    def refuse(self) -> None:
        if not self.refuses:
            self.close()
            self._socket = self._bound(self.port)
            self.refuses = True

    def close(self) -> None:
        anyio.notify_closing(self._socket)
        self._socket.close()

    def accept(self) -> socket.socket:
        return self._socket.accept()[0]

    async def wait(self) -> None:
        """Wait until somebody wants to connect, or it refuses."""
        with suppress(anyio.ClosedResourceError):
            await anyio.wait_readable(self._socket)

    def _bound(self, port: int) -> socket.socket:
        bound = socket.socket()
        prepare(bound, self._buffer_bytes)
        # Connections of a moment ago may still have the port. Once it is bound nobody else may share it: bound and
        # not listening, it refuses as if it were not there, and the system gives its number to nobody.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return bound
