"""What a test needs of a running application: a real server, real sockets, and what a user's socket read.

The fixtures of `bridgekit.pytest_plugin` are made of this. Runs on asyncio, as the client does.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.link_1_startup import Application
from bridgekit.errors import Disconnected, unwrap_single_error
from bridgekit.events import AgentEvent, EventType, Receipt, RoutedEvent
from bridgekit.ids import RunId, thread_id, user_id
from bridgekit.serve.in_process import serving
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.tickets import Tickets

__all__ = ["CollectingClient", "ObservedRun", "ServedApplication", "serve"]

TIMEOUT_SECONDS: Final = 5.0
"""How long a test waits for what may never come."""

THREAD: Final = "thread_1"
USER: Final = "user_1"

ENDS: Final = frozenset({EventType.AGENT_COMPLETED, EventType.AGENT_ERROR})


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """One run, and what its user's socket read meanwhile."""

    run_id: RunId
    result: object
    """What the agent returned."""
    timed: tuple[tuple[RoutedEvent, float], ...]
    """Each event, and the second since the epoch at which it was read: with these, `check_stream` knows latencies."""

    @property
    def events(self) -> list[RoutedEvent]:
        return [event for event, _ in self.timed]


class CollectingClient:
    """A subscribed client that keeps what it reads."""

    def __init__(self) -> None:
        self.timed: list[tuple[RoutedEvent, float]] = []
        """Each event, and the second since the epoch at which it was read."""
        self._news = anyio.Event()
        self._closed: Disconnected | None = None

    @property
    def events(self) -> list[RoutedEvent]:
        """Every event so far, in the order in which they were read."""
        return [event for event, _ in self.timed]

    async def wait_until_complete(self, run_id: str | None = None, *, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait until the run has ended, well or badly; without a run id, until any run has.

        TimeoutError when it takes longer, Disconnected when the server closed the socket before.
        """

        def complete() -> bool:
            return any(event.type in ENDS and run_id in (None, event.run_id) for event, _ in self.timed)

        if not await self._until(complete, seconds):
            which = "no run" if run_id is None else f"run {run_id!r} has not"
            read = ", ".join(event.type for event, _ in self.timed) or "nothing"
            raise TimeoutError(f"{which} ended within {seconds:g} s; read so far: {read}") from None

    async def wait_until_seq(self, seq: int, *, seconds: float = TIMEOUT_SECONDS) -> bool:
        """Wait until the thread's event of that number was read, or a later one; False when it takes longer."""
        return await self._until(lambda: any(event.seq >= seq for event, _ in self.timed), seconds)

    async def read(self, client: EventClient) -> None:
        """Keep what the client reads, until its socket is closed."""
        try:
            while True:
                event = await client.receive()
                self.timed.append((event, time.time()))
                self._tell()
        except Disconnected as closed:
            self._closed = closed
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def _until(self, happened: Callable[[], bool], seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while not happened():
                if self._closed is not None:
                    raise self._closed
                await self._news.wait()
        return happened()


class ServedApplication:
    """An application that runs behind a real server on a loopback port."""

    def __init__(self, url: str, app: Starlette) -> None:
        self.url = url
        """Such as `ws://127.0.0.1:49152`."""
        self.app = app

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    @asynccontextmanager
    async def subscribed_client(self, thread_id: str = THREAD, user_id: str = USER) -> AsyncIterator[CollectingClient]:
        """A client that is subscribed to a thread of the user; the thread is made if there is none."""
        await self._open(thread_id, user_id)
        ticket = self._ticket(thread_id, user_id)
        # What the block raises must reach the test as it is, and not in a group.
        with unwrap_single_error():
            async with (
                connect(self.url, user_id=user_id, thread_id=thread_id, ticket=ticket) as client,
                anyio.create_task_group() as tasks,
            ):
                listener = CollectingClient()
                tasks.start_soon(listener.read, client)
                yield listener
                tasks.cancel_scope.cancel()

    async def run(
        self, agent_name: str, request: str = "", *, thread_id: str = THREAD, user_id: str = USER
    ) -> ObservedRun:
        """Run an agent for a user whose socket listens, and answer what it returned and what the socket read.

        What the agent raises comes through. An event that no socket of the thread was given is not waited for, and
        one that was given and does not arrive only for `TIMEOUT_SECONDS`: judging is not this method's business.
        """
        async with self.subscribed_client(thread_id, user_id) as listener:
            with self._watching(thread_id) as numbers:
                run = await self.application.supervisor.run(
                    agent_name=agent_name, thread_id=thread_id, user_id=user_id, request=request
                )
            if numbers:
                await listener.wait_until_seq(max(numbers))
        return ObservedRun(run.context.run_id, run.result, tuple(listener.timed))

    def _ticket(self, thread: str, user: str) -> str | None:
        application = self.application
        return application.ticket(thread, user) if isinstance(application.authorizer, Tickets) else None

    async def _open(self, thread: str, user: str) -> None:
        await self.application.open_thread(thread_id(thread), user_id(user))

    @contextmanager
    def _watching(self, thread: str) -> Iterator[list[int]]:
        """The numbers that events of the thread are given while the block runs."""
        numbers: list[int] = []

        def note(event: AgentEvent, receipt: Receipt) -> None:
            if receipt.thread_id == thread and receipt.seq is not None:
                numbers.append(receipt.seq)

        observers = self.application.bridge.observers
        observers.append(note)
        try:
            yield numbers
        finally:
            observers.remove(note)


@asynccontextmanager
async def serve(app: Starlette) -> AsyncIterator[ServedApplication]:
    """Serve an application that has bridgekit's `routes()` and `lifespan(parts)`, for the length of a block."""
    async with serving(app) as url:
        yield ServedApplication(url, app)
