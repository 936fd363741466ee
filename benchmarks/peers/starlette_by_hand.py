"""A typical hand-written server: a Starlette endpoint stores its sockets, and a loop sends to each socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import orjson
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.peers.stack_context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, on_uvicorn
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    groups = SocketGroups[WebSocket]()
    envelopes = EnvelopeFactory()

    async def endpoint(websocket: WebSocket) -> None:
        thread = websocket.query_params["thread_id"]
        await websocket.accept()
        groups.add(thread, websocket)
        try:
            await websocket.send_text(SUBSCRIBED)
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            return
        finally:
            groups.remove(thread, websocket)

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        text = orjson.dumps(envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))).decode()
        for websocket in groups.of(thread_id):
            with suppress(WebSocketDisconnect):
                await websocket.send_text(text)

    async with on_uvicorn(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), context) as port:
        yield HandRolled(port, emit_event)
