"""A fake browser: drives the ASGI application as a server does, and stops reading on request."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import anyio
from starlette.applications import Starlette

from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.counters import DeliveryCounters
from bridgekit.events import EventType, Receipt
from bridgekit.ids import ThreadId, UserId
from bridgekit.transport.asgi import routes
from bridgekit.transport.authorization import OwnerAuthorizer
from bridgekit.transport.connections import ConnectionRegistry
from bridgekit.transport.hub import Hub
from bridgekit.transport.log import DEFAULT_RETENTION, MemoryEventLog, Retention
from bridgekit.transport.tickets import Tickets
from bridgekit.transport.used_tickets import MemoryUsedTickets
from tests.factories import ALICE, BOB, OTHER, THREAD, emitted

TIMEOUT_SECONDS = 60.0
HOST = b"bridgekit.test"


class Browser:
    """One socket of the application. `messages` has what the application sent to it."""

    def __init__(
        self,
        app: Starlette,
        *,
        broken_at: str = "",
        broken_by: BaseException | None = None,
        slow_at: str = "websocket.send",
        protocols: Sequence[str] = (),
        origin: str | None = None,
        scheme: str = "ws",
        sends: Sequence[str | bytes] = (),
        **query: str,
    ) -> None:
        self.messages: list[dict[str, Any]] = []
        self._app = app
        self._query = query
        self._broken_at = broken_at
        """The message at which sending fails, as on a broken connection."""
        self._broken_by = broken_by or OSError("the connection is broken")
        self._slow_at = slow_at
        """The message type that blocks while the browser does not read; "*" for every type."""
        self._scheme = scheme
        self._headers = [(b"host", HOST), (b"sec-websocket-protocol", ", ".join(protocols).encode())]
        if origin is not None:
            self._headers.append((b"origin", origin.encode()))
        self._sends = deque(sends)
        self._may_read = math.inf
        self._news = anyio.Event()
        self._leaves = anyio.Event()
        self._connected = False

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The received frames after the first one, which confirms the subscription."""
        return [json.loads(message["text"]) for message in self.messages if "text" in message][1:]

    @property
    def confirmation(self) -> dict[str, Any]:
        """The first frame, which confirms the subscription and its position."""
        first: dict[str, Any] = json.loads(next(message["text"] for message in self.messages if "text" in message))
        return first

    @property
    def seqs(self) -> list[int]:
        """The `seq` of each received event."""
        return [frame["seq"] for frame in self.frames if "seq" in frame]

    @property
    def gaps(self) -> list[tuple[int, int | None, str]]:
        """The received gaps."""
        return [(frame["from"], frame["to"], frame["reason"]) for frame in self.frames if frame["type"] == "gap"]

    @property
    def close(self) -> tuple[int, str] | None:
        last = self.messages[-1] if self.messages else {}
        return (last["code"], last["reason"]) if last.get("type") == "websocket.close" else None

    def stop_reading(self) -> None:
        self._may_read = 0

    def resume_reading(self, count: float = math.inf) -> None:
        """Continue to read: everything, or only this many messages."""
        self._may_read = count
        self._news.set()
        self._news = anyio.Event()

    def leave(self) -> None:
        self._leaves.set()

    async def run(self) -> None:
        """Keep the socket open until either side closes it."""
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "scheme": self._scheme,
            "path": "/ws",
            "raw_path": b"/ws",
            "query_string": urlencode(self._query).encode(),
            "headers": self._headers,
            "subprotocols": [],
        }
        with anyio.fail_after(TIMEOUT_SECONDS):
            await self._app(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._sends:
            message = self._sends.popleft()
            return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}
        await self._leaves.wait()
        return {"type": "websocket.disconnect", "code": 1001}

    async def _send(self, message: Any) -> None:
        if self._slow_at in ("*", message["type"]):
            while self._may_read <= 0:
                await self._news.wait()
            self._may_read -= 1
        if message["type"] == self._broken_at:
            raise self._broken_by
        self.messages.append(message)


class Site:
    """An ASGI edge with two threads, one of Alice's and one of Bob's, for browsers to connect to."""

    def __init__(
        self, retention: Retention = DEFAULT_RETENTION, *, log: MemoryEventLog | None = None, **choices: Any
    ) -> None:
        self.log = MemoryEventLog(retention) if log is None else log
        self.hub = Hub(self.log)
        self.counters = DeliveryCounters()
        self.threads = MemoryThreadStore()
        self.used_tickets = MemoryUsedTickets()
        self.tickets = Tickets(self.threads, self.used_tickets, **choices)
        self.edge = ConnectionRegistry(self.hub, OwnerAuthorizer(self.threads, self.used_tickets), self.counters)
        self.app = Starlette(routes=routes())
        self.app.state.bridgekit_connections = self.edge

    async def open_threads(self) -> None:
        await self.threads.claim(THREAD, ALICE)
        await self.threads.claim(OTHER, BOB)

    async def publish(
        self,
        count: int = 1,
        thread_id: ThreadId = THREAD,
        *,
        type: EventType = EventType.AGENT_THINKING,  # noqa: A002  # the name in the wire format
    ) -> list[Receipt]:
        return [await self.hub.publish(emitted(type), thread_id) for _ in range(count)]

    def resuming(self, seen: Receipt, thread: ThreadId = THREAD, *, seq: int | None = None, **choices: Any) -> Browser:
        """Return a browser of the thread's owner that resumes after this event, or after another `seq` of its epoch."""
        owner = ALICE if thread == THREAD else BOB
        cursor = {"epoch": str(seen.epoch), "seq": str(seen.seq if seq is None else seq)}
        return self.browser(owner, thread, **cursor, **choices)

    def browser(self, user: UserId = ALICE, thread: ThreadId = THREAD, **choices: Any) -> Browser:
        """Return a browser that names its user. `choices` are options of Browser and query parameters."""
        return Browser(self.app, user_id=user, thread_id=thread, **choices)

    @asynccontextmanager
    async def open(self, *browsers: Browser) -> AsyncIterator[None]:
        """Open sockets for the length of a block. The block starts when all tasks are blocked; after it, the sockets
        close."""
        with anyio.fail_after(TIMEOUT_SECONDS):
            async with anyio.create_task_group() as tasks:
                for browser in browsers:
                    tasks.start_soon(browser.run)
                await anyio.wait_all_tasks_blocked()
                yield
                # Let the last published events be delivered before a browser leaves.
                await anyio.wait_all_tasks_blocked()
                for browser in browsers:
                    browser.leave()

    @asynccontextmanager
    async def visited(self, *visitors: tuple[UserId, ThreadId]) -> AsyncIterator[list[Browser]]:
        """Subscribed browsers for the length of a block. It ends when all of them are closed."""
        browsers = [self.browser(user, thread) for user, thread in visitors]
        async with self.open(*browsers):
            yield browsers
