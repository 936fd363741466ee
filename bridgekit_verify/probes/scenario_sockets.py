"""What the sockets of the scenario do: they open, are refused, close, resume, overflow and drain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from bridgekit.chain.context import RunContext
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.workload import OwnedThread, RunBarrier
from bridgekit_verify.probes.judgement import label
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.scenario_agents import AGENTS, OTHER_USERS, RunPlan
from bridgekit_verify.probes.scenario_clients import Client
from bridgekit_verify.probes.scenario_values import TEXT

__all__ = ["UNKNOWN_RUN", "SocketActs", "event_of"]

CLOSE_SECONDS: Final = 1.0
"""How long the server may take to close the sockets of a thread. A client whose socket stays open does not resume."""
OVERFLOW_EVENTS: Final = 150
"""Number of events that is higher than the limit of an outbox in the scenario."""
EVENTS_WHILE_JOINING: Final = 60
LAST_EVENTS: Final = 80
"""How many events wait in an outbox when the server drains it: more than a batch, and fewer than the limit."""
UNKNOWN_RUN: Final = RunId("run_unknown")
UNKNOWN_THREAD: Final = ThreadId("thread_that_nobody_opened")


class SocketActs:
    """The acts of the scenario that concern sockets, and the methods with which all acts call the application."""

    def __init__(self, seen: Observation, readers: TaskGroup) -> None:
        self.seen = seen
        self.application = seen.application
        self.bridge = seen.application.bridge
        self.threads = seen.threads
        self._readers = readers
        self._requests = 0
        self._first_runs: list[tuple[RunPlan, RunId, ThreadId]] = []

    async def connect(self) -> None:
        """Open two sockets for each thread except the last, and try to subscribe a user to foreign threads."""
        for owned in self.threads[:-1]:
            for _ in range(2):
                await self._open(owned)
        for user_id in OTHER_USERS:
            await self._intrude("a thread of another user", OwnedThread(self.threads[0].thread_id, user_id))
        await self._intrude("a thread that does not exist", OwnedThread(UNKNOWN_THREAD, OTHER_USERS[0]))

    async def _intrude(self, what: str, owned: OwnedThread, after: Cursor | None = None) -> None:
        intruder = Client(-1, owned, self.seen.recording, after)
        self.seen.intruders.append((what, intruder))
        await self._readers.start(intruder.read, self.seen.url)

    async def lose_a_connection(self) -> None:
        """Close one of a thread's two sockets from the client's side, after the client has read every event."""
        await self._leave(self.seen.clients[2])

    async def _leave(self, client: Client) -> None:
        with anyio.move_on_after(CLOSE_SECONDS):
            await client.wait_for(self._last_seq(client.owned.thread_id))
        await client.disconnect()

    def _last_seq(self, thread_id: ThreadId) -> int:
        """Return the `seq` of the thread's latest event, or 0."""
        numbers = [
            call.result.seq or 0
            for call in self.seen.recording.of("hub", "publish")
            if call.given["thread_id"] == thread_id and isinstance(call.result, Receipt)
        ]
        return max(numbers, default=0)

    async def reconnect(self) -> None:
        """Let the closed client resume, and let another client read the events of a thread that had no socket.

        Also try to resume at the cursor of another user's client.
        """
        closed = self.seen.clients[2]
        await self._resume(closed)
        other = next(each.user_id for each in self.threads if each.user_id != closed.owned.user_id)
        await self._intrude(
            "a thread of another user by resuming", OwnedThread(closed.owned.thread_id, other), closed.position
        )
        last = self.threads[-1]
        kept = [
            Cursor(call.result.epoch, (call.result.seq or 1) - 1)
            for call in self.seen.recording.of("hub", "publish")
            if call.given["thread_id"] == last.thread_id and isinstance(call.result, Receipt) and call.result.epoch
        ]
        if kept:
            await self._open(last, after=kept[0])

    async def join_during_events(self) -> None:
        """Let a new client and a client that resumes subscribe while an event is emitted in each event-loop
        iteration."""
        thread, leaving = self.threads[3], self.seen.clients[6]
        await self._leave(leaving)

        async def emit() -> None:
            for number in range(EVENTS_WHILE_JOINING):
                await self._notify_in(thread, {"while joining": number})
                await checkpoint()

        async with anyio.create_task_group() as emitters:
            emitters.start_soon(emit)
            await self._open(thread)
        async with anyio.create_task_group() as emitters:
            emitters.start_soon(emit)
            await self._resume(leaving)

    async def fill_an_outbox(self) -> None:
        """Emit more events at once than an outbox holds, without awaiting the answers."""
        run = await self._guarded(partial(self._open_run, self.threads[1], 1))
        if not isinstance(run, RunContext):
            return
        answers = []
        for kind in (EventType.TEXT_DELTA, EventType.PROGRESS_UPDATE, EventType.TEXT_DELTA):
            for number in range(OVERFLOW_EVENTS if kind is EventType.PROGRESS_UPDATE else OVERFLOW_EVENTS // 6):
                payload = {"message_id": "burst", "delta": f"{number} \U0001f6f0 "}
                answers.append(self._emitted(event_of(kind, run.run_id, run.thread_id, payload)))
        for answer in answers:
            await self._guarded(partial(_awaited, answer))
        await self._guarded(partial(self.application.supervisor.close_run, run))

    async def close_one_socket(self) -> None:
        """Close the first of a thread's two sockets on the server, emit an event, and let the client resume."""
        thread = self.threads[4]
        clients = [client for client in self.seen.clients if client.owned is thread and not client.ended.is_set()]
        first = self.bridge.hub.connections(thread.thread_id)[:1]
        position = self.seen.recording.position
        for connection in first:
            connection.force_reconnect()
        await self._notify_in(thread, {"while one socket closes": TEXT})
        with anyio.move_on_after(CLOSE_SECONDS if first and clients else 0):
            await _first_ended(clients)
        for client in clients:
            if client.ended.is_set():
                client.closed_by_server = position
                await self._resume(client)

    async def close_sockets(self) -> None:
        """Close a thread's sockets on the server, emit an event while they close, and let their clients resume."""
        thread = self.threads[2]
        clients = [client for client in self.seen.clients if client.owned is thread and not client.ended.is_set()]
        for client in clients:
            client.closed_by_server = self.seen.recording.position
        self.bridge.hub.force_reconnect(thread.thread_id)
        await self._notify_in(thread, {"while closing": TEXT})
        with anyio.move_on_after(CLOSE_SECONDS):
            for client in clients:
                await client.ended.wait()
                await self._resume(client)

    async def end_access(self) -> None:
        """End a user's access to a thread with two sockets, and emit an event that neither of them may read."""
        thread = self.threads[5]
        clients = [client for client in self.seen.clients if client.owned is thread and not client.ended.is_set()]
        with anyio.move_on_after(CLOSE_SECONDS):
            for client in clients:
                await client.wait_for(self._last_seq(thread.thread_id))
        await self._guarded(partial(self._end_access_of, thread))
        for client in clients:
            client.access_ended = client.closed_by_server = self.seen.recording.position
        await self._notify_in(thread, {"after the end of access": TEXT})
        with anyio.move_on_after(CLOSE_SECONDS):
            for client in clients:
                await client.ended.wait()
        self.seen.kept_access = sum(not client.ended.is_set() for client in clients)

    async def _end_access_of(self, thread: OwnedThread) -> None:
        self.seen.edge.end_access(user_id=thread.user_id, thread_id=thread.thread_id)

    async def drain(self) -> None:
        """Emit events without awaiting the answers, and drain the sockets before they can write the events."""
        answers = [
            self._emitted(self._late_event(owned, {"before the drain": number}))
            for place, owned in enumerate(self.threads)
            for number in range(2 if place else LAST_EVENTS)
        ]
        for answer in answers:
            if not isinstance(answer, Receipt):  # a store must answer before the events reach the sockets
                await self._guarded(partial(_awaited, answer))
        await self.seen.app.state.bridgekit_connections.drain()

    async def _notify_in(self, owned: OwnedThread, payload: dict[str, Any]) -> None:
        await self._guarded(lambda: _awaited(self.bridge.notify(self._late_event(owned, payload))))

    def _late_event(self, owned: OwnedThread, payload: dict[str, Any]) -> AgentEvent:
        """Return an event of a run of the thread that has ended."""
        run_id = next((run_id for _, run_id, of in self._first_runs if of == owned.thread_id), UNKNOWN_RUN)
        return event_of(EventType.PROGRESS_UPDATE, run_id, owned.thread_id, payload)

    def _emitted(self, event: AgentEvent) -> object:
        """Return the result of `notify` without awaiting it, or None if a link raised an error."""
        try:
            return self.bridge.notify(event)
        except Exception as error:
            if not self.seen.note(error):
                raise
            return None

    async def _run(
        self, owned: OwnedThread, agent: str, plan: RunPlan, barrier: RunBarrier | None = None, *, request: str = ""
    ) -> None:
        try:
            await self.application.supervisor.run(
                agent_name=agent,
                thread_id=owned.thread_id,
                user_id=owned.user_id,
                request=request or self._new_request(plan),
            )
        except Exception as error:
            if not self.seen.note(error):
                raise
        finally:
            plan.started.set()
            if barrier is not None:
                barrier.leave()

    async def _open_run(self, owned: OwnedThread, number: int) -> RunContext:
        return await self.application.supervisor.open_run(
            agent_name=AGENTS[number % 2],
            thread_id=owned.thread_id,
            user_id=owned.user_id,
            request=self._new_request(RunPlan()),
        )

    def _new_request(self, plan: RunPlan, words: str = "") -> str:
        self._requests += 1
        request = f"question {self._requests} {TEXT}{words}"
        self.seen.plans[label(request)] = plan
        return request

    async def _guarded(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of the call. If a link raised an error, record it and return None."""
        try:
            return await call()
        except Exception as error:
            if not self.seen.note(error):
                raise
            return None

    async def _open(self, owned: OwnedThread, after: Cursor | None = None) -> None:
        client = Client(len(self.seen.clients), owned, self.seen.recording, after)
        self.seen.clients.append(client)
        await self._readers.start(client.read, self.seen.url)

    async def _resume(self, client: Client) -> None:
        if (cursor := client.position) is not None:
            await self._open(client.owned, after=cursor)


async def _first_ended(clients: list[Client]) -> None:
    async def wait(client: Client) -> None:
        await client.ended.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for client in clients:
            tasks.start_soon(wait, client)


def event_of(kind: EventType, run_id: RunId, thread_id: ThreadId | None, payload: dict[str, Any]) -> AgentEvent:
    """Return a new event of the first agent."""
    return AgentEvent(type=kind, run_id=run_id, agent_name=AGENTS[0], payload=payload, thread_id=thread_id)


async def _awaited(answer: object) -> object:
    return await answer if isinstance(answer, Awaitable) else answer
