"""Test support: serve an application on a real loopback server, run agents, and collect what a client receives.

The fixtures of `bridgekit.pytest_plugin` use this module. The module needs asyncio, because it uses bridgekit's
WebSocket client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import anyio
from starlette.applications import Starlette

from bridgekit.chain.context import enclosing_runs
from bridgekit.chain.link_1_startup import Application
from bridgekit.errors import Disconnected, unwrap_single_error
from bridgekit.events import END_EVENTS, AgentEvent, Receipt, RoutedEvent
from bridgekit.ids import RunId, thread_id, user_id
from bridgekit.serve.in_process import serving
from bridgekit.serve.native_handoff import bridge_applications
from bridgekit.transport.client import EventClient, connect
from bridgekit.transport.tickets import Tickets

__all__ = ["CollectingClient", "ObservedRun", "ServedApplication", "end_of_tasks", "serve"]

TIMEOUT_SECONDS: Final = 5.0
"""The default timeout for an event that a test waits for."""
LEFT_TASKS_SECONDS: Final = 0.5
"""How long the end of a test waits for tasks that its agents started and did not await."""

THREAD: Final = "thread_1"
USER: Final = "user_1"


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """A finished run, and the events that the user's client received while it ran."""

    run_id: RunId
    result: object
    """The agent's return value."""
    timed: tuple[tuple[RoutedEvent, float], ...]
    """Each event with the time at which it was read, in seconds since the Unix epoch. `check_stream` computes
    latencies from these times."""

    @property
    def events(self) -> list[RoutedEvent]:
        return [event for event, _ in self.timed]


class CollectingClient:
    """A subscribed client that stores every event that it receives."""

    def __init__(self) -> None:
        self.timed: list[tuple[RoutedEvent, float]] = []
        """Each event with the time at which it was read, in seconds since the Unix epoch."""
        self._changed = anyio.Event()
        self._closed: Disconnected | None = None

    @property
    def events(self) -> list[RoutedEvent]:
        """All events received so far, in the order in which they were read."""
        return [event for event, _ in self.timed]

    async def wait_until_complete(self, run_id: str | None = None, *, seconds: float = TIMEOUT_SECONDS) -> None:
        """Wait for the event that ends the run, `agent_completed` or `agent_error`. Without a run id, the end of any
        run counts.

        Raises TimeoutError if no such event arrives within `seconds`. Raises Disconnected if the server closed the
        socket first.
        """

        def complete() -> bool:
            return any(event.type in END_EVENTS and run_id in (None, event.run_id) for event, _ in self.timed)

        if not await self._wait_until(complete, seconds):
            which = "no run" if run_id is None else f"run {run_id!r} has not"
            read = ", ".join(event.type for event, _ in self.timed) or "nothing"
            raise TimeoutError(f"{which} ended within {seconds:g} s; read so far: {read}") from None

    async def wait_until_seq(self, seq: int, *, seconds: float = TIMEOUT_SECONDS) -> bool:
        """Wait for the event with this `seq` or a later one. Return False if no such event arrives within `seconds`.

        Raises Disconnected if the server closed the socket first.
        """
        return await self._wait_until(lambda: any(event.seq >= seq for event, _ in self.timed), seconds)

    async def read(self, client: EventClient) -> None:
        """Store the events that the client receives, until its socket is closed."""
        try:
            while True:
                event = await client.receive()
                self.timed.append((event, time.time()))
                self._wake_waiters()
        except Disconnected as closed:
            self._closed = closed
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        with anyio.move_on_after(seconds):
            while not condition():
                if self._closed is not None:
                    raise self._closed
                await self._changed.wait()
        return condition()


class ServedApplication:
    """An application that runs behind a real server on a loopback port."""

    def __init__(self, url: str, app: Starlette) -> None:
        self.url = url
        """The WebSocket base URL, for example `ws://127.0.0.1:49152`."""
        self.app = app
        path, self._owner = next(bridge_applications(app), ("/ws", app))
        self._bridge_url = url + path.removesuffix("/ws")
        self.problems: list[str] = []
        """What `check_emission` found. A test that expects problems clears the list."""
        self._ended: set[RunId] = set()

    @property
    def application(self) -> Application:
        application: Application = self._owner.state.bridgekit
        return application

    @asynccontextmanager
    async def subscribed_client(self, thread_id: str = THREAD, user_id: str = USER) -> AsyncIterator[CollectingClient]:
        """Connect a client that is subscribed to a thread of the user. A missing thread is created."""
        await self._open(thread_id, user_id)
        ticket = self._ticket(thread_id, user_id)
        # An error in the test's block must reach the test as raised, and not in an exception group.
        with unwrap_single_error():
            async with (
                connect(self._bridge_url, user_id=user_id, thread_id=thread_id, ticket=ticket) as client,
                anyio.create_task_group() as tasks,
            ):
                collecting = CollectingClient()
                tasks.start_soon(collecting.read, client)
                yield collecting
                tasks.cancel_scope.cancel()

    async def run(
        self, agent_name: str, request: str = "", *, thread_id: str = THREAD, user_id: str = USER
    ) -> ObservedRun:
        """Run an agent while the user's client is subscribed. Return the agent's result and the events received.

        Raises the agent's error. The method waits at most `TIMEOUT_SECONDS` for events that were published to the
        thread. To check the events, call `assert_delivered`.
        """
        async with self.subscribed_client(thread_id, user_id) as client:
            with self._assigned_seqs(thread_id) as seqs:
                run = await self.application.supervisor.run(
                    agent_name=agent_name, thread_id=thread_id, user_id=user_id, request=request
                )
            if seqs:
                await client.wait_until_seq(max(seqs))
        return ObservedRun(run.context.run_id, run.result, tuple(client.timed))

    def check_emission(self, event: AgentEvent, receipt: Receipt) -> None:
        """Record each event that was lost, that a run other than its own emitted, or that followed its run's end.

        The bridge calls this observer with each event. A client cannot see these problems, because they leave no gap in
        `seq`.
        """
        what, runs = f"{event.type} of run {event.run_id!r}", [run.run_id for run in enclosing_runs.get()]
        if receipt.lost:
            self.problems.append(f"{what} was lost: {receipt.outcome} at link {receipt.link}, {receipt.reason}")
        elif runs and event.run_id not in runs:
            self.problems.append(f"{what} was emitted by run {runs[-1]!r}: do the two share an agent?")
        elif event.run_id in self._ended:
            self.problems.append(f"{what} was emitted after the run's end")
        elif event.type in END_EVENTS:
            self._ended.add(event.run_id)

    def _ticket(self, thread: str, user: str) -> str | None:
        application = self.application
        return application.ticket(thread, user) if isinstance(application.authorizer, Tickets) else None

    async def _open(self, thread: str, user: str) -> None:
        await self.application.open_thread(thread_id(thread), user_id(user))

    @contextmanager
    def _assigned_seqs(self, thread: str) -> Iterator[list[int]]:
        """Collect each `seq` that the thread's log assigns while the block runs."""
        seqs: list[int] = []

        def record(event: AgentEvent, receipt: Receipt) -> None:
            if receipt.thread_id == thread and receipt.seq is not None:
                seqs.append(receipt.seq)

        observers = self.application.bridge.observers
        observers.append(record)
        try:
            yield seqs
        finally:
            observers.remove(record)


@asynccontextmanager
async def serve(app: Starlette) -> AsyncIterator[ServedApplication]:
    """Serve an application that uses bridgekit's `routes()` and `lifespan(config)`, until the block ends."""
    async with serving(app) as url:
        yield ServedApplication(url, app)


async def end_of_tasks(before: set[asyncio.Task[Any]]) -> None:
    """Wait at most LEFT_TASKS_SECONDS for the tasks that are not in `before`, except the current task."""
    if left := asyncio.all_tasks() - before - {asyncio.current_task()}:
        await asyncio.wait(left, timeout=LEFT_TASKS_SECONDS)
