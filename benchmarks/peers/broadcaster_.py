"""broadcaster, used as in its documentation: one subscription per endpoint, in memory or over Redis pub/sub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import orjson
from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.peers.stack_context import SUBSCRIBED, HandRolled, StackContext, on_uvicorn
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    envelopes = EnvelopeFactory()
    async with Broadcast(context.broker or "memory://") as broadcast:

        async def endpoint(websocket: WebSocket) -> None:
            await websocket.accept()
            async with broadcast.subscribe(channel=websocket.query_params["thread_id"]) as subscriber:
                await websocket.send_text(SUBSCRIBED)
                with suppress(WebSocketDisconnect):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_wait_disconnected(websocket))
                        async for event in subscriber:
                            await websocket.send_text(event.message)

        async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
            event = envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))
            await broadcast.publish(channel=thread_id, message=orjson.dumps(event).decode())

        if context.sockets:
            async with on_uvicorn(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), context) as port:
                yield HandRolled(port, emit_event)
        else:
            yield HandRolled(0, emit_event)


async def _wait_disconnected(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    raise WebSocketDisconnect
