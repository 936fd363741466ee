"""`websockets.broadcast`: waits for nobody, and what a slow socket does not take is kept for it without a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
from websockets.asyncio.server import broadcast

from benchmarks.peers.context import HandRolled, StackContext
from benchmarks.peers.websockets_server import serving
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    numbers = Numbers()
    async with serving(place) as (port, rooms):

        async def say(thread_id: str, run_id: str, said: Said) -> None:
            event = numbers.envelope(thread_id, run_id, said, datetime.now(UTC))
            broadcast(rooms.of(thread_id), orjson.dumps(event).decode())

        yield HandRolled(port, say)
