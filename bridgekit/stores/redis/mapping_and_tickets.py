"""Stores routes and used tickets on a shared server, each under a key of its own."""

from __future__ import annotations

import math
from typing import Final

from bridgekit.ids import RunId, ThreadId, new_id
from bridgekit.stores.redis.keys_and_functions import ADD_ROUTE, CLOSE_ROUTE, GENERATION, GET_ROUTE
from bridgekit.stores.redis.topology import STORE, ClusterTopology
from bridgekit.transport.cancellation import require_loop

__all__ = ["RedisMappingStore", "RedisUsedTickets"]

MAX_DURATION_SECONDS: Final = 1e9
"""About 32 years, because a server refuses a duration whose end does not fit into 63 bits."""


class RedisMappingStore:
    """A `MappingStore` for any number of workers.

    An active run's route is deleted a day after its last use, so that routes of killed workers do not accumulate.
    """

    shared = True

    def __init__(self, topology: ClusterTopology) -> None:
        self._topology = topology
        self.known: dict[RunId, ThreadId] = {}
        """The routes of the runs that this worker executes."""

    async def add(self, run_id: RunId, thread_id: ThreadId) -> ThreadId:
        key, slot = self._topology.names.route(run_id)
        stored: bytes = await self._topology.call(slot, "FCALL", ADD_ROUTE, 1, key, thread_id.encode())
        if (found := ThreadId(stored.decode())) == thread_id:
            self.known[run_id] = found
        return found

    async def get(self, run_id: RunId) -> ThreadId | None:
        key, slot = self._topology.names.route(run_id)
        stored: bytes | None = await self._topology.call(slot, "FCALL", GET_ROUTE, 1, key)
        return None if stored is None else ThreadId(stored.decode())

    async def expire(self, run_id: RunId, seconds: float) -> None:
        require_loop(self._topology.loop, STORE)
        self.known.pop(run_id, None)
        key, slot = self._topology.names.route(run_id)
        await self._topology.call(slot, "FCALL", CLOSE_ROUTE, 1, key, round(1_000 * seconds))


class RedisUsedTickets:
    """Stores used tickets on a shared server, which deletes each one when the ticket expires."""

    def __init__(self, topology: ClusterTopology) -> None:
        self._topology = topology
        self.generation = ""

    async def load(self) -> RedisUsedTickets:
        """Read the generation. The registry of active runs reads the generation again whenever it renews its lease."""
        key, slot = self._topology.names.runs()[2]
        stored: bytes = await self._topology.call(
            slot, "FCALL", GENERATION, 1, key, self._topology.synced(slot), new_id()
        )
        self.generation = stored.decode()
        return self

    async def mark_used(self, ticket_id: str, seconds: float) -> bool:
        # Check first that the server answers. A server that does not answer could execute the SET after the client was
        # refused, and the client could not present the ticket again.
        await self.load()
        key, slot = self._topology.names.ticket(ticket_id)
        # The mark is random, so that a repeated call recognizes the mark of its first attempt.
        mark = new_id().encode()
        duration_ms = math.ceil(1_000 * min(max(seconds, 0.001), MAX_DURATION_SECONDS))
        stored = await self._topology.call(slot, "SET", key, mark, "NX", "GET", "PX", duration_ms)
        return stored is None or stored == mark
