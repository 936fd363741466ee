"""sse-starlette, as its documentation shows: a memory stream a subscriber, and an agent that waits for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import anyio
import orjson
from anyio.streams.memory import MemoryObjectSendStream
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.peers.context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, on_uvicorn
from benchmarks.workload import Numbers, Said

__all__ = ["up"]

WAITING_EVENTS = 10
"""As in its documentation."""


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    rooms = SocketGroups[MemoryObjectSendStream[str]]()
    numbers = Numbers()

    async def stay(request: Request) -> Response:
        thread = request.query_params["thread_id"]
        send, receive = anyio.create_memory_object_stream[str](WAITING_EVENTS)

        async def events() -> AsyncIterator[str]:
            try:
                async with send, receive:
                    rooms.add(thread, send)
                    yield SUBSCRIBED
                    async for event in receive:
                        yield event
            finally:
                rooms.remove(thread, send)

        response: Response = EventSourceResponse(events())
        return response

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        text = orjson.dumps(numbers.envelope(thread_id, run_id, said, datetime.now(UTC))).decode()
        for stream in rooms.of(thread_id):
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await stream.send(text)

    async with on_uvicorn(Starlette(routes=[Route("/events", stay)]), place) as port:
        yield HandRolled(port, say)
