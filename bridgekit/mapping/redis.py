"""Routes in a Redis-protocol server: every worker finds the runs of every other."""

from __future__ import annotations

from typing import cast

from bridgekit.ids import RunId, ThreadId
from bridgekit.storage.redis import Servers
from bridgekit.storage.redis_library import CLOSE, FIND, ROUTE

__all__ = ["RedisStore"]


class RedisStore:
    """A key a run, in whose slot nothing else has to be. Every operation is one call; StoreAway comes out of each.

    A live run's route is never evicted: it is forgotten only when nobody has asked for it for a day, which bounds what
    runs leave behind whose worker died before it closed them. (A server that is told to evict what it has no room for
    breaks that promise; it is warned of when it is connected.)
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        key, slot = self._servers.names.route(run_id)
        holds = await self._servers.call(slot, b"FCALL", ROUTE, 1, key, thread_id.encode())
        return ThreadId(cast("bytes", holds).decode())

    async def get(self, run_id: RunId) -> ThreadId | None:
        key, slot = self._servers.names.route(run_id)
        found = await self._servers.call(slot, b"FCALL", FIND, 1, key)
        return None if found is None else ThreadId(cast("bytes", found).decode())

    async def expire(self, run_id: RunId, seconds: float) -> None:
        key, slot = self._servers.names.route(run_id)
        await self._servers.call(slot, b"FCALL", CLOSE, 1, key, round(1_000 * seconds))
