"""One direction of one connection through the proxy: bytes in, bytes out, and what the running toxics do to them."""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit_verify.faults.toxics import Toxic, Way

__all__ = ["Pacer", "Pump"]

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

    def took(self, size: int, now: float, rate: float) -> None:
        """Note that so many bytes were read."""
        self._free_at = max(self._free_at, now - TICK_SECONDS) + size / rate


@dataclass
class Felt:
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
        self._felt: dict[int, Felt] = {}
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
        self._felt = {number: self._felt.get(number) or self._feel(toxic) for number, toxic in own.items()}
        self._rate = min((toxic.rate() for toxic in own.values()), default=math.inf)
        self._holds = any(toxic.holds for toxic in own.values())
        self._swallows = any(toxic.swallows for toxic in own.values())
        self._keep_limits()
        self._ring()

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
            if self._felt or self._late:
                await self._pass_slowly(data, target, tasks)
            else:
                await self._write(data, target)
            if not data:
                return
            if not self._waited:
                # Two fast peers would keep everybody else from running.
                await checkpoint()

    def _feel(self, toxic: Toxic) -> Felt:
        return Felt(toxic, Random(f"{toxic.seed} {self._number} {self._way.value}"))

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
                    self._pacer.took(len(data), anyio.current_time(), self._rate)
                return data

    async def _pass_slowly(self, data: bytes, target: socket.socket, tasks: TaskGroup) -> None:
        rest = memoryview(data)
        while True:
            piece = rest[: self._piece()]
            rest = rest[len(piece) :]
            await self._pass_piece(piece, target, tasks)
            if not rest:
                return
            # A chunk may be many pieces, and they are to be found one by one by whoever reads them here.
            await checkpoint()

    def _piece(self) -> int | None:
        sizes = [size for felt in self._felt.values() if (size := felt.toxic.piece(felt.chance)) is not None]
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
        felt = self._felt.values()
        delay = sum(one.toxic.delay(one.chance) for one in felt)
        pause = sum(one.toxic.pause() for one in felt)
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
            self._ring()

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
        if self._felt:
            self._count(sent)
        return sent

    async def _told(self) -> None:
        """Wait until the other end may hear that the stream is over."""
        while self._holds or self._swallows:
            await self._change(math.inf)

    def _left(self) -> int | None:
        left = [limit - felt.passed for felt in self._felt.values() if (limit := felt.toxic.limit()) is not None]
        return min(left, default=None)

    def _count(self, sent: int) -> None:
        for felt in self._felt.values():
            felt.passed += sent
        self._keep_limits()

    def _keep_limits(self) -> None:
        for felt in self._felt.values():
            limit = felt.toxic.limit()
            if limit is not None and felt.passed >= limit:
                self._cut(felt.toxic)

    async def _change(self, seconds: float) -> None:
        """Wait for other toxics, or for room, or for so long."""
        self._waited = True
        if self._changed is None:
            self._changed = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._changed.wait()

    def _ring(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
