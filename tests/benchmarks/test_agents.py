"""Agents that never yield, yield between runs, or yield between events, counted in event-loop iterations."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.agents import emit_load, emit_paced
from benchmarks.workload import BURST, EVENTS, KINDS, RUN, YIELDING, AgentRun, EventBody, Wave


class RecordingStack:
    """A stack that records each emitted event and its event-loop iteration."""

    port = 0

    def __init__(self, delay: float = 0.0) -> None:
        self.emitted: list[tuple[AgentRun, EventBody, int]] = []
        self.iteration = 0
        self._delay = delay

    def agent(self, run: AgentRun) -> Callable[[EventBody], Awaitable[object]]:
        async def emit_event(body: EventBody) -> None:
            self.emitted.append((run, body, self.iteration))
            if self._delay:
                await asyncio.sleep(self._delay)

        return emit_event

    async def count_iterations(self) -> None:
        while True:
            self.iteration += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize(("kind", "per_iteration"), [(BURST, 3 * EVENTS), (RUN, EVENTS), (YIELDING, 1)])
def test_agents_yield_as_their_kind_requires(kind: str, per_iteration: int) -> None:
    stack = asyncio.run(_run_load(kind))
    iterations = [iteration for run, _, iteration in stack.emitted if run.thread == 0]
    assert [iterations.count(iteration) for iteration in dict.fromkeys(iterations)] == [per_iteration] * (
        3 * EVENTS // per_iteration
    )


async def _run_load(kind: str) -> RecordingStack:
    stack = RecordingStack()
    counting = asyncio.ensure_future(stack.count_iterations())
    await emit_load(stack, Wave(2, 3), kind)
    counting.cancel()
    return stack


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_emitted_once_and_in_order(kind: str) -> None:
    stack = asyncio.run(_run_load(kind))
    for thread in range(2):
        expected = [body for run in Wave(2, 3).of(thread) for body in run.bodies()]
        assert [body for run, body, _ in stack.emitted if run.thread == thread] == expected


def test_paced_emitter_emits_all_events_and_returns_their_times() -> None:
    stack = RecordingStack()
    wave = Wave(2, 2)
    emissions = asyncio.run(emit_paced(stack, wave, 10_000, 10))
    assert [thread for thread, _, _ in emissions] == [0, 1] * (wave.events // 2)
    assert [body for run, body, _ in stack.emitted if run.thread == 1] == [
        body for run in wave.of(1) for body in run.bodies()
    ]
    moments = [moment for _, moment, _ in emissions]
    assert moments == sorted(moments)
    assert moments[-1] - moments[0] > (wave.events - 2) * 100_000


def test_paced_emitter_stops_after_its_time_limit() -> None:
    emissions = asyncio.run(emit_paced(RecordingStack(delay=3_600), Wave(2, 2), 10_000, 0.05))
    [(thread, _, held_up_ns)] = emissions
    assert thread == 0
    assert held_up_ns > 10_000_000


def test_waves_number_their_runs_consecutively() -> None:
    wave = Wave(2, 3).next(4)
    assert [run.number for run in wave.of(1)] == [3, 4, 5, 6]
    assert wave.events == 2 * 4 * EVENTS
