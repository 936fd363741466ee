"""A server that can be restarted at the same address, and a client that reconnects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.models_tools_and_owners import MemoryThreadStore
from bridgekit.errors import unwrap_single_error
from bridgekit.events import EventType, Receipt
from bridgekit.stores import Stores, in_memory
from bridgekit.transport.log import Retention
from bridgekit.transport.outbox import OutboxLimits
from bridgekit.transport.resuming_client import Backoff, ResumingClient, subscribe
from tests.factories import ALICE, THREAD, emitted
from tests.server_processes import reserve_port
from tests.transport.edges import serving
from tests.transport.raw_client import BUFFER_BYTES
from tests.transport.watched_hub import WatchedHub

TIMEOUT_SECONDS = 60.0
TOOL = EventType.TOOL_EXECUTING
FAST_BACKOFF = Backoff(first_seconds=0.01, longest_seconds=0.05)


class RestartableServer:
    """A server that can be restarted at the same address. Its stores survive the restart."""

    def __init__(self, tasks: TaskGroup, port: int, retention: Retention, outbox_events: int) -> None:
        self._tasks = tasks
        self._stores = in_memory(retention)
        outbox = OutboxLimits(events=outbox_events)
        self.threads = MemoryThreadStore()
        self.app = create_app(
            BridgeConfig(agents={}, stores=self._opened, outbox=outbox, db_session_factory=self.threads, hub=WatchedHub)
        )
        self.url = f"ws://127.0.0.1:{port}"
        self.tickets = list[str]()
        """The issued tickets."""

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Stores]:
        yield self._stores

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    async def start(self) -> None:
        await self._tasks.start(self._run)

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        port = int(self.url.rpartition(":")[2])
        async with serving(self.app, port=port, send_buffer_bytes=BUFFER_BYTES) as self.url:
            await self.application.open_thread(THREAD, ALICE)
            task_status.started()
            await self._stop.wait()
        self._stopped.set()

    async def stop(self, *, drain: bool = True) -> None:
        """Stop the server, with or without draining its sockets."""
        if drain:
            self.app.state.bridgekit_connections.stop_accepting()
            await self.app.state.bridgekit_connections.drain()
        self._stop.set()
        await self._stopped.wait()

    async def ticket(self) -> str:
        self.tickets.append(self.application.ticket(THREAD, ALICE))
        return self.tickets[-1]

    async def publish(self, count: int = 1, size: int = 0) -> list[Receipt]:
        payload = {"parameters": "x" * size}
        return [await self.application.bridge.notify(emitted(TOOL, payload=payload)) for _ in range(count)]

    def subscribe(self, **choices: Any) -> AbstractAsyncContextManager[ResumingClient]:
        return subscribe(self.url, **{"thread_id": THREAD, "ticket": self.ticket, "backoff": FAST_BACKOFF, **choices})


@asynccontextmanager
async def restartable_server(
    retention: Retention | None = None, *, outbox_events: int = 1_024
) -> AsyncIterator[RestartableServer]:
    with unwrap_single_error(), anyio.fail_after(TIMEOUT_SECONDS), reserve_port() as port:
        async with anyio.create_task_group() as tasks:
            made = RestartableServer(tasks, port, retention or Retention(), outbox_events)
            await made.start()
            yield made
            await made.stop()
