"""Agents that never wait, that wait between runs, and that wait between events: counted in turns of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from benchmarks.agents import emit_load, emit_paced
from benchmarks.workload import BURST, EVENTS, KINDS, RUN, YIELDING, AgentRun, Said, Wave


class Noted:
    """A stack that notes what is said, and in which turn of the loop."""

    port = 0

    def __init__(self, holds_up: float = 0.0) -> None:
        self.said: list[tuple[AgentRun, Said, int]] = []
        self.turn = 0
        self._holds_up = holds_up

    def agent(self, run: AgentRun) -> Callable[[Said], Awaitable[object]]:
        async def say(said: Said) -> None:
            self.said.append((run, said, self.turn))
            if self._holds_up:
                await asyncio.sleep(self._holds_up)

        return say

    async def count_turns(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)


@pytest.mark.parametrize(("kind", "at_once"), [(BURST, 3 * EVENTS), (RUN, EVENTS), (YIELDING, 1)])
def test_agents_wait_as_their_kind_says(kind: str, at_once: int) -> None:
    stack = asyncio.run(_spoken(kind))
    turns = [turn for run, _, turn in stack.said if run.thread == 0]
    assert [turns.count(turn) for turn in dict.fromkeys(turns)] == [at_once] * (3 * EVENTS // at_once)


async def _spoken(kind: str) -> Noted:
    stack = Noted()
    counting = asyncio.ensure_future(stack.count_turns())
    await emit_load(stack, Wave(2, 3), kind)
    counting.cancel()
    return stack


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_said_once_and_in_order(kind: str) -> None:
    stack = asyncio.run(_spoken(kind))
    for thread in range(2):
        expected = [said for run in Wave(2, 3).of(thread) for said in run.said()]
        assert [said for run, said, _ in stack.said if run.thread == thread] == expected


def test_emitter_at_a_rate_says_all_and_when() -> None:
    stack = Noted()
    wave = Wave(2, 2)
    told = asyncio.run(emit_paced(stack, wave, 10_000, 10))
    assert [thread for thread, _, _ in told] == [0, 1] * (wave.events // 2)
    assert [said for run, said, _ in stack.said if run.thread == 1] == [
        said for run in wave.of(1) for said in run.said()
    ]
    moments = [moment for _, moment, _ in told]
    assert moments == sorted(moments)
    assert moments[-1] - moments[0] > (wave.events - 2) * 100_000


def test_emitter_that_is_held_up_for_too_long_leaves_the_rest_unsaid() -> None:
    told = asyncio.run(emit_paced(Noted(holds_up=3_600), Wave(2, 2), 10_000, 0.05))
    [(thread, _, held_up_ns)] = told
    assert thread == 0
    assert held_up_ns > 10_000_000


def test_waves_number_their_runs_on() -> None:
    wave = Wave(2, 3).next(4)
    assert [run.number for run in wave.of(1)] == [3, 4, 5, 6]
    assert wave.events == 2 * 4 * EVENTS
