"""websockets with `await connection.send` for one subscriber after another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import orjson
from websockets.exceptions import ConnectionClosed

from benchmarks.peers.stack_context import HandRolled, StackContext
from benchmarks.peers.websockets_server import serving
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    envelopes = EnvelopeFactory()
    async with serving(context) as (port, groups):

        async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
            text = orjson.dumps(envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))).decode()
            for connection in groups.of(thread_id):
                with suppress(ConnectionClosed):
                    await connection.send(text)

        yield HandRolled(port, emit_event)
