"""What brings a connection's bytes: the loop's own transport on asyncio, a stream elsewhere."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any, Final, Protocol, cast

import anyio
from anyio.abc import ByteStream
from coredis.connection import Location, TCPLocation, UnixDomainSocketLocation

from bridgekit.storage.redis_wire import LOST, Wire

__all__ = ["Way", "way"]

CLOSE_SECONDS: Final = 1.0
"""How long the loop may take to let go of a connection that was broken off."""
EYEBALLS_SECONDS: Final = 0.25
"""How long each of a host's addresses has, but the last, before the next one is tried."""
READ_BYTES: Final = 262_144


class Way(Protocol):
    """An open connection."""

    async def run(self) -> None:
        """Serve until it is lost, which is an error."""

    async def break_off(self) -> None:
        """Let go of it, whatever waits to be written."""


async def way(location: Location, context: ssl.SSLContext | None, wire: Wire) -> Way:
    """Connect, and have the wire go this way. OSError where nobody takes the connection."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _ByStream(await _stream(location, context), wire)
    return await _by_transport(location, context, wire)


class _ByTransport(asyncio.Protocol):
    """What comes in is taken within the loop's own call, and what goes out is written at once."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by its type
        self._wire.open(self._transport.write)

    def data_received(self, data: bytes) -> None:
        self._wire.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.lose(ConnectionResetError(LOST) if exc is None else exc)
        self._closed.set()

    async def run(self) -> None:
        await self._wire.lost.wait()
        raise self._wire.error

    async def break_off(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._closed.wait()


async def _by_transport(location: Location, context: ssl.SSLContext | None, wire: Wire) -> _ByTransport:
    loop = asyncio.get_running_loop()
    made = _ByTransport(wire)
    if isinstance(location, UnixDomainSocketLocation):
        await loop.create_unix_connection(lambda: made, location.path)
    else:
        host, port = _address(location)
        here = await _socket(host, port)
        await loop.create_connection(
            lambda: made, sock=here, ssl=context, server_hostname=None if context is None else host
        )
    return made


async def _socket(host: str, port: int) -> socket.socket:
    """Connected to the first of the host's addresses that takes the connection.

    asyncio's own way to try several, side by side, leaves a socket open when it is cancelled (CPython 3.11).
    """
    loop = asyncio.get_running_loop()
    *others, last = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in others:
        with suppress(OSError), anyio.move_on_after(EYEBALLS_SECONDS):
            return await _connected(family, address)
    return await _connected(last[0], last[4])


async def _connected(family: int, address: Any) -> socket.socket:
    here = socket.socket(family, socket.SOCK_STREAM)
    try:
        here.setblocking(False)
        here.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(here, address)
    except BaseException:
        here.close()
        raise
    return here


class _ByStream:
    """One task reads, another writes all that was sent since it wrote last."""

    def __init__(self, stream: ByteStream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire
        self._unwritten: list[bytes] = []
        self._some = anyio.Event()
        wire.open(self._put)

    async def run(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read)
            tasks.start_soon(self._write)
            await self._wire.lost.wait()
            raise self._wire.error

    async def break_off(self) -> None:
        self._wire.lose(ConnectionResetError(LOST))
        await anyio.aclose_forcefully(self._stream)

    def _put(self, data: bytes) -> None:
        self._unwritten.append(data)
        self._some.set()

    async def _read(self) -> None:
        try:
            while True:
                self._wire.received(await self._stream.receive(READ_BYTES))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._wire.lose(ConnectionResetError(LOST))

    async def _write(self) -> None:
        try:
            while True:
                await self._some.wait()
                self._some = anyio.Event()
                data, self._unwritten = b"".join(self._unwritten), []
                await self._stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._wire.lose(ConnectionResetError(LOST))


async def _stream(location: Location, context: ssl.SSLContext | None) -> ByteStream:
    if isinstance(location, UnixDomainSocketLocation):
        return await anyio.connect_unix(location.path)
    host, port = _address(location)
    if context is None:
        return await anyio.connect_tcp(host, port)
    return await anyio.connect_tcp(host, port, tls=True, ssl_context=context, tls_standard_compatible=False)


def _address(location: Location) -> tuple[str, int]:
    if not isinstance(location, TCPLocation):
        raise TypeError(f"no way to {location!r}")
    return location.host, location.port
