"""How a server of the Redis protocol is reached: a URL, and one connection made and held.

What coredis does for us is the protocol: the handshake, the encoding, and the answers in their order, on both async
backends. When to connect, and how long to wait for whom, is ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import ByteStream, TaskStatus
from coredis import exceptions
from coredis.connection import BaseConnection, BaseConnectionParams, Location, TCPLocation, UnixDomainSocketLocation
from coredis.pool import ConnectionPool
from coredis.typing import RedisValueT, ResponseType

__all__ = ["CONNECT_SECONDS", "TROUBLE", "Door", "Wire", "problem_of"]

CONNECT_SECONDS: Final = 1.0
"""In which a server has to take a connection, and to answer on it."""
GREETING_BYTES: Final = 1_024
SCHEMES: Final = ("redis://", "rediss://", "unix://", "valkey://")

TROUBLE: Final = (exceptions.RedisError, OSError, TimeoutError)
"""What goes wrong between us and a server."""


class Wire(BaseConnection):
    """A coredis connection over a stream that is open already.

    Where coredis opens the stream itself and cannot, it leaves others unclosed (6.9), which is a warning each.
    """

    def __init__(self, location: Location, stream: ByteStream, parameters: BaseConnectionParams) -> None:
        super().__init__(location, **parameters)
        self._opened = stream

    async def _connect(self) -> ByteStream:
        return self._opened

    def describe(self) -> str:
        return f"connection to {self.location!r}"

    def ask(self, name: bytes, *arguments: RedisValueT) -> Awaitable[ResponseType]:
        """Send a command; the answer is to be awaited. OSError or ConnectionError where the connection is lost."""
        with _as_lost():
            return self.create_request(name, *arguments)

    def tell(self, name: bytes, *arguments: RedisValueT) -> None:
        """Send a command that is answered by messages, or not at all."""
        with _as_lost():
            self.send_command(name, *arguments)

    async def hold(self, *, task_status: TaskStatus[None]) -> None:
        """Shake hands, then serve until the connection is lost, which is an error."""
        await self.run(task_status=task_status)
        raise ConnectionResetError("the connection was lost")


@contextmanager
def _as_lost() -> Iterator[None]:
    """A connection that is being taken down may still say that it can be used (coredis 6.9)."""
    try:
        yield
    except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
        raise ConnectionResetError("the connection was lost") from error


@dataclass(frozen=True)
class Door:
    """How a server is reached."""

    location: Location
    parameters: BaseConnectionParams = field(repr=False)
    """With the password, which is told to nobody but the server."""

    @classmethod
    def of(cls, url: str) -> Door:
        """Read a URL. ValueError where it is none."""
        pool = ConnectionPool.from_url(url, decode_components=True)
        if pool.location is None or not url.startswith(SCHEMES):
            raise ValueError("no server's URL")
        return cls(pool.location, pool.connection_kwargs)

    def to(self, location: Location) -> Door:
        """Another server of the same Cluster."""
        return Door(location, self.parameters)

    @property
    def database(self) -> int:
        return self.parameters.get("db") or 0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Wire]:
        """A connection for the length of a block. When it is lost the block is cancelled and OSError is raised."""
        with anyio.fail_after(CONNECT_SECONDS):
            stream = await self._answered()
        async with anyio.create_task_group() as tasks:
            wire = Wire(self.location, stream, self.parameters)
            with anyio.fail_after(CONNECT_SECONDS):
                await tasks.start(wire.hold)
            yield wire
            tasks.cancel_scope.cancel()

    async def _answered(self) -> ByteStream:
        """A stream to a server that is there: one that hangs takes connections too, and says nothing."""
        stream = await self._stream()
        try:
            await stream.send(b"PING\r\n")
            answer = b""
            while not answer.endswith(b"\r\n"):
                answer += await stream.receive(GREETING_BYTES)
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            await anyio.aclose_forcefully(stream)
            raise ConnectionResetError("the connection was closed at once") from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        return stream

    async def _stream(self) -> ByteStream:
        if isinstance(self.location, UnixDomainSocketLocation):
            return await anyio.connect_unix(self.location.path)
        if not isinstance(self.location, TCPLocation):
            raise TypeError(f"no way to {self.location!r}")
        context = self.parameters.get("ssl_context")
        if context is None:
            return await anyio.connect_tcp(self.location.host, self.location.port)
        return await anyio.connect_tcp(
            self.location.host, self.location.port, tls=True, ssl_context=context, tls_standard_compatible=False
        )


def problem_of(error: BaseException) -> str:
    """What to tell of an error, or of the first of a group: never a URL, which may hold a password."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
