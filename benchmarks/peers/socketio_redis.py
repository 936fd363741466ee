"""python-socketio with its Redis manager: a write-only process with the agents, and a process with the sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import socketio

from benchmarks.peers.socketio_ import server
from benchmarks.peers.stack_context import HandRolled, StackContext, on_uvicorn
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    manager = socketio.AsyncRedisManager(context.broker, write_only=not context.sockets)
    envelopes = EnvelopeFactory()

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        event = envelopes.envelope(thread_id, run_id, body, datetime.now(UTC).isoformat())
        await manager.emit("event", event, room=thread_id)

    if context.sockets:
        async with on_uvicorn(socketio.ASGIApp(server(client_manager=manager)), context) as port:
            yield HandRolled(port, emit_event)
    else:
        yield HandRolled(0, emit_event)
