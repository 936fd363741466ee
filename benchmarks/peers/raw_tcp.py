"""Raw TCP with one `transport.write` per event and no backpressure: shows the cost of the system call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson

from benchmarks.peers.stack_context import SUBSCRIBED, HandRolled, SocketGroups, StackContext
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


class _Socket(asyncio.Protocol):
    def __init__(self, groups: SocketGroups[asyncio.Transport]) -> None:
        self._groups = groups
        self._thread = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._thread = data.decode().strip()
        self._groups.add(self._thread, self._transport)
        self._transport.write(f"{SUBSCRIBED}\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._thread:
            self._groups.remove(self._thread, self._transport)


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    groups = SocketGroups[asyncio.Transport]()
    envelopes = EnvelopeFactory()

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        data = orjson.dumps(envelopes.envelope(thread_id, run_id, body, datetime.now(UTC))) + b"\n"
        for transport in groups.of(thread_id):
            transport.write(data)

    listener = context.listener()
    async with await asyncio.get_running_loop().create_server(lambda: _Socket(groups), sock=listener):
        yield HandRolled(listener.getsockname()[1], emit_event)
