"""websockets with `broadcast`, which does not wait for subscribers and buffers without a bound for a slow socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
from websockets.asyncio.server import broadcast

from benchmarks.peers.stack_context import HandRolled, StackContext
from benchmarks.peers.websockets_server import serving
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    envelopes = EnvelopeFactory()
    async with serving(context) as (port, groups):

        async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
            event = envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))
            broadcast(groups.of(thread_id), orjson.dumps(event).decode())

        yield HandRolled(port, emit_event)
