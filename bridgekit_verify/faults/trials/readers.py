"""The users' sockets in an experiment: one that stays and resumes, and one that comes back with empty hands."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import anyio
from anyio.abc import TaskStatus
from websockets.exceptions import InvalidHandshake

from bridgekit.errors import Disconnected
from bridgekit.events import EventType, RoutedEvent
from bridgekit.signals import Gap
from bridgekit.transport.client import connect
from bridgekit.transport.following import Backoff, follow
from bridgekit_verify.measure.experiment import arrival_of
from bridgekit_verify.measure.history import Arrival, Missing, Socket

__all__ = ["Reader", "read_and_forget", "read_and_resume"]

KEEPALIVE_SECONDS: Final = 5.0
"""Longer than the windows of the faults: on a machine with other work a shorter one would be a fault of its own."""
BACKOFF: Final = Backoff(first_seconds=0.02, longest_seconds=0.2)


@dataclass
class Reader:
    """One user, and what his sockets read."""

    socket: Socket
    url: str
    ticket: Callable[[], Awaitable[str]]
    arrivals: list[Arrival] = field(default_factory=list)
    gaps: list[Missing] = field(default_factory=list)
    online: list[tuple[float, float]] = field(default_factory=list)
    """From when to when a socket was subscribed, in seconds since 1970."""
    duplicates: int = 0
    """Events that came again and were dropped before the user saw them."""
    _since: float = 0.0
    _there: anyio.Event = field(default_factory=anyio.Event)
    _ended: dict[str, anyio.Event] = field(default_factory=dict)

    @property
    def offline(self) -> list[tuple[float, float]]:
        """The times between, in which no socket was."""
        return [(earlier[1], later[0]) for earlier, later in pairwise(self.online)]

    def note_online(self, subscribed: bool) -> None:
        """A socket was subscribed, or is gone."""
        if subscribed:
            self._since = time.time()
            self._there.set()
        else:
            self.online.append((self._since, time.time()))
            self._there = anyio.Event()

    async def until_online(self) -> None:
        """Wait until a socket is subscribed."""
        await self._there.wait()

    def take(self, item: RoutedEvent | Gap, epoch: str) -> None:
        """Write down what a socket read, in which numbering."""
        if isinstance(item, Gap):
            self.gaps.append(Missing(item.first, item.last, item.epoch))
            return
        arrival = arrival_of(self.socket, item, read_at=time.time(), epoch=epoch)
        self.arrivals.append(arrival)
        if arrival.key is not None and arrival.key.type is EventType.AGENT_COMPLETED:
            self._end_of(arrival.key.request).set()

    async def until_ended(self, request: str) -> None:
        """Wait until the end of that run was read."""
        await self._end_of(request).wait()

    def _end_of(self, request: str) -> anyio.Event:
        return self._ended.setdefault(request, anyio.Event())


async def read_and_resume(reader: Reader, *, task_status: TaskStatus[None]) -> None:
    """Read with the client that stays, until cancelled."""
    async with follow(
        reader.url,
        online=reader.note_online,
        thread_id=reader.socket.thread_id,
        ticket=reader.ticket,
        backoff=BACKOFF,
        keepalive_seconds=KEEPALIVE_SECONDS,
    ) as follower:
        task_status.started()
        async for item in follower:
            reader.duplicates = follower.duplicates
            reader.take(item, follower.cursor.epoch if follower.cursor else "")


async def read_and_forget(reader: Reader, *, task_status: TaskStatus[None]) -> None:
    """Read with one socket after the other, each of which knows nothing of the one before, until cancelled."""
    started = False
    while True:
        try:
            async with connect(
                reader.url,
                thread_id=reader.socket.thread_id,
                ticket=await reader.ticket(),
                keepalive_seconds=KEEPALIVE_SECONDS,
            ) as client:
                if not started:
                    started = True
                    task_status.started()
                reader.note_online(True)
                try:
                    while True:
                        reader.take(await client.receive_any(), client.subscribed.epoch)
                finally:
                    reader.note_online(False)
        except (Disconnected, OSError, TimeoutError, InvalidHandshake):
            pass  # tried again, from nothing
        await anyio.sleep(BACKOFF.first_seconds)
