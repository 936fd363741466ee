"""`await connection.send`, one subscriber after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import orjson
from websockets.exceptions import ConnectionClosed

from benchmarks.peers.context import HandRolled, StackContext
from benchmarks.peers.websockets_server import serving
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    numbers = Numbers()
    async with serving(place) as (port, rooms):

        async def say(thread_id: str, run_id: str, said: Said) -> None:
            text = orjson.dumps(numbers.envelope(thread_id, run_id, said, datetime.now(UTC))).decode()
            for connection in rooms.of(thread_id):
                with suppress(ConnectionClosed):
                    await connection.send(text)

        yield HandRolled(port, say)
