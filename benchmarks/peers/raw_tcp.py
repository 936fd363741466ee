"""No WebSocket and no protection: one `transport.write` an event. What the system call costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson

from benchmarks.peers.context import SUBSCRIBED, HandRolled, SocketGroups, StackContext
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


class _Socket(asyncio.Protocol):
    def __init__(self, rooms: SocketGroups[asyncio.Transport]) -> None:
        self._rooms = rooms
        self._thread = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._thread = data.decode().strip()
        self._rooms.add(self._thread, self._transport)
        self._transport.write(f"{SUBSCRIBED}\n".encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if self._thread:
            self._rooms.remove(self._thread, self._transport)


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    rooms = SocketGroups[asyncio.Transport]()
    numbers = Numbers()

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        data = orjson.dumps(numbers.envelope(thread_id, run_id, said, datetime.now(UTC))) + b"\n"
        for transport in rooms.of(thread_id):
            transport.write(data)

    listener = place.listener()
    async with await asyncio.get_running_loop().create_server(lambda: _Socket(rooms), sock=listener):
        yield HandRolled(listener.getsockname()[1], say)
