"""broadcaster, as its documentation shows: a subscription an endpoint; in memory, or over Redis pub/sub."""

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

from benchmarks.peers.context import SUBSCRIBED, HandRolled, StackContext, on_uvicorn
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    numbers = Numbers()
    async with Broadcast(place.broker or "memory://") as broadcast:

        async def stay(websocket: WebSocket) -> None:
            await websocket.accept()
            async with broadcast.subscribe(channel=websocket.query_params["thread_id"]) as subscriber:
                await websocket.send_text(SUBSCRIBED)
                with suppress(WebSocketDisconnect):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_gone(websocket))
                        async for event in subscriber:
                            await websocket.send_text(event.message)

        async def say(thread_id: str, run_id: str, said: Said) -> None:
            event = numbers.envelope(thread_id, run_id, said, datetime.now(UTC))
            await broadcast.publish(channel=thread_id, message=orjson.dumps(event).decode())

        if place.sockets:
            async with on_uvicorn(Starlette(routes=[WebSocketRoute("/ws", stay)]), place) as port:
                yield HandRolled(port, say)
        else:
            yield HandRolled(0, say)


async def _gone(websocket: WebSocket) -> None:
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    raise WebSocketDisconnect
