"""A connection through the proxy: two sockets, and a pump each way that applies the running toxics; its port."""

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

from bridgekit_verify.faults.toxics import Toxic, Way

__all__ = ["BUFFER_BYTES", "Pacer", "ProxiedConnection", "ProxyListener", "ServerAddress", "prepare"]

CHUNK_BYTES: Final = 65_536
TICK_SECONDS: Final = 0.02
"""How long one read may keep a limited connection busy: short, so that bytes trickle and do not gush."""


class Pacer:
    """When, and how much, may be read at a rate. What was not used is not saved up for longer than a tick."""

    def __init__(self) -> None:
        self._free_at = -math.inf

    def wait(self, now: float, rate: float) -> float:
        """Seconds until something may be read; infinite at a rate of 0."""
        return max(0.0, self._free_at - now) if rate > 0 else math.inf

    def most(self, rate: float) -> int:
        """Bytes to be read at once."""
        return CHUNK_BYTES if rate == math.inf else min(CHUNK_BYTES, max(1, int(rate * TICK_SECONDS)))

    def consumed(self, size: int, now: float, rate: float) -> None:
        """Note that so many bytes were read."""
        self._free_at = max(self._free_at, now - TICK_SECONDS) + size / rate


@dataclass
class ActiveToxic:
    """What one pump keeps of one running toxic."""

    toxic: Toxic
    chance: Random
    passed: int = 0


class Pump:
    """Reads from one socket and writes to the other.

    It holds at most one chunk and `buffer_bytes` of late pieces: with more it would hide a slow reader. So a latency
    lets `buffer_bytes` through each delay, as a TCP window of that size would.
    """

    def __init__(self, way: Way, number: int, buffer_bytes: int, cut: Callable[[Toxic], None]) -> None:
        self._way = way
        self._number = number
        self._buffer_bytes = buffer_bytes
        self._cut = cut
        self._active: dict[int, ActiveToxic] = {}
        self._pacer = Pacer()
        self._rate = math.inf
        self._holds = False
        self._swallows = False
        self._late: deque[tuple[float, memoryview]] = deque()
        self._late_bytes = 0
        self._last_due = -math.inf
        self._changed: anyio.Event | None = None
        self._waited = False

    def follow(self, running: Mapping[int, Toxic]) -> None:
        """From now on these toxics act, each under the number of its start. Does not wait."""
        own = {number: toxic for number, toxic in running.items() if self._way in toxic.ways}
        self._active = {number: self._active.get(number) or self._activate(toxic) for number, toxic in own.items()}
        self._rate = min((toxic.rate() for toxic in own.values()), default=math.inf)
        self._holds = any(toxic.holds for toxic in own.values())
        self._swallows = any(toxic.swallows for toxic in own.values())
        self._keep_limits()
        self._wake()

    def freeze(self) -> None:
        """Pass on nothing any more: the connection is cut, and what is under way must not slip through after that."""
        self._holds = True

    async def run(self, source: socket.socket, target: socket.socket, tasks: TaskGroup) -> None:
        """Pass on what comes, up to the end of the stream; OSError where one of the two ends broke."""
        while True:
            self._waited = False
            try:
                data = await self._read(source)
            except OSError:
                # A broken stream is news too, and gets through no better than a byte.
                await self._told()
                raise
            if self._active or self._late:
                await self._pass_slowly(data, target, tasks)
            else:
                await self._write(data, target)
            if not data:
                return
            if not self._waited:
                # Two fast peers would keep all other tasks from running.
                await checkpoint()

    def _activate(self, toxic: Toxic) -> ActiveToxic:
        return ActiveToxic(toxic, Random(f"{toxic.seed} {self._number} {self._way.value}"))

    async def _read(self, source: socket.socket) -> bytes:
        while True:
            while self._rate < math.inf and (wait := self._pacer.wait(anyio.current_time(), self._rate)):
                await self._change(wait)
            try:
                data = source.recv(self._pacer.most(self._rate))
            except BlockingIOError:
                self._waited = True
                await anyio.wait_readable(source)
            else:
                if self._rate < math.inf:
                    self._pacer.consumed(len(data), anyio.current_time(), self._rate)
                return data

    async def _pass_slowly(self, data: bytes, target: socket.socket, tasks: TaskGroup) -> None:
        rest = memoryview(data)
        while True:
            piece = rest[: self._piece()]
            rest = rest[len(piece) :]
            await self._pass_piece(piece, target, tasks)
            if not rest:
                return
            # A chunk may be many pieces, and the reader is to receive them one by one.
            await checkpoint()

    def _piece(self) -> int | None:
        sizes = [size for active in self._active.values() if (size := active.toxic.piece(active.chance)) is not None]
        return min(sizes, default=None)

    async def _pass_piece(self, piece: memoryview, target: socket.socket, tasks: TaskGroup) -> None:
        now = anyio.current_time()
        due = self._due(now)
        if due <= now and not self._late:
            await self._write(piece, target)
            return
        while self._late_bytes >= self._buffer_bytes:
            await self._change(math.inf)
        self._late.append((due, piece))
        self._late_bytes += len(piece)
        if len(self._late) == 1:
            tasks.start_soon(self._deliver, target)

    def _due(self, now: float) -> float:
        """When the next piece is to be written: late, a pause after the one before, and never earlier than that one."""
        active = self._active.values()
        delay = sum(one.toxic.delay(one.chance) for one in active)
        pause = sum(one.toxic.pause() for one in active)
        self._last_due = max(now + delay, self._last_due + pause)
        return self._last_due

    async def _deliver(self, target: socket.socket) -> None:
        """Write the late pieces when due. The one being written stays in the queue, so that none overtakes it."""
        while self._late:
            due, piece = self._late[0]
            await anyio.sleep_until(due)
            await self._write(piece, target)
            self._late.popleft()
            self._late_bytes -= len(piece)
            self._wake()

    async def _write(self, data: bytes | memoryview, target: socket.socket) -> None:
        """Write all of it, or the end of the stream where it is empty."""
        if not data:
            await self._told()
            target.shutdown(socket.SHUT_WR)
            return
        rest = memoryview(data)
        while rest:
            while self._holds:
                await self._change(math.inf)
            if self._swallows:
                return
            rest = rest[await self._send(rest, target) :]

    async def _send(self, rest: memoryview, target: socket.socket) -> int:
        """Give the bytes that were taken; 0 after a wait, in which other toxics may have begun."""
        try:
            sent = target.send(rest[: self._left()])
        except BlockingIOError:
            self._waited = True
            await anyio.wait_writable(target)
            return 0
        if self._active:
            self._count(sent)
        return sent

    async def _told(self) -> None:
        """Wait until no toxic keeps the end of the stream from the other side."""
        while self._holds or self._swallows:
            await self._change(math.inf)

    def _left(self) -> int | None:
        left = [
            limit - active.passed for active in self._active.values() if (limit := active.toxic.limit()) is not None
        ]
        return min(left, default=None)

    def _count(self, sent: int) -> None:
        for active in self._active.values():
            active.passed += sent
        self._keep_limits()

    def _keep_limits(self) -> None:
        for active in self._active.values():
            limit = active.toxic.limit()
            if limit is not None and active.passed >= limit:
                self._cut(active.toxic)

    async def _change(self, seconds: float) -> None:
        """Wait for other toxics, or for room, or for so long."""
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
"""SO_LINGER switched on, with no time to linger."""


class ServerAddress(NamedTuple):
    """Where the server is."""

    family: socket.AddressFamily
    place: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


class ProxiedConnection:
    """A client's socket and one to the server, with a pump each way."""

    def __init__(self, number: int, client: socket.socket, address: ServerAddress, buffer_bytes: int) -> None:
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
            # No server, or a broken connection: the other end gets the same error as without the proxy.
            self._resets = True
        finally:
            for end in (self._client, self._server):
                _close(end, reset=self._resets, unread_bytes=4 * self._buffer_bytes)

    async def _connect(self) -> None:
        # The server must not see a connection that was cut before it was passed on.
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


BACKLOG: Final = 1_024


class ProxyListener:
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
        """Wait until a client connects, or the port refuses."""
        with suppress(anyio.ClosedResourceError):
            await anyio.wait_readable(self._socket)

    def _bound(self, port: int) -> socket.socket:
        bound = socket.socket()
        prepare(bound, self._buffer_bytes)
        # Earlier connections may still use the port, so it is shared while it is bound, and not afterwards: bound and
        # not listening, it refuses connections, and the system gives its number to no other program.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return bound
