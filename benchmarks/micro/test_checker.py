"""Microbenchmarks of the checker with up to a million events."""

from __future__ import annotations

import tracemalloc

import pytest

from benchmarks.micro.run_without_event_loop import Timer
from benchmarks.own_cost_process import sound_history
from bridgekit_verify.measure.checker import Verdict, check

THREADS = 100
EVENTS = [10_000, 1_000_000]


@pytest.mark.parametrize("events", EVENTS)
def test_check(benchmark: Timer, events: int) -> None:
    history = sound_history(events)
    tracemalloc.start()
    small = check(sound_history(EVENTS[0]))
    benchmark.extra_info["peak bytes an event"] = tracemalloc.get_traced_memory()[1] // small.expected
    tracemalloc.stop()
    verdict = benchmark.pedantic(check, args=(history,), rounds=1)
    assert isinstance(verdict, Verdict)
    assert verdict.delivered == verdict.expected == events
