"""Spent tickets in a Redis-protocol server: one that opened a socket of some worker opens none of another."""

from __future__ import annotations

import math

from bridgekit.ids import new_id
from bridgekit.storage.redis import Servers

__all__ = ["SpentInRedis"]


class SpentInRedis:
    """A key a ticket, which the server forgets when the ticket would have expired."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def spend(self, ticket_id: str, seconds: float) -> bool:
        key, slot = self._servers.names.ticket(ticket_id)
        # Who is asked again, because the answer was lost, finds its own mark and not a stranger's.
        mark = new_id().encode()
        lasts_ms = max(1, math.ceil(1_000 * seconds))
        holds = await self._servers.call(slot, b"SET", key, mark, b"NX", b"GET", b"PX", lasts_ms)
        return holds is None or holds == mark
