"""picows: WebSockets in Cython on a C transport, without backpressure and without bounded buffers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.peers.stack_context import SUBSCRIBED, HandRolled, SocketGroups, StackContext, thread_of
from benchmarks.workload import EnvelopeFactory, EventBody

__all__ = ["serve"]


class _PicowsSocket(WSListener):
    def __init__(self, groups: SocketGroups[WSTransport], thread: str) -> None:
        super().__init__()
        self._groups = groups
        self._thread = thread

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._groups.add(self._thread, transport)
        transport.send(WSMsgType.TEXT, SUBSCRIBED.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._groups.remove(self._thread, transport)


@asynccontextmanager
async def serve(context: StackContext) -> AsyncIterator[HandRolled]:
    groups = SocketGroups[WSTransport]()
    envelopes = EnvelopeFactory()

    async def emit_event(thread_id: str, run_id: str, body: EventBody) -> None:
        data = orjson.dumps(envelopes.envelope(thread_id, run_id, body, datetime.now(UTC)))
        for transport in groups.of(thread_id):
            transport.send(WSMsgType.TEXT, data)

    def listen(request: WSUpgradeRequest) -> _PicowsSocket:
        return _PicowsSocket(groups, thread_of(request.path.decode()))

    listener = context.listener()
    async with await ws_create_server(listen, sock=listener):
        yield HandRolled(listener.getsockname()[1], emit_event)
