"""sse-starlette, used as in its documentation: one memory stream per subscriber, and the agent awaits each send."""

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

from benchmarks.peers.stack_context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, on_uvicorn
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]

STREAM_EVENTS = 10
"""Buffer size of a stream in events, as in the documentation."""


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    groups = SocketGroups[MemoryObjectSendStream[str]]()
    envelopes = EnvelopeFactory()

    async def endpoint(request: Request) -> Response:
        thread = request.query_params["thread_id"]
        send, receive = anyio.create_memory_object_stream[str](STREAM_EVENTS)

        async def events() -> AsyncIterator[str]:
            try:
                async with send, receive:
                    groups.add(thread, send)
                    yield SUBSCRIBED
                    async for event in receive:
                        yield event
            finally:
                groups.remove(thread, send)

        response: Response = EventSourceResponse(events())
        return response

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        text = orjson.dumps(envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))).decode()
        for stream in groups.of(thread_id):
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await stream.send(text)

    async with on_uvicorn(Starlette(routes=[Route("/events", endpoint)]), context) as port:
        yield HandRolled(port, emit_event)
