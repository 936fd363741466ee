"""The sockets of a load client: they read and count while the clock runs, and are judged afterwards."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final

from benchmarks.load.dialects import DIALECTS, Dialect
from benchmarks.load.verification import Verdict, judge
from benchmarks.workload import Run, thread_id

__all__ = ["Load", "Place"]

AT_ONCE: Final = 64
"""Connections that are being opened at a time."""
NOTICING_SECONDS: Final = 0.5
"""How long a socket that reads again may take to come to the end of what waited for it."""


class Place:
    """Where the server listens, and how one speaks to it."""

    def __init__(self, dialect: str, port: int) -> None:
        self.port = port
        self.conversation: Callable[[], Dialect] = DIALECTS[dialect]


class _Socket(asyncio.Protocol):
    """One subscriber of one thread."""

    def __init__(self, load: Load, thread: int, dialect: Dialect) -> None:
        self.thread = thread
        self.dialect = dialect
        self.moments: list[tuple[int, int]] = []
        """How many events there were, and when, after each piece that came."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gone = False
        self.stalled = False
        self._load = load
        self._wanted = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self.dialect.opening(thread_id(self.thread)))

    def data_received(self, data: bytes) -> None:
        dialect = self.dialect
        if (reply := dialect.feed(data)) is not None and self._transport is not None:
            self._transport.write(reply)
        if not self.ready.done():
            if dialect.ready:
                self.ready.set_result(None)
            return
        count, now = len(dialect.events), time.monotonic_ns()
        self.moments.append((count, now))
        if count >= self._wanted > 0:
            self._wanted = 0
            self._load.one_is_done(now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionResetError(f"thread {self.thread}: {exc or 'closed by the server'}"))

    def expect(self, events: int) -> None:
        """Begin a measurement: forget what came, and say when that many are there."""
        self.dialect.events.clear()
        self.moments.clear()
        self._wanted = events

    def stall(self) -> None:
        """Read no more."""
        self.stalled = True
        if self._transport is not None:
            self._transport.pause_reading()

    def read_again(self) -> None:
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Load:
    """All sockets of one client process."""

    def __init__(self) -> None:
        self.sockets: list[_Socket] = []
        self.done_ns = 0
        """When the last socket had all that it waited for."""
        self._waiting = 0
        self._done = asyncio.Event()
        self._patience = asyncio.Semaphore(AT_ONCE)

    @property
    def reading(self) -> list[_Socket]:
        return [each for each in self.sockets if not each.stalled]

    async def connect(
        self, place: Place, threads: range, *, subscribers: int = 1, receive_buffer_bytes: int = 0
    ) -> None:
        """Open so many sockets in each thread, and wait until all are subscribed."""
        wanted = [thread for thread in threads for _ in range(subscribers)]
        async with asyncio.TaskGroup() as group:
            opening = [group.create_task(self._open(place, thread, receive_buffer_bytes)) for thread in wanted]
        self.sockets += [task.result() for task in opening]

    async def _open(self, place: Place, thread: int, buffer_bytes: int) -> _Socket:
        async with self._patience:
            ours = socket.socket()
            if buffer_bytes:
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(ours, ("127.0.0.1", place.port))
            _, opened = await loop.create_connection(lambda: _Socket(self, thread, place.conversation()), sock=ours)
            await opened.ready
            return opened

    def expect(self, events: int) -> None:
        """Begin a measurement, in which every socket that reads waits for that many events."""
        self._done.clear()
        self._waiting = len(self.reading)
        for each in self.reading:
            each.expect(events)

    def one_is_done(self, now: int) -> None:
        self._waiting -= 1
        self.done_ns = now
        if not self._waiting:
            self._done.set()

    async def all_done(self, seconds: float) -> bool:
        """Wait until every socket has all it waits for; False where they do not within that time."""
        try:
            async with asyncio.timeout(seconds):
                await self._done.wait()
        except TimeoutError:
            return False
        return True

    def judged(self, first: int, runs: int, padding_bytes: int) -> Verdict:
        """What became of these runs' events, at the sockets that read."""
        verdict = Verdict()
        for each in self.reading:
            said = [Run(each.thread, number, "x" * padding_bytes) for number in range(first, first + runs)]
            verdict += judge(said, each.dialect.events)
        return verdict

    def arrivals(self) -> list[tuple[int, list[int]]]:
        """For each socket that reads: its thread, and when each of its events was there."""
        return [(each.thread, _spread(each.moments)) for each in self.reading]

    def stall(self) -> None:
        """Let the first socket read no more."""
        self.sockets[0].stall()

    async def cut_off(self) -> int:
        """How many of those that did not read the server has let go of meanwhile. They read again from now on."""
        stalled = [each for each in self.sockets if each.stalled]
        for each in stalled:
            each.read_again()
        await asyncio.sleep(NOTICING_SECONDS)
        return sum(each.gone or each.dialect.closed for each in stalled)

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.sockets.clear()


def _spread(moments: list[tuple[int, int]]) -> list[int]:
    """One moment an event, from how many there were at each moment."""
    spread: list[int] = []
    for count, now in moments:
        spread += [now] * (count - len(spread))
    return spread
