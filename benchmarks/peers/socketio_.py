"""python-socketio with its in-memory manager: one room for each thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import socketio

from benchmarks.peers.stack_context import HandRolled, StackContext, on_uvicorn, thread_of
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve", "server"]


def server(**server_options: Any) -> socketio.AsyncServer:
    """Return a server whose sockets join the room of their thread."""
    sio = socketio.AsyncServer(async_mode="asgi", **server_options)

    async def connect(sid: str, environ: dict[str, str]) -> None:
        await sio.enter_room(sid, thread_of(f"?{environ['QUERY_STRING']}"))

    sio.on("connect", connect)
    return sio


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    sio = server()
    envelopes = EnvelopeFactory()

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        event = envelopes.envelope(thread_id, run_id, body, datetime.now(UTC).isoformat())
        await sio.emit("event", event, room=thread_id)

    async with on_uvicorn(socketio.ASGIApp(sio), context) as port:
        yield HandRolled(port, emit_event)
