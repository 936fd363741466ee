"""An in-process TCP proxy that injects network faults. Faults can start and stop while bytes flow."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from types import TracebackType

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit.errors import unwrap_single_error
from bridgekit_verify.faults.connection import BUFFER_BYTES, ProxiedConnection, ProxyListener, ServerAddress
from bridgekit_verify.faults.toxics import (
    AddedLatency,
    Bandwidth,
    Direction,
    Down,
    LimitData,
    Partition,
    ResetPeer,
    Slicer,
    SlowReader,
    Timeout,
    Toxic,
)

__all__ = ["Proxy", "RunningToxic", "proxy"]


class RunningToxic:
    """Handle of an active toxic. The toxic ends at `stop`, at the end of a `with` block, or when the proxy ends."""

    def __init__(self, owner: Proxy, number: int) -> None:
        self._owner = owner
        self._number = number

    def stop(self) -> None:
        """End the toxic immediately. Stopping a toxic twice has no effect."""
        self._owner.stop(self._number)

    def __enter__(self) -> RunningToxic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class Proxy:
    """A proxy in front of one server. A fault affects open and new connections until it is stopped.

    Several faults can be active together. Without an active fault, the proxy only forwards bytes.
    """

    def __init__(self, address: ServerAddress, buffer_bytes: int) -> None:
        self.on_data: Callable[[bytes], None] | None = None
        """Called with the bytes from the server, on connections that the proxy accepts after the callback is set."""
        self._address = address
        self._buffer_bytes = buffer_bytes
        self._listener = ProxyListener(buffer_bytes)
        self._toxic_numbers = count(1)
        self._connection_numbers = count(1)
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
        """Return the URL for clients, such as `ws://127.0.0.1:49152`."""
        return f"{scheme}://127.0.0.1:{self.port}"

    def start(self, toxic: Toxic) -> RunningToxic:
        """Activate a toxic and return its handle."""
        number = next(self._toxic_numbers)
        self._running[number] = toxic
        if toxic.cuts_at_start:
            self._cut_all(reset=toxic.resets)
        self._update_connections()
        return RunningToxic(self, number)

    def stop(self, number: int) -> None:
        """End the toxic with this number, as `RunningToxic.stop` does. Do nothing if the toxic has ended."""
        toxic = self._running.pop(number, None)
        if toxic is None:
            return
        if toxic.cuts_at_stop:
            self._cut_all(reset=toxic.resets)
        self._update_connections()

    def latency(self, seconds: float, jitter: float = 0.0, *, seed: int = 0) -> RunningToxic:
        """Delay both directions by `seconds` seconds, plus or minus up to `jitter` seconds. See `AddedLatency`."""
        return self.start(AddedLatency(seconds, jitter, seed=seed))

    def bandwidth(
        self, bytes_per_second: float, directions: tuple[Direction, ...] = (Direction.TO_CLIENT,)
    ) -> RunningToxic:
        """Limit each connection's rate, by default from the server to the client. The sender gets backpressure."""
        return self.start(Bandwidth(bytes_per_second, directions=directions))

    def slow_reader(self, bytes_per_second: float = 0.0) -> RunningToxic:
        """Read at most `bytes_per_second` bytes per second from the server, or nothing with the default of 0."""
        return self.start(SlowReader(bytes_per_second))

    def timeout(self) -> RunningToxic:
        """Drop all bytes. When the toxic stops, every open connection is cut."""
        return self.start(Timeout())

    def partition(self) -> RunningToxic:
        """Block all bytes and new connections until the toxic stops. Then deliver them."""
        return self.start(Partition())

    def reset_peer(self, after_bytes: int = 0) -> RunningToxic:
        """Reset both ends (RST), immediately or after `after_bytes` bytes from the server.

        New connections are also reset.
        """
        return self.start(ResetPeer(after_bytes))

    def limit_data(self, after_bytes: int) -> RunningToxic:
        """Close each connection after `after_bytes` bytes from the server, counted from this call or a later
        connect."""
        return self.start(LimitData(after_bytes))

    def slicer(self, piece_bytes: int, variation: int = 0, seconds: float = 0.0, *, seed: int = 0) -> RunningToxic:
        """Split the bytes of both directions into small pieces. See `Slicer`."""
        return self.start(Slicer(piece_bytes, variation, seconds, seed=seed))

    def down(self) -> RunningToxic:
        """Close open connections and refuse new ones, until the toxic stops or `up` is called."""
        return self.start(Down())

    def up(self) -> None:
        """End every `down` toxic and listen on the same port again."""
        for number in [number for number, toxic in self._running.items() if toxic.refuses]:
            self.stop(number)

    async def serve(self, tasks: TaskGroup) -> None:
        """Accept connections until cancelled, and serve each in a task of the group. Then close the port."""
        try:
            while True:
                while any(toxic.blocks or toxic.refuses for toxic in self._running.values()):
                    await self._changed.wait()
                try:
                    tasks.start_soon(self._serve, self._admit(self._listener.accept()))
                except BlockingIOError:
                    await self._listener.wait()
                except ConnectionAbortedError:
                    # The client disconnected before its connection was accepted.
                    await checkpoint()
        finally:
            self._running.clear()
            self._listener.close()

    def _admit(self, client: socket.socket) -> ProxiedConnection:
        number = next(self._connection_numbers)
        connection = ProxiedConnection(number, client, self._address, self._buffer_bytes, self.on_data)
        connection.set_toxics(self._running)
        self._connections.add(connection)
        return connection

    async def _serve(self, connection: ProxiedConnection) -> None:
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _update_connections(self) -> None:
        for connection in self._connections:
            connection.set_toxics(self._running)
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
    """Run a proxy in front of the server at `host` and `port` until the `with` block ends. Then close all connections.

    `buffer_bytes` limits each socket's kernel buffer (the kernel doubles the value) and the delayed bytes of each
    direction. The default is small, because large buffers in the proxy would hide a slow reader from the server. With
    the default, a server can write 150 to 300 kB more than without the proxy before its writes block.
    """
    families = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with unwrap_single_error():
        async with anyio.create_task_group() as tasks:
            owner = Proxy(ServerAddress(families[0][0], families[0][4]), buffer_bytes)
            tasks.start_soon(owner.serve, tasks)
            try:
                yield owner
            finally:
                tasks.cancel_scope.cancel()
