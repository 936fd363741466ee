"""Servers and clients on real sockets, for whatever stands between them."""

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

SOON: Final = 60.0
"""A wait that is to end well ends long before."""
A_WHILE: Final = 0.05
"""How long nothing is to happen."""
SILENCES: Final = 3
"""After so many in a row nothing happens any more."""
POUR_BYTES: Final = 20_000_000


@dataclass
class Server:
    """What a server saw."""

    port: int = 0
    streams: list[SocketStream] = field(default_factory=list)
    read: bytearray = field(default_factory=bytearray)
    written: int = 0
    ended: anyio.Event = field(default_factory=anyio.Event)
    """The first of its connections is over."""
    broken: bool = False
    """One of them ended with an RST."""


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


async def pour(server: Server, stream: SocketStream) -> None:
    """Write as fast as the other end reads."""
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
    while server.written < POUR_BYTES:
        await stream.send(poured(server.written, 10_000))
        server.written += 10_000


def poured(start: int, size: int) -> bytes:
    """The bytes that `pour` writes there."""
    return b"".join(b"%09d\n" % number for number in range(start // 10, (start + size) // 10))


async def drink(server: Server, stream: SocketStream) -> None:
    """Only read."""
    async for data in stream:
        server.read += data


@asynccontextmanager
async def through(
    behave: Callable[[Server, SocketStream], Awaitable[None]] = echo,
) -> AsyncIterator[tuple[Server, Proxy, SocketStream]]:
    """A server, a proxy before it, and an open connection through it, that has been used already."""
    with anyio.fail_after(3 * SOON):
        async with (
            serving(behave) as server,
            proxy("127.0.0.1", server.port) as between,
            await dial(between) as client,
        ):
            if behave is echo:
                await said(client, b"hello")
            yield server, between, client


async def dial(between: Proxy) -> SocketStream:
    return await anyio.connect_tcp("127.0.0.1", between.port)


async def said(client: SocketStream, data: bytes) -> None:
    """Send it, and see that exactly it comes back."""
    await client.send(data)
    assert await read(client, len(data)) == data


async def read(client: SocketStream, size: int) -> bytes:
    got = bytearray()
    with anyio.fail_after(SOON):
        while len(got) < size:
            got += await client.receive(size - len(got))
    return bytes(got)


async def rest(client: SocketStream) -> bytes:
    """All that comes up to the end of the stream; BrokenResourceError where it ends with an RST."""
    got = bytearray()
    with anyio.fail_after(SOON):
        async for data in client:
            got += data
    return bytes(got)


async def silent(client: SocketStream) -> bool:
    """Whether nothing comes for a while: neither a byte nor the end."""
    with anyio.move_on_after(A_WHILE):
        await client.receive()
        return False
    return True


async def all_that_was_coming(client: SocketStream) -> bytes:
    """Read until nothing comes for a while, and for another: where the machine stood still, the first says nothing."""
    got, silences = bytearray(), 0
    while silences < SILENCES:
        with anyio.move_on_after(A_WHILE) as waited:
            got += await client.receive()
        silences = silences + 1 if waited.cancelled_caught else 0
    return bytes(got)


async def broken_after(client: SocketStream) -> bytes:
    """All that comes before the stream breaks."""
    got = bytearray()
    with pytest.raises(anyio.BrokenResourceError), anyio.fail_after(SOON):
        await drunk(client, got)
    return bytes(got)


async def drunk(client: SocketStream, got: bytearray) -> None:
    async for data in client:
        got += data


async def settled(server: Server) -> int:
    """What the server has written, once it writes no more."""
    before, silences = server.written, 0
    while silences < SILENCES:
        await anyio.sleep(A_WHILE)
        silences = silences + 1 if server.written == before else 0
        before = server.written
    return before


async def refused(between: Proxy) -> None:
    with pytest.raises(OSError, match=r"refused|failed"):
        await dial(between)


def resetting(stream: SocketStream) -> SocketStream:
    """The same stream, which will end with an RST."""
    linger = struct.pack("ii", 1, 0)
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    return stream


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))
