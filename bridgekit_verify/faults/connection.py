"""A connection through the proxy: two sockets, a pump each way, and its end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from bridgekit_verify.faults.pump import Pump
from bridgekit_verify.faults.toxics import Toxic, Way

__all__ = ["BUFFER_BYTES", "Address", "Connection", "prepare"]

BUFFER_BYTES: Final = 65_536
CONNECT_SECONDS: Final = 10.0
RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER switched on, with no time to linger."""


class Address(NamedTuple):
    """Where the server is."""

    family: socket.AddressFamily
    place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class Connection:
    """A client's socket and one to the server, with a pump each way."""

    def __init__(self, number: int, client: socket.socket, address: Address, buffer_bytes: int) -> None:
        self._client = client
        self._address = address
        self._buffer_bytes = buffer_bytes
        self._server = socket.socket(address.family, socket.SOCK_STREAM)
        for end in (self._client, self._server):
            prepare(end, buffer_bytes)
        self._to_client = Pump(Way.TO_CLIENT, number, buffer_bytes, self._cut_by)
        self._to_server = Pump(Way.TO_SERVER, number, buffer_bytes, self._cut_by)
        self._scope = anyio.CancelScope()
        self._resets = False
        self.is_cut = False

    def follow(self, running: Mapping[int, Toxic]) -> None:
        for pump in (self._to_client, self._to_server):
            if not self.is_cut:
                pump.follow(running)

    def cut(self, *, reset: bool) -> None:
        """Close both ends in the next turn of the loop, and pass on nothing before that."""
        self.is_cut = True
        self._resets = self._resets or reset
        self._to_client.freeze()
        self._to_server.freeze()
        self._scope.cancel()

    async def serve(self) -> None:
        """Connect to the server and pass bytes on until both streams have ended, or one broke, or it is cut."""
        try:
            with self._scope:
                await self._connect()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._to_server.run, self._client, self._server, tasks)
                    tasks.start_soon(self._to_client.run, self._server, self._client, tasks)
        except* OSError:
            # A server that is not there, or an end that broke: the other end is to hear it as it would without us.
            self._resets = True
        finally:
            for end in (self._client, self._server):
                _close(end, reset=self._resets, unread_bytes=4 * self._buffer_bytes)

    async def _connect(self) -> None:
        # Whoever was cut at the door shall not be seen by the server.
        await checkpoint_if_cancelled()
        with anyio.fail_after(CONNECT_SECONDS):
            try:
                self._server.connect(self._address.place)
            except BlockingIOError:
                await anyio.wait_writable(self._server)
        if code := self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))

    def _cut_by(self, toxic: Toxic) -> None:
        self.cut(reset=toxic.resets)


def prepare(end: socket.socket, buffer_bytes: int) -> None:
    """Make a socket's buffers small, its writes prompt, and its calls not wait."""
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)


def _close(end: socket.socket, *, reset: bool, unread_bytes: int) -> None:
    # One that broke may refuse either.
    with suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        else:
            # With bytes unread it would end with an RST all the same, and only sometimes.
            end.recv(unread_bytes)
    end.close()
