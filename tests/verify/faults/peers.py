"""Servers and clients with real sockets, for tests of the proxy between them."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from bridgekit_verify.faults.proxy import Proxy, proxy

TIMEOUT_SECONDS: Final = 60.0
"""Timeout of waits that succeed much earlier."""
IDLE_SECONDS: Final = 0.05
"""Period without activity after which a connection counts as idle."""
IDLE_PERIODS: Final = 3
"""Number of consecutive idle periods after which no more activity is expected."""
STREAM_BYTES: Final = 20_000_000


@dataclass
class Server:
    """A test server and what it observed."""

    port: int = 0
    streams: list[SocketStream] = field(default_factory=list)
    read: bytearray = field(default_factory=bytearray)
    written: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)
    """Set when the first of its connections has ended."""
    broken: bool = False
    """Whether a connection ended with an RST."""


@asynccontextmanager
async def serving(behave: Callable[[Server, SocketStream], Awaitable[None]]) -> AsyncIterator[Server]:
    server = Server()

    async def handle(stream: SocketStream) -> None:
        server.streams.append(stream)
        try:
            async with stream:
                await behave(server, stream)
        except anyio.ClosedResourceError:
            pass  # the test closed it
        except anyio.BrokenResourceError:
            server.broken = True
        finally:
            server.ended.set()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        server.port = listener.extra(SocketAttribute.local_port)
        tasks.start_soon(listener.serve, handle)
        yield server
        tasks.cancel_scope.cancel()


async def echo(server: Server, stream: SocketStream) -> None:
    async for data in stream:
        server.read += data
        await stream.send(data)


async def write_stream(server: Server, stream: SocketStream) -> None:
    """Write as fast as the client reads."""
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    while server.written < STREAM_BYTES:
        await stream.send(stream_bytes(server.written, 10_000))
        server.written += 10_000


def stream_bytes(start: int, size: int) -> bytes:
    """Return the bytes that `write_stream` writes at this position."""
    return b"".join(b"%09d\n" % number for number in range(start // 10, (start + size) // 10))


async def read_only(server: Server, stream: SocketStream) -> None:
    """Read without writing."""
    async for data in stream:
        server.read += data


@asynccontextmanager
async def through(
    behave: Callable[[Server, SocketStream], Awaitable[None]] = echo,
) -> AsyncIterator[tuple[Server, Proxy, SocketStream]]:
    """Run a server and a proxy, with an open connection through the proxy that has already transferred bytes."""
    with anyio.fail_after(3 * TIMEOUT_SECONDS):
        async with (
            serving(behave) as server,
            proxy("127.0.0.1", server.port) as via,
            await connect_to(via) as client,
        ):
            if behave is echo:
                await assert_echo(client, b"hello")
            yield server, via, client


async def connect_to(via: Proxy) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", via.port)


async def assert_echo(client: SocketStream, data: bytes) -> None:
    """Send bytes and assert that the server echoes them."""
    await client.send(data)
    assert await read(client, len(data)) == data


async def read(client: SocketStream, size: int) -> bytes:
    got = bytearray()
    with anyio.fail_after(TIMEOUT_SECONDS):
        while len(got) < size:
            got += await client.receive(size - len(got))
    return bytes(got)


async def read_to_end(client: SocketStream) -> bytes:
    """Read up to the end of the stream. Raises BrokenResourceError if it ends with an RST."""
    got = bytearray()
    with anyio.fail_after(TIMEOUT_SECONDS):
        async for data in client:
            got += data
    return bytes(got)


async def is_silent(client: SocketStream) -> bool:
    """Return whether neither a byte nor the end of the stream arrives for IDLE_SECONDS."""
    with anyio.move_on_after(IDLE_SECONDS):
        await client.receive()
        return False
    return True


async def read_until_idle(client: SocketStream) -> bytes:
    """Read until several idle periods pass; a single one could be a pause of the machine."""
    got, idle_periods = bytearray(), 0
    while idle_periods < IDLE_PERIODS:
        with anyio.move_on_after(IDLE_SECONDS) as waited:
            got += await client.receive()
        idle_periods = idle_periods + 1 if waited.cancelled_caught else 0
    return bytes(got)


async def read_until_reset(client: SocketStream) -> bytes:
    """Read until the connection is reset, and return the bytes."""
    got = bytearray()
    with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(TIMEOUT_SECONDS):
        await read_into_buffer(client, got)
    return bytes(got)


async def read_into_buffer(client: SocketStream, got: bytearray) -> None:
    async for data in client:
        got += data


async def written_when_blocked(server: Server) -> int:
    """Wait until the server writes no more, and return how much it has written."""
    before, idle_periods = server.written, 0
    while idle_periods < IDLE_PERIODS:
        await anyio.sleep(IDLE_SECONDS)
        idle_periods = idle_periods + 1 if server.written == before else 0
        before = server.written
    return before


async def refused(via: Proxy) -> None:
    with pytest.raises(OSError, match=r"refused|failed"):
        await connect_to(via)


def reset_on_close(stream: SocketStream) -> SocketStream:
    """Make close() of the stream send an RST, and return the stream."""
    linger = struct.pack("ii", 1, 0)
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return stream


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))
