"""The agents of a benchmark in the server process: their number, their order, and the times of their events."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Protocol, runtime_checkable

from benchmarks.peers import Stack
from benchmarks.process_messages import EmitReport
from benchmarks.workload import KINDS, AgentRun, EventBody, Wave
from bridgekit_verify.harness.child_side import cpu_ns

__all__ = ["RegistersRuns", "RunsAgents", "emit_load", "emit_paced"]


@runtime_checkable
class RunsAgents(Protocol):
    """A stack that calls the agents itself, one run at a time."""

    async def run(self, run: AgentRun, bodies: Sequence[EventBody], yield_after: int) -> None:
        """Execute one whole run. `yield_after` is a value of KINDS."""


@runtime_checkable
class RegistersRuns(Protocol):
    """A stack that stores the thread of each run before the run's first event."""

    async def register(self, runs: Sequence[AgentRun]) -> None:
        """Store the threads of these runs."""


async def emit_load(stack: Stack, wave: Wave, kind: str) -> EmitReport:
    """Emit the runs of all threads concurrently, one run after another in each thread. Creating events is not timed."""
    yield_after = KINDS[kind]
    scripts = [[(run, run.bodies()) for run in wave.of(thread)] for thread in range(wave.threads)]
    emit = _runs if isinstance(stack, RunsAgents) else _emit
    if isinstance(stack, RegistersRuns):
        await stack.register([run for script in scripts for run, _ in script])
    # Collect garbage now, so that earlier garbage does not add to the cost of this wave.
    gc.collect()
    cpu, begun = cpu_ns(), time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        for script in scripts:
            group.create_task(emit(stack, script, yield_after))
    return EmitReport(begun, cpu)


async def _emit(stack: Stack, script: Sequence[tuple[AgentRun, Sequence[EventBody]]], yield_after: int) -> None:
    """Emit the runs of one thread, and yield to the event loop after every `yield_after` events."""
    since = 0
    for run, bodies in script:
        emit_event = stack.agent(run)
        for body in bodies:
            await emit_event(body)
            since += 1
            if since == yield_after:
                since = 0
                await asyncio.sleep(0)


async def _runs(stack: Stack, script: Sequence[tuple[AgentRun, Sequence[EventBody]]], yield_after: int) -> None:
    assert isinstance(stack, RunsAgents)
    for run, bodies in script:
        await stack.run(run, bodies, yield_after)


async def emit_paced(stack: Stack, wave: Wave, per_second: float, within: float) -> list[tuple[int, int, int]]:
    """Emit a wave from one emitter at a fixed rate. Return each event's thread, start time and duration, with times in
    nanoseconds.

    If the stack delays the emitter, the emitter catches up afterwards, so that the average rate is constant. The
    emitter stops after `within` seconds.
    """
    emissions: list[tuple[int, int, int]] = []
    if isinstance(stack, RegistersRuns):
        await stack.register([run for thread in range(wave.threads) for run in wave.of(thread)])
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await _emit_paced(stack, wave.in_turn(), per_second, emissions)
    return emissions


async def _emit_paced(
    stack: Stack, script: Iterable[tuple[AgentRun, EventBody]], per_second: float, emissions: list[tuple[int, int, int]]
) -> None:
    begun = time.monotonic()
    for number, (run, body) in enumerate(script):
        emit_event = stack.agent(run)
        await asyncio.sleep(max(begun + number / per_second - time.monotonic(), 0))
        asked = time.monotonic_ns()
        try:
            await emit_event(body)
        finally:
            emissions.append((run.thread, asked, time.monotonic_ns() - asked))
