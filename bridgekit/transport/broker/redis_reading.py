"""Reading threads' logs: for a socket that resumes, and for a subscription that may have missed something."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, cast

import anyio

from bridgekit.errors import StoreAway
from bridgekit.signals import Cursor
from bridgekit.storage.redis import STORE, Servers
from bridgekit.storage.redis_library import READ, Keys
from bridgekit.storage.redis_line import Backoff
from bridgekit.transport.broker.redis_order import Joined, Log
from bridgekit.transport.broker.redis_sending import settings_of
from bridgekit.transport.log import Keep, Sink

__all__ = ["CatchingUp", "Logs"]

READERS: Final = 16
"""Logs of one server that are read at a time. Each answer may be as large as a log."""


class Logs:
    """The logs of all threads."""

    def __init__(self, servers: Servers, keep: Keep, emitter: bytes) -> None:
        self._servers = servers
        self._keep = keep
        self._emitter = emitter

    async def read(self, keys: Keys, after: Cursor | None) -> Log:
        """Where the numbering is, and all that came after the cursor. StoreAway where it is not answered in time."""
        server = self._servers.of(keys.slot)
        if server is None:
            raise StoreAway(STORE, "no server has the slot")
        settings = settings_of(self._keep, server)
        epoch, seq = after or ("", "")
        answer = await self._servers.call(
            keys.slot, b"FCALL", READ, 2, keys.log, keys.head, settings, self._emitter, epoch, seq
        )
        return Log.of(cast("list[Any]", answer))


class CatchingUp:
    """Brings threads up to date that one server's subscription may have left behind."""

    def __init__(self, logs: Logs, sink: Sink) -> None:
        self._logs = logs
        self._sink = sink
        self._queue: deque[Joined] = deque()
        self._some = anyio.Event()
        self._backoff = Backoff()

    def push(self, joined: Joined) -> None:
        """Read its log when its turn comes."""
        if not joined.queued:
            joined.queued = True
            self._queue.append(joined)
            self._some.set()

    async def run(self) -> None:
        """Read, for ever."""
        while True:
            while not self._queue:
                self._some = anyio.Event()
                await self._some.wait()
            async with anyio.create_task_group() as tasks:
                for _ in range(min(READERS, len(self._queue))):
                    tasks.start_soon(self._read)

    async def _read(self) -> None:
        """Read one log after the other, until none waits or one cannot be read."""
        while self._queue:
            joined = self._queue.popleft()
            joined.queued = False
            if not joined.sockets:
                continue
            try:
                log = await self._logs.read(joined.keys, joined.at)
            except StoreAway:
                self.push(joined)
                await anyio.sleep(self._backoff.next())
                return
            self._backoff.reset()
            if not joined.catch_up(log, self._sink):
                self.push(joined)
