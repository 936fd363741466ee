"""A realistic scenario for probes, `bridgekit audit` and the audit's first verification step.

Two users have several threads each, with two sockets per thread. One thread has no socket. Three agents execute
concurrent and repeated runs. Some runs fail or are cancelled, and some events follow the end of their run. Clients join
late, reconnect or resume. The scenario only acts and records. `rules` judges the recording.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.errors import ThreadNotOwned
from bridgekit.event_types import END_EVENTS
from bridgekit.events import EventType
from bridgekit.ids import RunId, ThreadId
from bridgekit_verify.measure.workload import RunBarrier
from bridgekit_verify.probes.observation import Observation
from bridgekit_verify.probes.scenario_agents import AGENTS, OTHER_USERS, SIZES, UNKNOWN_AGENT, RunPlan
from bridgekit_verify.probes.scenario_sockets import UNKNOWN_RUN, SocketActs, event_of
from bridgekit_verify.probes.scenario_values import EMISSIONS, RESULTS, TEXT

__all__ = ["play"]

WAIT_SECONDS: Final = 8.0
"""Timeout for the start of all runs of a group, and for the end of the last sockets."""
BURST_EVENTS: Final = 60
LONG_REQUEST: Final = "\U0001f6f0" * 10_000


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
            scenario.ask_again,
            scenario.use_sub_agents,
            scenario.end_otherwise,
            scenario.run_outside_the_core,
            scenario.emit_after_the_end,
            scenario.emit_without_a_route,
            scenario.request_as_another_user,
            scenario.fill_an_outbox,
            scenario.join_during_events,
            scenario.close_one_socket,
            scenario.close_sockets,
            scenario.end_access,
            scenario.drain,
        ):
            await act()
        with anyio.move_on_after(WAIT_SECONDS):
            for client in seen.clients:
                await client.ended.wait()
        readers.cancel_scope.cancel()
    seen.attached, seen.ended = len(seen.application.bridge.hub), seen.recording.position
    seen.complete = True


class _Scenario(SocketActs):
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

    async def run_again(self) -> None:
        async with self._group():
            pass

    async def run_in_turn(self) -> None:
        for number, owned in enumerate(self.threads):
            plan = RunPlan(
                burst=0 if number else BURST_EVENTS,
                results=(RESULTS[number % len(RESULTS)],),
                tools_at_once=number < 2,
            )
            request = self._new_request(plan, LONG_REQUEST if number == 1 else "")
            await self._run(owned, AGENTS[number % len(AGENTS)], plan, request=request)

    async def ask_again(self) -> None:
        """Send one request for two users, again for the first user, and for another thread of that user."""
        plan = RunPlan()
        request = self._new_request(plan)
        for number in (0, 1, 0, 2):
            await self._run(self.threads[number], AGENTS[0], plan, request=request)

    async def use_sub_agents(self) -> None:
        """Let an agent execute a run in another thread of its user, and then one in its own thread."""
        for owned in (self.threads[2], self.threads[0]):
            sub_agent = partial(self._run, owned, AGENTS[1], RunPlan())
            await self._run(self.threads[0], AGENTS[0], RunPlan(sub_agent=sub_agent))

    async def end_otherwise(self) -> None:
        """Run agents that end with an error, a refused value, an end event of their own, or a cancellation.

        Also request an agent that does not exist.
        """
        await self._run(self.threads[1], UNKNOWN_AGENT, RunPlan(ending="unknown"))
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

        Also emit each event through the bridge, with only the run id. Then bind the agents to other runs. Meanwhile, an
        observer of the application counts the events.
        """
        self.bridge.observers.append(self.seen.observe)
        first = self.seen.recording.position
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
        self.bridge.observers.remove(self.seen.observe)
        self.seen.observed_between = first, self.seen.recording.position
        for context in opened:
            await self._guarded(partial(self.application.supervisor.close_run, context))

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
        """Emit events of an unknown run, and an event of an adapter that has no bridge.

        Also emit events in a named thread, of an unknown run and of runs of other threads. They need no route, so that
        they would arrive although the chain delivers no other event.
        """
        named, others = self.threads[1].thread_id, [UNKNOWN_RUN]
        others += [run_id for _, run_id, of in self._first_runs if of != named]
        for run_id in others if any(client.frames for client in self.seen.clients) else ():
            event = event_of(EventType.PROGRESS_UPDATE, run_id, None, {"in a named thread": TEXT})
            await self._guarded(partial(self.bridge.notify_in_thread, named, event))
        await self._guarded(lambda: self.bridge.notify_progress_update(UNKNOWN_RUN, AGENTS[0], {}))
        adapter = self.application.config.adapter()
        self.seen.unbound = await self._guarded(lambda: adapter.emit_progress({}))

    async def request_as_another_user(self) -> None:
        for user_id in OTHER_USERS:
            request = self._new_request(RunPlan())
            try:
                await self.application.supervisor.open_run(
                    agent_name=AGENTS[0], thread_id=self.threads[0].thread_id, user_id=user_id, request=request
                )
            except ThreadNotOwned:
                continue
            except Exception as error:
                if not self.seen.note(error):
                    raise
            else:
                self.seen.accepted_users.append(user_id)

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
