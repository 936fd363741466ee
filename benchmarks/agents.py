"""The agents of a benchmark, in the server's process: how many, how they take turns, and when they speak."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from benchmarks.peers import Stack
from benchmarks.pipe import cpu_ns
from benchmarks.workload import KINDS, Run, Said, Wave

__all__ = ["RunsItself", "Spoke", "speak", "speak_in_time"]


@runtime_checkable
class RunsItself(Protocol):
    """A stack that calls the agents itself, run by run."""

    async def run(self, run: Run, said: Sequence[Said], turn_after: int) -> None:
        """One whole run."""


@dataclass(frozen=True, slots=True)
class Spoke:
    """When a wave began, when all of it was said, and how much CPU time this process had used when it began."""

    begun_ns: int
    said_ns: int
    cpu_ns: int


async def speak(stack: Stack, wave: Wave, kind: str) -> Spoke:
    """All threads at once, each with its runs one after the other. What is said is made before the clock starts."""
    turn_after = KINDS[kind]
    scripts = [[(run, run.said()) for run in wave.of(thread)] for thread in range(wave.threads)]
    talk = _runs if isinstance(stack, RunsItself) else _talk
    # Collected now: what came before is not this wave's to clear away.
    gc.collect()
    cpu, begun = cpu_ns(), time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        for script in scripts:
            group.create_task(talk(stack, script, turn_after))
    return Spoke(begun, time.monotonic_ns(), cpu)


async def _talk(stack: Stack, script: Sequence[tuple[Run, Sequence[Said]]], turn_after: int) -> None:
    """One thread's runs."""
    since = 0
    for run, said in script:
        say = stack.agent(run)
        for each in said:
            await say(each)
            since += 1
            if since == turn_after:
                since = 0
                await asyncio.sleep(0)


async def _runs(stack: Stack, script: Sequence[tuple[Run, Sequence[Said]]], turn_after: int) -> None:
    assert isinstance(stack, RunsItself)
    for run, said in script:
        await stack.run(run, said, turn_after)


async def speak_in_time(stack: Stack, wave: Wave, per_second: float, within: float) -> list[tuple[int, int, int]]:
    """One emitter for all threads, at a fixed rate; for each event its thread, when it was said and for how long.

    Where the stack holds it up it catches up afterwards, so that the rate holds over the whole; where it holds it up
    beyond `within` seconds, the rest remains unsaid.
    """
    told: list[tuple[int, int, int]] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(within):
            await _in_time(stack, wave.in_turn(), per_second, told)
    return told


async def _in_time(
    stack: Stack, script: Iterable[tuple[Run, Said]], per_second: float, told: list[tuple[int, int, int]]
) -> None:
    begun = time.monotonic()
    for number, (run, said) in enumerate(script):
        say = stack.agent(run)
        await asyncio.sleep(max(begun + number / per_second - time.monotonic(), 0))
        asked = time.monotonic_ns()
        try:
            await say(said)
        finally:
            told.append((run.thread, asked, time.monotonic_ns() - asked))
