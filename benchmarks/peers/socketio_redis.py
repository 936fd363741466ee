"""python-socketio with its Redis manager: a process of agents that only writes, and one with the sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import socketio

from benchmarks.peers.context import HandRolled, StackContext, on_uvicorn
from benchmarks.peers.socketio_ import server
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    manager = socketio.AsyncRedisManager(place.broker, write_only=not place.sockets)
    numbers = Numbers()

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        event = numbers.envelope(thread_id, run_id, said, datetime.now(UTC).isoformat())
        await manager.emit("event", event, room=thread_id)

    if place.sockets:
        async with on_uvicorn(socketio.ASGIApp(server(client_manager=manager)), place) as port:
            yield HandRolled(port, say)
    else:
        yield HandRolled(0, say)
