"""One connection through the fault proxy (two sockets, a pump for each direction), and the proxy's listening port."""

from __future__ import annotations

import math
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from bridgekit_verify.faults.toxics import Direction, Toxic

__all__ = ["BUFFER_BYTES", "ProxiedConnection", "ProxyListener", "RateLimiter", "ServerAddress", "prepare"]

CHUNK_BYTES: Final = 65_536
TICK_SECONDS: Final = 0.02
"""At a limited rate, one read takes at most the bytes that the rate allows in this time, so that bytes arrive
evenly."""


class RateLimiter:
    """Decides when a rate-limited pump may read, and how much.

    A pump that was idle may catch up on the bytes of TICK_SECONDS.
    """

    def __init__(self) -> None:
        self._free_at = -math.inf

    def wait(self, now: float, rate: float) -> float:
        """Return the seconds until the next read may start, or infinity if `rate` (bytes per second) is 0."""
        return max(0.0, self._free_at - now) if rate > 0 else math.inf

    def max_bytes(self, rate: float) -> int:
        """Return the maximum number of bytes that one read may take at this rate."""
        return CHUNK_BYTES if rate == math.inf else min(CHUNK_BYTES, max(1, int(rate * TICK_SECONDS)))

    def consumed(self, size: int, now: float, rate: float) -> None:
        """Record a read of `size` bytes at the time `now`. The rate must be finite and above 0."""
        self._free_at = max(self._free_at, now - TICK_SECONDS) + size / rate


@dataclass
class ActiveToxic:
    """A pump's state for one running toxic: the random generator and the number of forwarded bytes."""

    toxic: Toxic
    rng: Random
    passed: int = 0


class Pump:
    """Reads from one socket, applies the running toxics, and writes to the other socket.

    A pump buffers at most one chunk and `buffer_bytes` bytes of delayed pieces, because a larger buffer would hide a
    slow reader from the server. With a latency toxic, a pump forwards about `buffer_bytes` bytes per delay, like a TCP
    window of this size.
    """

    def __init__(self, direction: Direction, number: int, buffer_bytes: int, cut: Callable[[Toxic], None]) -> None:
        self._direction = direction
        self._number = number
        self._buffer_bytes = buffer_bytes
        self._cut = cut
        self._active: dict[int, ActiveToxic] = {}
        self._limiter = RateLimiter()
        self._rate = math.inf
        self._blocks = False
        self._drops = False
        self._delayed: deque[tuple[float, memoryview]] = deque()
        self._delayed_bytes = 0
        self._last_due = -math.inf
        self._changed: anyio.Event | None = None
        self._waited = False
        self.on_data: Callable[[bytes], None] | None = None
        """Called with the bytes that were read, before they are forwarded."""

    def set_toxics(self, running: Mapping[int, Toxic]) -> None:
        """Replace the pump's toxics with those in `running` that affect the pump's direction. Does not wait."""
        own = {number: toxic for number, toxic in running.items() if self._direction in toxic.directions}
        self._active = {number: self._active.get(number) or self._activate(toxic) for number, toxic in own.items()}
        self._rate = min((toxic.rate() for toxic in own.values()), default=math.inf)
        self._blocks = any(toxic.blocks for toxic in own.values())
        self._drops = any(toxic.drops for toxic in own.values())
        self._enforce_limits()
        self._wake()

    def freeze(self) -> None:
        """Stop forwarding, because bytes in flight must not arrive after the connection was cut."""
        self._blocks = True

    async def run(self, source: socket.socket, target: socket.socket, tasks: TaskGroup) -> None:
        """Forward bytes until the end of the stream. Raises OSError when one of the two sockets fails."""
        while True:
            self._waited = False
            try:
                data = await self._read(source)
            except OSError:
                # A toxic that blocks or drops bytes also hides a socket's failure from the other side.
                await self._wait_until_unblocked()
                raise
            if self.on_data is not None:
                self.on_data(data)
            if self._active or self._delayed:
                await self._forward_slowly(data, target, tasks)
            else:
                await self._write(data, target)
            if not data:
                return
            if not self._waited:
                # Without a checkpoint here, two fast peers would prevent all other tasks from running.
                await checkpoint()

    def _activate(self, toxic: Toxic) -> ActiveToxic:
        return ActiveToxic(toxic, Random(f"{toxic.seed} {self._number} {self._direction.value}"))

    async def _read(self, source: socket.socket) -> bytes:
        while True:
            while self._rate < math.inf and (wait := self._limiter.wait(anyio.current_time(), self._rate)):
                await self._wait_for_change(wait)
            try:
                data = source.recv(self._limiter.max_bytes(self._rate))
            except BlockingIOError:
                self._waited = True
                await anyio.wait_readable(source)
            else:
                if self._rate < math.inf:
                    self._limiter.consumed(len(data), anyio.current_time(), self._rate)
                return data

    async def _forward_slowly(self, data: bytes, target: socket.socket, tasks: TaskGroup) -> None:
        rest = memoryview(data)
        while True:
            piece = rest[: self._piece()]
            rest = rest[len(piece) :]
            await self._forward_piece(piece, target, tasks)
            if not rest:
                return
            # A chunk can contain many pieces, and the reader must receive them separately.
            await checkpoint()

    def _piece(self) -> int | None:
        sizes = [size for active in self._active.values() if (size := active.toxic.piece(active.rng)) is not None]
        return min(sizes, default=None)

    async def _forward_piece(self, piece: memoryview, target: socket.socket, tasks: TaskGroup) -> None:
        now = anyio.current_time()
        due = self._due(now)
        if due <= now and not self._delayed:
            await self._write(piece, target)
            return
        while self._delayed_bytes >= self._buffer_bytes:
            await self._wait_for_change(math.inf)
        self._delayed.append((due, piece))
        self._delayed_bytes += len(piece)
        if len(self._delayed) == 1:
            tasks.start_soon(self._deliver, target)

    def _due(self, now: float) -> float:
        """Return when to write the next piece: after its delay, and at least one pause after the previous piece."""
        active = self._active.values()
        delay = sum(one.toxic.delay(one.rng) for one in active)
        pause = sum(one.toxic.pause() for one in active)
        self._last_due = max(now + delay, self._last_due + pause)
        return self._last_due

    async def _deliver(self, target: socket.socket) -> None:
        """Write each delayed piece when it is due. A piece stays queued until it is written, to preserve the order."""
        while self._delayed:
            due, piece = self._delayed[0]
            await anyio.sleep_until(due)
            await self._write(piece, target)
            self._delayed.popleft()
            self._delayed_bytes -= len(piece)
            self._wake()

    async def _write(self, data: bytes | memoryview, target: socket.socket) -> None:
        """Write all bytes, unless a toxic drops them. If `data` is empty, shut down the socket's sending side."""
        if not data:
            await self._wait_until_unblocked()
            target.shutdown(socket.SHUT_WR)
            return
        rest = memoryview(data)
        while rest:
            while self._blocks:
                await self._wait_for_change(math.inf)
            if self._drops:
                return
            rest = rest[await self._send(rest, target) :]

    async def _send(self, rest: memoryview, target: socket.socket) -> int:
        """Send bytes and return how many. Return 0 after a wait for the socket, so that new toxics can apply."""
        try:
            sent = target.send(rest[: self._bytes_left()])
        except BlockingIOError:
            self._waited = True
            await anyio.wait_writable(target)
            return 0
        if self._active:
            self._count(sent)
        return sent

    async def _wait_until_unblocked(self) -> None:
        """Wait until no toxic blocks or drops the end of the stream."""
        while self._blocks or self._drops:
            await self._wait_for_change(math.inf)

    def _bytes_left(self) -> int | None:
        left = [
            limit - active.passed for active in self._active.values() if (limit := active.toxic.limit()) is not None
        ]
        return min(left, default=None)

    def _count(self, sent: int) -> None:
        for active in self._active.values():
            active.passed += sent
        self._enforce_limits()

    def _enforce_limits(self) -> None:
        for active in self._active.values():
            limit = active.toxic.limit()
            if limit is not None and active.passed >= limit:
                self._cut(active.toxic)

    async def _wait_for_change(self, seconds: float) -> None:
        """Wait until the toxics change, a delayed piece is written, or `seconds` have passed."""
        self._waited = True
        if self._changed is None:
            self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None


BUFFER_BYTES: Final = 65_536
CONNECT_SECONDS: Final = 10.0
RST_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""The value of SO_LINGER (timeout 0) with which close() sends an RST."""


class ServerAddress(NamedTuple):
    """The server's address family, and the address that `socket.connect` takes."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class ProxiedConnection:
    """The client's socket and a socket to the server, with one pump for each direction."""

    def __init__(
        self, number: int, client: socket.socket, address: ServerAddress, buffer_bytes: int,
        on_data: Callable[[bytes], None] | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._address = address
        self._buffer_bytes = buffer_bytes
        self._server = socket.socket(address.family, socket.SOCK_STREAM)
        for end in (self._client, self._server):
            prepare(end, buffer_bytes)
        self._to_client = Pump(Direction.TO_CLIENT, number, buffer_bytes, self._cut_by)
        self._to_client.on_data = on_data
        self._to_server = Pump(Direction.TO_SERVER, number, buffer_bytes, self._cut_by)
        self._scope = anyio.CancelScope()
        self._reset_on_close = False
        self.is_cut = False

    def set_toxics(self, running: Mapping[int, Toxic]) -> None:
        for pump in (self._to_client, self._to_server):
            if not self.is_cut:
                pump.set_toxics(running)

    def cut(self, *, reset: bool) -> None:
        """Close both sockets in the next event-loop iteration and forward no more bytes. `reset` sends an RST."""
        self.is_cut = True
        self._reset_on_close = self._reset_on_close or reset
        self._to_client.freeze()
        self._to_server.freeze()
        self._scope.cancel()

    async def serve(self) -> None:
        """Connect to the server and forward bytes until both streams end, a socket fails, or the connection is cut."""
        try:
            with self._scope:
                await self._connect()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._to_server.run, self._client, self._server, tasks)
                    tasks.start_soon(self._to_client.run, self._server, self._client, tasks)
        except* OSError:
            # If the server is unreachable or a socket fails, the other end gets an RST, as without the proxy.
            self._reset_on_close = True
        finally:
            for end in (self._client, self._server):
                _close(end, reset=self._reset_on_close, unread_bytes=4 * self._buffer_bytes)

    async def _connect(self) -> None:
        # If the client's connection has already been cut, do not connect to the server.
        await checkpoint_if_cancelled()
        with anyio.fail_after(CONNECT_SECONDS):
            try:
                self._server.connect(self._address.sockaddr)
            except BlockingIOError:
                await anyio.wait_writable(self._server)
        if code := self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))

    def _cut_by(self, toxic: Toxic) -> None:
        self.cut(reset=toxic.resets)


def prepare(end: socket.socket, buffer_bytes: int) -> None:
    """Set a socket's buffer sizes, disable Nagle's algorithm (TCP_NODELAY), and make the socket non-blocking."""
    end.setblocking(False)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)


def _close(end: socket.socket, *, reset: bool, unread_bytes: int) -> None:
    # `setsockopt` and `recv` can fail on a socket that has already failed.
    with suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        else:
            # close() sends an RST if the socket has unread bytes, so these are read first.
            end.recv(unread_bytes)
    end.close()


BACKLOG: Final = 1_024


class ProxyListener:
    """A listening socket on 127.0.0.1 that can refuse connections and still keep its port."""

    def __init__(self, buffer_bytes: int) -> None:
        self._buffer_bytes = buffer_bytes
        self._socket = self._bind(0)
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
            self._socket = self._bind(self.port)
            self.refuses = True

    def close(self) -> None:
        anyio.notify_closing(self._socket)
        self._socket.close()

    def accept(self) -> socket.socket:
        return self._socket.accept()[0]

    async def wait(self) -> None:
        """Wait until a client connects, or until the port starts to refuse connections."""
        with suppress(anyio.ClosedResourceError):
            await anyio.wait_readable(self._socket)

    def _bind(self, port: int) -> socket.socket:
        bound = socket.socket()
        prepare(bound, self._buffer_bytes)
        # The bind needs SO_REUSEADDR, because earlier connections may still use the port. After the bind, SO_REUSEADDR
        # is cleared, so that no other program gets the port. A bound socket that does not listen refuses connections.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return bound
