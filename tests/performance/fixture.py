"""A served application, agents that emit, and sockets that read only on request."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import anyio

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_7_8_adapter import WebSocketBridgeAdapter
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit.serve.in_process import serving
from bridgekit.stores import memory_stores
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.log import DEFAULT_RETENTION, Retention
from tests.performance.budgets import Edge
from tests.performance.task_switches import wait_settled
from tests.transport.raw_client import HEADER_END, handshake

__all__ = ["EVENTS", "SEND_BYTES", "Reader", "ServedFixture", "emit_events", "serve_fixture"]

EVENTS: Final = 5
"""Events of a burst, which an agent emits without waiting."""
SEND_BYTES: Final = 1_048_576
"""Send buffer of a socket, large enough for everything that a test writes at once; the system may halve it."""
QUIET_SECONDS: Final = 3_600.0
"""Keepalive interval longer than any test, so that no ping is sent."""
TIMEOUT_SECONDS: Final = 10.0
TEXT_FRAME: Final = 0x81
PING: Final = 0x89
CLOSE_FRAME: Final = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""A close frame with code 1000, masked with zeros."""
LONG: Final = 126
"""Marks a length in the next two bytes (RFC 6455, section 5.2)."""
USER: Final = "user_1"


class Reader:
    """A hand-written client socket outside the event loop, so that its work does not count as the server's."""

    def __init__(self, here: socket.socket) -> None:
        self._here = here
        self._waiting = b""
        self.confirmation: dict[str, Any] = {}

    async def subscribe(self, host: str, query: str) -> None:
        """Do the opening handshake and read the confirmation."""
        self._here.send(handshake(host, query))
        await self._until_readable(HEADER_END)
        head, _, self._waiting = self._waiting.partition(HEADER_END)
        assert head.startswith(b"HTTP/1.1 101 "), head
        while (first := self._frame()) is None:
            await self._until_readable(b"")
        self.confirmation = json.loads(first)
        assert self.confirmation["type"] == "subscribed", self.confirmation
        self._here.settimeout(TIMEOUT_SECONDS)

    def read(self, count: int) -> list[dict[str, Any]]:
        """Return the next frames in order. Raises TimeoutError or EOFError."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            while (text := self._frame()) is None:
                data = self._here.recv(65_536)
                if not data:
                    raise EOFError(f"the server closed the socket after {len(found)} frames")
                self._waiting += data
            found.append(json.loads(text))
        return found

    async def close(self) -> None:
        """Send a close frame, and wait until the server has closed the connection and is idle."""
        self._here.setblocking(False)
        self._here.send(CLOSE_FRAME)
        while await self._received():
            pass
        self._here.close()
        await wait_settled()

    def _frame(self) -> bytes | None:
        """Return a complete text frame of fewer than 65,536 bytes, or None. Pings are ignored."""
        while len(self._waiting) >= 2:
            kind, size, begin = self._waiting[0], self._waiting[1], 2
            if size == LONG:
                size, begin = int.from_bytes(self._waiting[2:4]), 4
            if len(self._waiting) < begin + size:
                return None
            text, self._waiting = self._waiting[begin : begin + size], self._waiting[begin + size :]
            if kind == TEXT_FRAME:
                return text
            assert kind == PING, f"a frame of kind {kind:#x}"
        return None

    async def _until_readable(self, wanted: bytes) -> None:
        while True:
            data = await self._received()
            if not data:
                raise EOFError("the server closed the socket before it was subscribed")
            self._waiting += data
            if wanted in self._waiting:
                return

    async def _received(self) -> bytes:
        await anyio.wait_readable(self._here)
        return self._here.recv(65_536)


class ServedFixture:
    """A served application with its clients and agents."""

    def __init__(self, url: str, application: Application, stack: ExitStack) -> None:
        self.application = application
        self._address = urlsplit(url)
        self._stack = stack
        self._threads = count(1)

    async def readers(self, sockets: int, thread: str, after: Cursor | None = None) -> list[Reader]:
        """Subscribe sockets to a thread, and return them when the server is idle."""
        await self.application.open_thread(thread, USER)
        made = [await self.reader(thread, after) for _ in range(sockets)]
        await wait_settled()
        return made

    async def reader(self, thread: str, after: Cursor | None = None) -> Reader:
        """Subscribe a socket to an existing thread."""
        query = {"user_id": USER, "thread_id": thread}
        if after is not None:
            query |= {"epoch": after.epoch, "seq": str(after.seq)}
        here = socket.create_connection((self._address.hostname, self._address.port), TIMEOUT_SECONDS)
        self._stack.callback(here.close)
        here.setblocking(False)
        reader = Reader(here)
        await reader.subscribe(self._address.netloc, urlencode(query))
        return reader

    def agent(self, thread: str, run: str = "run_1") -> WebSocketBridgeAdapter:
        """Return an adapter for an agent, as the registry creates it."""
        adapter = WebSocketBridgeAdapter()
        adapter.set_websocket_bridge(self.application.bridge, RunId(run), "researcher", thread_id=ThreadId(thread))
        return adapter

    def fresh(self) -> str:
        """Return a thread id that no other test uses."""
        return f"thread_{next(self._threads)}"


@asynccontextmanager
async def serve_fixture(edge: Edge, keep: Retention = DEFAULT_RETENTION) -> AsyncIterator[ServedFixture]:
    """Serve an application on this edge for the length of a block. It trusts the clients' user ids."""
    app = create_app(BridgeConfig(agents={}, authorizer=OwnerAuthorizer, stores=memory_stores(keep)))
    async with serving(app, edge=edge.edge, keepalive_seconds=QUIET_SECONDS, send_buffer_bytes=SEND_BYTES) as url:
        with ExitStack() as stack:
            yield ServedFixture(url, app.state.bridgekit, stack)


async def emit_events(
    agent: WebSocketBridgeAdapter, events: int, between: Callable[[], Awaitable[None]] | None = None
) -> int:
    """Emit events from an agent and return how many a socket accepted. `between` is awaited after each event."""
    receipts: list[Receipt] = []
    for step in range(1, events + 1):
        receipts.append(await agent.emit_tool_executing("look_up", {"step": step}, tool_call_id=f"call_{step:08}"))
        if between is not None:
            await between()
    return sum(map(bool, receipts))
