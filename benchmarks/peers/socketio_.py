"""python-socketio: rooms, acknowledgements and fallbacks, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import socketio

from benchmarks.peers.context import HandRolled, StackContext, on_uvicorn, thread_of
from benchmarks.workload import Numbers, Said

__all__ = ["server", "up"]


def server(**how: Any) -> socketio.AsyncServer:
    """A server whose sockets join the room of their thread."""
    made = socketio.AsyncServer(async_mode="asgi", **how)

    async def connect(sid: str, environ: dict[str, str]) -> None:
        await made.enter_room(sid, thread_of(f"?{environ['QUERY_STRING']}"))

    made.on("connect", connect)
    return made


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    made = server()
    numbers = Numbers()

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        event = numbers.envelope(thread_id, run_id, said, datetime.now(UTC).isoformat())
        await made.emit("event", event, room=thread_id)

    async with on_uvicorn(socketio.ASGIApp(made), place) as port:
        yield HandRolled(port, say)
