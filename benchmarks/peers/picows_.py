"""picows: WebSockets in Cython, on a transport in C. It waits for nobody, and bounds nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.peers.context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, thread_of
from benchmarks.workload import Numbers, Said

__all__ = ["up"]


class _PicowsSocket(WSListener):
    def __init__(self, rooms: SocketGroups[WSTransport], thread: str) -> None:
        super().__init__()
        self._rooms = rooms
        self._thread = thread

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._rooms.add(self._thread, transport)
        transport.send(WSMsgType.TEXT, SUBSCRIBED.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._rooms.remove(self._thread, transport)


@asynccontextmanager
async def up(place: StackContext) -> AsyncIterator[HandRolled]:
    rooms = SocketGroups[WSTransport]()
    numbers = Numbers()

    async def say(thread_id: str, run_id: str, said: Said) -> None:
        data = orjson.dumps(numbers.envelope(thread_id, run_id, said, datetime.now(UTC)))
        for transport in rooms.of(thread_id):
            transport.send(WSMsgType.TEXT, data)

    def listen(request: WSUpgradeRequest) -> _PicowsSocket:
        return _PicowsSocket(rooms, thread_of(request.path.decode()))

    listener = place.listener()
    async with await ws_create_server(listen, sock=listener):
        yield HandRolled(listener.getsockname()[1], say)
