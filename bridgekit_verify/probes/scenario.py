"""A realistic scenario for probes, `bridgekit audit` and the audit's first verification step.

Two users have several threads each, with two sockets per thread. One thread has no socket. Three agents execute
concurrent and repeated runs. Some runs fail or are cancelled, and some events follow the end of their run. Clients join
late, reconnect or resume. The scenario only acts and records. `rules` judges the recording.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup
from starlette.applications import Starlette

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.counters import DeliveryCounters
from bridgekit.cursors_and_gaps import Cursor
from bridgekit.errors import FrameTooLarge, PayloadError, ThreadNotOwned
from bridgekit.event_types import END_EVENTS
from bridgekit.events import AgentEvent, EventType, Receipt
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.error_origin import link_of_error, raised_by_harness
from bridgekit_verify.measure.workload import OwnedThread, RunBarrier
from bridgekit_verify.probes.judgement import ViolationKind, label
from bridgekit_verify.probes.recorded_calls import Recording
from bridgekit_verify.probes.scenario_agents import AGENTS, SIZES, AgentFailed, RunPlan, ToolCalls
from bridgekit_verify.probes.scenario_clients import Client
from bridgekit_verify.probes.scenario_values import EMISSIONS, RESULTS, TEXT

__all__ = ["UNKNOWN_RUN", "Observation", "play"]

WAIT_SECONDS: Final = 8.0
"""Timeout for the start of all runs of a group, and for the end of the last sockets."""
CLOSE_SECONDS: Final = 1.0
"""How long the server may take to close the sockets of a thread. A client whose socket stays open does not resume."""
BURST_EVENTS: Final = 60
OVERFLOW_EVENTS: Final = 150
"""Number of events that is higher than the limit of an outbox in the scenario."""
LONG_REQUEST: Final = "\U0001f6f0" * 10_000
PROVOKED: Final = (AgentFailed, PayloadError, FrameTooLarge)
"""Errors that the scenario provokes. The rules judge how each link handles provoked errors."""
UNKNOWN_RUN: Final = RunId("run_unknown")


@dataclass
class Observation:
    """All recordings of one run of the scenario."""

    app: Starlette
    url: str
    recording: Recording
    threads: tuple[OwnedThread, ...]
    plans: dict[str, RunPlan]
    """The plan of each run, by the first words of its request (see `label`)."""
    tools: ToolCalls
    clients: list[Client] = field(default_factory=list)
    lookups: list[tuple[RunId, ThreadId, ThreadId | None]] = field(default_factory=list)
    """For each run in progress: its id, its thread, and the thread that the mapping service returned."""
    late: list[tuple[RunId, ThreadId]] = field(default_factory=list)
    """Runs that had already ended when one of their events was emitted."""
    errors: list[tuple[int, Exception]] = field(default_factory=list)
    """Errors that links raised, each with the number of the link."""
    accepted_foreign_user: bool | None = None
    """Whether the chain accepted a run in another user's thread, or None if the scenario did not try this."""
    unbound: Receipt | None = None
    """The receipt of an event that an adapter without a bridge emitted."""
    intruder: Client | None = None
    """The client that tried to subscribe to another user's thread."""
    forced: list[int] = field(default_factory=list)
    """The positions in the recording before and after the server closed a thread's sockets."""
    first_counters: DeliveryCounters | None = None
    lifetimes: list[tuple[ViolationKind, str]] = field(default_factory=list)
    """The violations that were found in a second mapping service, which has a simulated clock."""
    ended: int | None = None
    """The position in the recording when every socket was closed. No socket reads events published later."""
    attached: int = 0
    """How many connections the hub has after every socket was closed."""
    complete: bool = False
    """Whether the scenario reached its end."""

    @property
    def application(self) -> Application:
        application: Application = self.app.state.bridgekit
        return application

    def note(self, error: Exception) -> bool:
        """Record an error that a link raised. Return False for an error of the suite itself, which must propagate."""
        if isinstance(error, PROVOKED):
            return True
        link = None if raised_by_harness(error) else link_of_error(error)
        if link is not None:
            self.errors.append((link, error))
        return link is not None


async def play(seen: Observation) -> None:
    """Run the scenario on a served application, and record it in `seen`."""
    seen.recording.judged_from = seen.recording.position + 1
    for owned in seen.threads:
        await seen.application.open_thread(owned.thread_id, owned.user_id)
    async with anyio.create_task_group() as readers:
        scenario = _Scenario(seen, readers)
        for act in (
            scenario.connect,
            scenario.run_together,
            scenario.lose_a_connection,
            scenario.run_again,
            scenario.reconnect,
            scenario.run_in_turn,
            scenario.end_otherwise,
            scenario.run_outside_the_core,
            scenario.emit_after_the_end,
            scenario.emit_without_a_route,
            scenario.request_as_another_user,
            scenario.fill_an_outbox,
            scenario.close_sockets,
        ):
            await act()
        await seen.app.state.bridgekit_connections.drain()
        with anyio.move_on_after(WAIT_SECONDS):
            for client in seen.clients:
                await client.ended.wait()
        readers.cancel_scope.cancel()
    seen.attached, seen.ended = len(seen.application.bridge.hub), seen.recording.position
    seen.complete = True


class _Scenario:
    def __init__(self, seen: Observation, readers: TaskGroup) -> None:
        self.seen = seen
        self.application = seen.application
        self.bridge = seen.application.bridge
        self.threads = seen.threads
        self._readers = readers
        self._requests = 0
        self._first_runs: list[tuple[RunPlan, RunId, ThreadId]] = []

    async def connect(self) -> None:
        """Open two sockets for each thread except the last, and try to subscribe a user who does not own the thread."""
        for owned in self.threads[:-1]:
            for _ in range(2):
                await self._open(owned)
        first, second = self.threads[:2]
        self.seen.intruder = Client(-1, OwnedThread(first.thread_id, second.user_id), self.seen.recording, None)
        await self._readers.start(self.seen.intruder.read, self.seen.url)

    async def run_together(self) -> None:
        """Run an agent in every thread at once. Meanwhile, emit events with only a run id, and add a client."""
        registered = len(self.seen.recording.of("mapping", "register_mapping"))
        async with self._group(sizes=SIZES) as plans:
            runs = [
                (call.given["run_id"], call.given["thread_id"])
                for call in self.seen.recording.of("mapping", "register_mapping")[registered:]
            ]
            run_of = {thread_id: run_id for run_id, thread_id in runs}
            self._first_runs = [
                (plan, run_of[owned.thread_id], owned.thread_id)
                for plan, owned in zip(plans, self.threads, strict=False)
                if owned.thread_id in run_of
            ]
            await self._emit_by_run_id(runs)
            await self._open(self.threads[0])

    async def _emit_by_run_id(self, runs: list[tuple[RunId, ThreadId]]) -> None:
        """For all runs at once, look up the run's thread, and emit events that carry only the run id."""
        emissions = [each for each in EMISSIONS if each.type not in (EventType.AGENT_STARTED, *END_EVENTS)]

        async def emit(number: int, run_id: RunId, thread_id: ThreadId) -> None:
            found = await self._guarded(partial(self.bridge.mapping.get_thread_id, run_id))
            self.seen.lookups.append((run_id, thread_id, found))
            for emission in emissions[number :: len(runs)]:
                await self._guarded(partial(emission.notify, self.bridge, run_id, AGENTS[number % len(AGENTS)]))

        async with anyio.create_task_group() as callers:
            for number, (run_id, thread_id) in enumerate(runs):
                callers.start_soon(emit, number, run_id, thread_id)

    async def lose_a_connection(self) -> None:
        """Close one of a thread's two sockets from the client's side, after the client has read every event."""
        client = self.seen.clients[2]
        numbers = [
            call.result.seq or 0
            for call in self.seen.recording.of("hub", "publish")
            if call.given["thread_id"] == client.owned.thread_id and isinstance(call.result, Receipt)
        ]
        with anyio.move_on_after(CLOSE_SECONDS):
            await client.wait_for(max(numbers, default=0))
        await client.disconnect()

    async def run_again(self) -> None:
        async with self._group():
            pass

    async def reconnect(self) -> None:
        """Let the closed client resume, and let another client read the events of a thread that had no socket."""
        await self._resume(self.seen.clients[2])
        last = self.threads[-1]
        kept = [
            Cursor(call.result.epoch, (call.result.seq or 1) - 1)
            for call in self.seen.recording.of("hub", "publish")
            if call.given["thread_id"] == last.thread_id and isinstance(call.result, Receipt) and call.result.epoch
        ]
        if kept:
            await self._open(last, after=kept[0])

    async def run_in_turn(self) -> None:
        for number, owned in enumerate(self.threads):
            plan = RunPlan(burst=0 if number else BURST_EVENTS, results=(RESULTS[number % len(RESULTS)],))
            await self._run(owned, AGENTS[number % len(AGENTS)], plan, words=LONG_REQUEST if number == 1 else "")

    async def end_otherwise(self) -> None:
        """Run agents that end with an error, a refused value, an end event of their own, or a cancellation."""
        for number, ending in enumerate(("fails", "unencodable", "refused", "ends itself")):
            await self._run(self.threads[number], AGENTS[number % len(AGENTS)], RunPlan(ending=ending))
        plan = RunPlan(ending="hangs")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, self.threads[3], AGENTS[1], plan)
            with anyio.move_on_after(WAIT_SECONDS):
                await plan.started.wait()
            tasks.cancel_scope.cancel()

    async def run_outside_the_core(self) -> None:
        """Let the registry bind the agents of four runs, as for a webhook, and emit events of every type.

        Also emit each event through the bridge, with only the run id. Then bind the agents to other runs.
        """
        opened: list[RunContext] = []
        agents: list[Any] = []
        for number, owned in enumerate((*self.threads[:3], self.threads[0])):
            context = await self._guarded(partial(self._open_run, owned, number))
            if not isinstance(context, RunContext):
                continue
            opened.append(context)
            agent = await self._guarded(partial(self._created, context))
            if isinstance(agent, BaseAgent):
                agents.append(agent)
        for number, emission in enumerate(EMISSIONS if opened else ()):
            for agent in agents:
                await self._guarded(partial(emission.by, agent))
            run = opened[number % len(opened)]
            await self._guarded(partial(emission.notify, self.bridge, run.run_id, run.agent_name))
        await self._bind_again(agents, opened[1:])
        for context in opened:
            await self._guarded(partial(self.application.supervisor.close_run, context))

    async def _open_run(self, owned: OwnedThread, number: int) -> RunContext:
        return await self.application.supervisor.open_run(
            agent_name=AGENTS[number % 2],
            thread_id=owned.thread_id,
            user_id=owned.user_id,
            request=self._new_request(RunPlan()),
        )

    async def _created(self, context: RunContext) -> Any:
        return self.application.supervisor.registry.create_bound(context)

    async def _bind_again(self, agents: list[Any], runs: list[RunContext]) -> None:
        async def bind(agent: BaseAgent, run: RunContext) -> None:
            agent.set_websocket_bridge(self.bridge, run.run_id, thread_id=run.thread_id)
            await agent.emit_progress({"bound again": TEXT})

        for agent, run in zip(agents, runs, strict=False):
            await self._guarded(partial(bind, agent, run))

    async def emit_after_the_end(self) -> None:
        """Emit events of runs that have ended: through the agent, and through the bridge with only the run id."""
        for plan, run_id, thread_id in self._first_runs[:4]:
            self.seen.late.append((run_id, thread_id))
            if plan.agent is not None:
                await self._guarded(partial(plan.agent.emit_progress, {"late": TEXT}))
                await self._guarded(partial(plan.agent.emit_error, TEXT))
            await self._guarded(partial(self.bridge.notify_progress_update, run_id, AGENTS[0], {"late": TEXT}))

    async def emit_without_a_route(self) -> None:
        """Emit an event of an unknown run, and an event of an adapter that has no bridge."""
        await self._guarded(lambda: self.bridge.notify_progress_update(UNKNOWN_RUN, AGENTS[0], {}))
        adapter = self.application.config.adapter()
        self.seen.unbound = await self._guarded(lambda: adapter.emit_progress({}))

    async def request_as_another_user(self) -> None:
        first, second = self.threads[:2]
        request = self._new_request(RunPlan())
        try:
            await self.application.supervisor.open_run(
                agent_name=AGENTS[0], thread_id=first.thread_id, user_id=second.user_id, request=request
            )
        except ThreadNotOwned:
            self.seen.accepted_foreign_user = False
        except Exception as error:
            if not self.seen.note(error):
                raise
        else:
            self.seen.accepted_foreign_user = True

    async def fill_an_outbox(self) -> None:
        """Emit more events at once than an outbox holds, without awaiting the answers."""
        run = await self._guarded(partial(self._open_run, self.threads[1], 1))
        if not isinstance(run, RunContext):
            return
        answers = []
        for kind in (EventType.TEXT_DELTA, EventType.PROGRESS_UPDATE, EventType.TEXT_DELTA):
            for number in range(OVERFLOW_EVENTS if kind is EventType.PROGRESS_UPDATE else OVERFLOW_EVENTS // 6):
                payload = {"message_id": "burst", "delta": f"{number} \U0001f6f0 "}
                answers.append(self._emitted(_event(kind, run.run_id, run.thread_id, payload)))
        for answer in answers:
            await self._guarded(partial(_awaited, answer))
        await self._guarded(partial(self.application.supervisor.close_run, run))

    def _emitted(self, event: AgentEvent) -> object:
        """Return the result of `notify` without awaiting it, or None if a link raised an error."""
        try:
            return self.bridge.notify(event)
        except Exception as error:
            if not self.seen.note(error):
                raise
            return None

    async def close_sockets(self) -> None:
        """Close a thread's sockets on the server, emit an event while they close, and let their clients resume."""
        thread = self.threads[2]
        clients = [client for client in self.seen.clients if client.owned is thread and not client.ended.is_set()]
        self.seen.forced.append(self.seen.recording.position)
        self.bridge.hub.force_reconnect(thread.thread_id)
        run_id = next((run_id for _, run_id, of in self._first_runs if of == thread.thread_id), UNKNOWN_RUN)
        event = _event(EventType.PROGRESS_UPDATE, run_id, thread.thread_id, {"while closing": TEXT})
        await self._guarded(lambda: _awaited(self.bridge.notify(event)))
        self.seen.forced.append(self.seen.recording.position)
        with anyio.move_on_after(CLOSE_SECONDS):
            for client in clients:
                await client.ended.wait()
                await self._resume(client)

    @asynccontextmanager
    async def _group(self, *, sizes: tuple[int, ...] = ()) -> AsyncIterator[list[RunPlan]]:
        """Run two agents in the first thread and one in every other thread, all at once, while the block runs."""
        threads = (*self.threads, self.threads[0])
        barrier = RunBarrier(len(threads) + 1)
        plans = [RunPlan(barrier, size) for size in (*sizes, *(0 for _ in threads))][: len(threads)]
        async with anyio.create_task_group() as runs:
            for number, (owned, plan) in enumerate(zip(threads, plans, strict=True)):
                runs.start_soon(self._run, owned, AGENTS[number % len(self.threads) % len(AGENTS)], plan, barrier)
            with anyio.move_on_after(WAIT_SECONDS):
                await barrier.step()
            yield plans
            barrier.leave()

    async def _run(
        self, owned: OwnedThread, agent: str, plan: RunPlan, barrier: RunBarrier | None = None, *, words: str = ""
    ) -> None:
        request = self._new_request(plan, words)
        try:
            await self.application.supervisor.run(
                agent_name=agent, thread_id=owned.thread_id, user_id=owned.user_id, request=request
            )
        except Exception as error:
            if not self.seen.note(error):
                raise
        finally:
            plan.started.set()
            if barrier is not None:
                barrier.leave()

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


def _event(kind: EventType, run_id: RunId, thread_id: ThreadId, payload: dict[str, Any]) -> AgentEvent:
    return AgentEvent(type=kind, run_id=run_id, agent_name=AGENTS[0], payload=payload, thread_id=thread_id)


async def _awaited(answer: object) -> object:
    return await answer if isinstance(answer, Awaitable) else answer
