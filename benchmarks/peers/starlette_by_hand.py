"""What most people write: a Starlette endpoint that keeps its sockets, and a loop that sends to each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import orjson
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.peers.context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, on_uvicorn
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    rooms = SocketGroups[WebSocket]()
    numbers = Numbers()

    async def stay(websocket: WebSocket) -> None:
        thread = websocket.query_params["thread_id"]
        await websocket.accept()
        rooms.add(thread, websocket)
        try:
            await websocket.send_text(SUBSCRIBED)
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            return
        finally:
            rooms.remove(thread, websocket)

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        text = orjson.dumps(numbers.envelope(thread_id, run_id, said, datetime.now(UTC))).decode()
        for websocket in rooms.of(thread_id):
            with suppress(WebSocketDisconnect):
                await websocket.send_text(text)

    async with on_uvicorn(Starlette(routes=[WebSocketRoute("/ws", stay)]), place) as port:
        yield HandRolled(port, say)
