"""The measured server process: agents, bridge, hub and sockets, as in a deployment.

The worker of the fault experiments cannot be used, because its report of an event takes more CPU time than the event
itself.
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import Final, assert_never
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio.abc import TaskGroup

from bridgekit.chain.context import RunContext
from bridgekit.chain.link_1_startup import Application, BridgeConfig, create_app
from bridgekit.chain.link_6_base_agent import BaseAgent
from bridgekit.chain.models_tools_and_owners import PythonTools
from bridgekit.errors import BridgekitError
from bridgekit.serve.in_process import serving
from bridgekit.stores import stores_from
from bridgekit.transport.tickets import Tickets
from bridgekit_verify.capacity.messages import (
    FillLogs,
    OpenThreads,
    RunWave,
    ServerReport,
    ServerSetup,
    StartWaitingRuns,
)
from bridgekit_verify.capacity.schedule import EVENTS_A_STEP, LoadPlan, LoadWave, owner
from bridgekit_verify.harness.child_side import (
    Done,
    MemoryReply,
    MemoryRequest,
    ProcessTimes,
    Ready,
    raise_file_limit,
    read_stdin_lines,
    resident_kib,
    send,
)
from bridgekit_verify.harness.declared_owners import DeclaredOwners
from bridgekit_verify.measure.workload import AGENT

__all__ = ["GcPauses"]

KEEPALIVE_SECONDS: Final = 120.0
"""The keepalive interval: longer than a wave, because the client does not answer pings while it only stores bytes."""
WAITING_RUN_SECONDS: Final = 86_400.0
"""Pause of a waiting run: longer than any measurement."""
TEXT: Final = "what a model may say in one thought, or a tool may find, in a sentence of usual length"

Request = OpenThreads | FillLogs | StartWaitingRuns | RunWave | MemoryRequest


class ActiveRuns:
    """The active runs by request: the wave of each run, and the run's scheduled start on the event loop's clock."""

    def __init__(self) -> None:
        self.started: dict[str, tuple[LoadWave, float]] = {}
        self.most = 0
        self.failed = 0

    def agents(self) -> type[BaseAgent]:
        """Return an agent class that emits each event when it is due, or as soon as possible afterwards."""
        started = self.started

        class PacedAgent(BaseAgent):
            async def execute(self, context: RunContext) -> object:
                request = context.request
                wave, start = started[request]
                pause = wave.plan.pause_seconds
                for step in range(1, wave.plan.steps + 1):
                    thought = start + (EVENTS_A_STEP * (step - 1) + 1) * pause
                    await _sleep_until_due(thought, pause)
                    await self.emit_thinking(f"{request}: {TEXT}", step_number=step)
                    await _sleep_until_due(thought + pause, pause)
                    await self.use_tool("look_up", request=request, step=step)
                await _sleep_until_due(start + (wave.plan.events - 1) * pause, pause)
                return {"request": request, "answer": TEXT}

        return PacedAgent

    def tools(self) -> PythonTools:
        """Return a dispatcher with one tool. A call of the tool takes as long as one pause between events."""

        async def look_up(request: str, step: int) -> dict[str, object]:
            wave, start = self.started[request]
            await _sleep_until_due(start + EVENTS_A_STEP * step * wave.plan.pause_seconds, wave.plan.pause_seconds)
            return {"request": request, "step": step, "found": TEXT}

        return PythonTools({"look_up": look_up})

    async def run(self, application: Application, wave: LoadWave, number: int, start: float) -> None:
        """Execute one run from its request to its end."""
        request, owned = wave.request(number), wave.owner_of(number)
        self.started[request] = wave, start
        self.most = max(self.most, len(self.started))
        try:
            await application.supervisor.run(
                agent_name=AGENT, thread_id=owned.thread_id, user_id=owned.user_id, request=request
            )
        except BridgekitError:
            self.failed += 1
        finally:
            del self.started[request]


class GcPauses:
    """Records the duration of each garbage collection."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._since = 0.0

    def on_phase(self, phase: str, info: dict[str, int]) -> None:
        """Record the start or the end of a garbage collection, as a callback in `gc.callbacks`."""
        if phase == "start":
            self._since = time.perf_counter()
        else:
            self.seconds.append(time.perf_counter() - self._since)


async def _sleep_until_due(moment: float, pause: float) -> None:
    """Sleep until an event is due. Return immediately for agents without pauses."""
    if pause:
        await anyio.sleep_until(moment)


async def _run_wave(application: Application, active: ActiveRuns, wave: LoadWave) -> ServerReport:
    """Start every run at its scheduled time, even if earlier runs have not ended, and wait for all runs."""
    start = anyio.current_time() + wave.starts_at - time.time()
    taken, refused = _accepted(application), _lost(application)
    active.most = active.failed = 0
    await anyio.sleep_until(start)
    cpu, pauses = time.process_time(), GcPauses()
    times = list[ProcessTimes]()

    async def read_times(moment: float) -> None:
        await anyio.sleep_until(start + moment)
        times.append(ProcessTimes.read())

    async with anyio.create_task_group() as runs:
        gc.callbacks.append(pauses.on_phase)
        # Measure from the end of the first runs until the start of the last run, because fewer runs are active before
        # and after.
        runs.start_soon(read_times, min(wave.plan.run_seconds, wave.plan.seconds / 2))
        runs.start_soon(read_times, wave.plan.seconds)
        for number, moment in enumerate(wave.starts):
            await anyio.sleep_until(start + moment)
            runs.start_soon(active.run, application, wave, number, start + moment)
    gc.callbacks.remove(pauses.on_phase)
    share, run_queue_wait = times[0].shares_until(times[1])
    return ServerReport(
        runs=len(wave.starts),
        failed=active.failed,
        taken=_accepted(application) - taken,
        refused=_lost(application) - refused,
        at_once=active.most,
        seconds=anyio.current_time() - start,
        cpu_seconds=time.process_time() - cpu,
        share=share,
        run_queue_wait=run_queue_wait,
        pauses=len(pauses.seconds),
        longest_pause=max(pauses.seconds, default=0.0),
        pauses_squared=sum(each**2 for each in pauses.seconds) / (wave.ends_at - wave.starts_at),
    )


def _accepted(application: Application) -> int:
    counters = application.counters
    return sum(counters.sent.values()) + sum(counters.kept.values()) + sum(counters.pending.values())


def _lost(application: Application) -> int:
    return sum(application.counters.lost.values())


def _single(name: str, first: int, last: int, plan: LoadPlan) -> LoadWave:
    """Return a wave with one run for each thread from `first` up to, but not including, `last`."""
    return LoadWave(
        name=f"{name} {first}",
        plan=plan,
        first=first,
        threads=last - first,
        runs_per_second=(last - first) / plan.seconds,
        starts_at=time.time(),
    )


async def _fill(application: Application, active: ActiveRuns, request: FillLogs) -> None:
    wave = _single("filling", request.first, request.last, LoadPlan(pause_seconds=0))
    for number in range(request.last - request.first):
        await active.run(application, wave, number, 0)


def _start_waiting(application: Application, active: ActiveRuns, request: StartWaitingRuns, waiting: TaskGroup) -> None:
    wave = _single("waiting", request.first, request.last, LoadPlan(pause_seconds=WAITING_RUN_SECONDS))
    for number in range(request.last - request.first):
        waiting.start_soon(active.run, application, wave, number, anyio.current_time())


async def _handle(application: Application, active: ActiveRuns, request: Request, waiting: TaskGroup) -> None:
    match request:
        case OpenThreads(first, last):
            for owned in map(owner, range(first, last)):
                await application.open_thread(owned.thread_id, owned.user_id)
            send(Done())
        case FillLogs():
            await _fill(application, active, request)
            send(Done())
        case StartWaitingRuns():
            _start_waiting(application, active, request, waiting)
            await anyio.wait_all_tasks_blocked()
            send(Done())
        case RunWave(wave):
            send(await _run_wave(application, active, wave))
        case MemoryRequest():
            send(MemoryReply(resident_kib()))
        case _:
            assert_never(request)


async def main() -> None:
    """Serve and handle requests until standard input closes."""
    lines = read_stdin_lines()
    setup = msgspec.json.decode(await anext(lines), type=ServerSetup)
    raise_file_limit()
    active = ActiveRuns()
    app = create_app(
        BridgeConfig(
            agents={AGENT: active.agents()},
            db_session_factory=DeclaredOwners(),
            tool_dispatcher=active.tools(),
            stores=stores_from(setup.store),
            authorizer=partial(Tickets, keys=(setup.key,)),
        )
    )
    decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
    async with (
        serving(app, edge=setup.edge, keepalive_seconds=KEEPALIVE_SECONDS) as url,
        anyio.create_task_group() as waiting,
    ):
        send(Ready(urlsplit(url).port or 0))
        async for line in lines:
            await _handle(app.state.bridgekit, active, decoder.decode(line), waiting)
        waiting.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
