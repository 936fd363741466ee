"""What brings a connection's bytes: the loop's own transport on asyncio, a stream elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Protocol, cast

import anyio
from anyio.abc import ByteStream
from coredis.connection import Location, TCPLocation, UnixDomainSocketLocation

from bridgekit.storage.redis_wire import LOST, Wire

__all__ = ["Way", "way"]

CLOSE_SECONDS: Final = 1.0
"""How long the loop may take to let go of a connection that was broken off."""
EYEBALLS_SECONDS: Final = 0.25
"""How long a host's first address has before the next one is tried beside it."""
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
        if isinstance(loop, asyncio.BaseEventLoop):
            await loop.create_connection(lambda: made, host, port, ssl=context, happy_eyeballs_delay=EYEBALLS_SECONDS)
        else:  # uvloop's, which tries one address after the other and will not be told otherwise
            await loop.create_connection(lambda: made, host, port, ssl=context)
    return made


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
