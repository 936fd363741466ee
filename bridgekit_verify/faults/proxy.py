"""A TCP proxy in this process that does to the bytes what a network does: started and stopped while they flow."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.faults.connection import BUFFER_BYTES, ProxiedConnection, ProxyListener, ServerAddress
from bridgekit_verify.faults.toxics import (
    Bandwidth,
    Down,
    Latency,
    LimitData,
    Partition,
    ResetPeer,
    Slicer,
    SlowReader,
    Timeout,
    Toxic,
    Way,
)

__all__ = ["Proxy", "Running", "proxy"]


class Running:
    """A toxic that acts, until it is stopped, or its block ends, or the proxy does."""

    def __init__(self, through: Proxy, number: int) -> None:
        self._through = through
        self._number = number

    def stop(self) -> None:
        """End it at once; once is enough."""
        self._through.stop(self._number)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Proxy:
    """Stands before a server. Each fault acts at once, on open connections too, until its `Running` is stopped.

    Faults may run together. What is passed on while none does is read and written, and nothing else.
    """

    def __init__(self, address: ServerAddress, buffer_bytes: int) -> None:
        self._address = address
        self._buffer_bytes = buffer_bytes
        self._listener = ProxyListener(buffer_bytes)
        self._starts = count(1)
        self._arrivals = count(1)
        self._running: dict[int, Toxic] = {}
        self._connections: set[ProxiedConnection] = set()
        self._changed = anyio.Event()

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def url(self, scheme: str = "ws") -> str:
        """Where clients connect to instead, such as `ws://127.0.0.1:49152`."""
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self, toxic: Toxic) -> Running:
        """Let it act from now on."""
        number = next(self._starts)
        self._running[number] = toxic
        if toxic.cuts_at_start:
            self._cut_all(reset=toxic.resets)
        self._follow()
        return Running(self, number)

    def stop(self, number: int) -> None:
        """End the toxic of that number, as `Running.stop` does; nothing if it has ended."""
        toxic = self._running.pop(number, None)
        if toxic is None:
            return
        if toxic.cuts_at_stop:
            self._cut_all(reset=toxic.resets)
        self._follow()

    def latency(self, seconds: float, jitter: float = 0.0, *, seed: int = 0) -> Running:
        """Delay both directions; see `Latency`."""
        return self.start(Latency(seconds, jitter, seed=seed))

    def bandwidth(self, bytes_per_second: float, ways: tuple[Way, ...] = (Way.TO_CLIENT,)) -> Running:
        """Limit what flows, by default to the client; the sender feels it."""
        return self.start(Bandwidth(bytes_per_second, ways=ways))

    def slow_reader(self, bytes_per_second: float = 0.0) -> Running:
        """Read what the server sends at this rate, by default not at all."""
        return self.start(SlowReader(bytes_per_second))

    def timeout(self) -> Running:
        """Swallow everything; when it stops, what was open meanwhile is cut."""
        return self.start(Timeout())

    def partition(self) -> Running:
        """Hold everything back, new connections too, and let it flow when it stops."""
        return self.start(Partition())

    def reset_peer(self, after_bytes: int = 0) -> Running:
        """Reset both ends, of those that connect meanwhile too, at once or after so many bytes from the server."""
        return self.start(ResetPeer(after_bytes))

    def limit_data(self, after_bytes: int) -> Running:
        """Close connections after so many bytes from the server, counted from now or from their beginning."""
        return self.start(LimitData(after_bytes))

    def slicer(self, piece_bytes: int, variation: int = 0, seconds: float = 0.0, *, seed: int = 0) -> Running:
        """Send in small pieces, both ways."""
        return self.start(Slicer(piece_bytes, variation, seconds, seed=seed))

    def down(self) -> Running:
        """Close what is open and refuse what comes, until it stops, or `up`."""
        return self.start(Down())

    def up(self) -> None:
        """End every `down`: listen again, on the same port."""
        for number in [number for number, toxic in self._running.items() if toxic.refuses]:
            self.stop(number)

    async def serve(self, tasks: TaskGroup) -> None:
        """Take connections for ever; each runs in the task group. Cancelled, it stops listening."""
        try:
            while True:
                while any(toxic.holds or toxic.refuses for toxic in self._running.values()):
                    await self._changed.wait()
                try:
                    tasks.start_soon(self._serve, self._admit(self._listener.accept()))
                except BlockingIOError:
                    await self._listener.wait()
                except ConnectionAbortedError:
                    # The client connected, and was gone before the accept.
                    await checkpoint()
        finally:
            self._running.clear()
            self._listener.close()

    def _admit(self, client: socket.socket) -> ProxiedConnection:
        connection = ProxiedConnection(next(self._arrivals), client, self._address, self._buffer_bytes)
        connection.follow(self._running)
        self._connections.add(connection)
        return connection

    async def _serve(self, connection: ProxiedConnection) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _follow(self) -> None:
        for connection in self._connections:
            connection.follow(self._running)
        if any(toxic.refuses for toxic in self._running.values()):
            self._listener.refuse()
        else:
            self._listener.listen()
        self._changed.set()
        self._changed = anyio.Event()

    def _cut_all(self, *, reset: bool) -> None:
        for connection in self._connections:
            connection.cut(reset=reset)


@asynccontextmanager
async def proxy(host: str, port: int, *, buffer_bytes: int = BUFFER_BYTES) -> AsyncIterator[Proxy]:
    """Stand before the server at this address for the length of a block. At its end all connections are closed.

    `buffer_bytes` is what each socket may hold in the kernel (which doubles it), and each direction while it is
    late: a small amount, because a proxy that takes everything hides a slow reader from the server. With the usual
    one a server can write 150 to 300 kB more than without the proxy before its writes block.
    """
    families = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with unwrap_single_error():
        async with anyio.create_task_group() as tasks:
            through = Proxy(ServerAddress(families[0][0], families[0][4]), buffer_bytes)
            tasks.start_soon(through.serve, tasks)
            try:
                yield through
            finally:
                tasks.cancel_scope.cancel()
