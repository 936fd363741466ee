"""Measure the latency of single events at a fixed rate, from emission to the client's read, on one monotonic clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from benchmarks.measured_values import Series, SeriesKey, quantile
from benchmarks.measures.interleaving import log_progress
from benchmarks.stack_session import Session
from benchmarks.verification import WrongAnswer
from benchmarks.workload import EVENTS

__all__ = ["latencies", "latency"]

QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
OVERTIME_SECONDS: Final = 30.0


async def latency(series: Series, opened: Session, *, per_second: float, seconds: float) -> None:
    """Measure one round of one stack: one emitter sends to the threads in turn. Raises WrongAnswer if the received
    events are wrong."""
    wave = opened.next_wave(max(1, round(per_second * seconds / EVENTS / opened.threads)))
    emitted, received = await opened.run_paced_load(wave, per_second, within=seconds + OVERTIME_SECONDS)
    verdict = await opened.verdict(wave)
    if not (verdict.sound and received.complete):
        raise WrongAnswer(f"{opened.peer.name}: {verdict}")
    us = [each / 1_000 for each in latencies(emitted.emissions, await opened.read_times())]
    name, rate = opened.peer.name, f"{per_second:.0f}/s"
    for share in QUANTILES:
        series.add(SeriesKey(f"latency p{100 * share:g}, µs", name, rate), quantile(us, share))
    log_progress(f"  {name}, {rate}: p50 {quantile(us, 0.5):,.0f} µs, p99 {quantile(us, 0.99):,.0f} µs")


def latencies(emissions: Sequence[Sequence[int]], arrived: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """Return the latency of each received event in ns. `emissions` has the thread and the time of each event, in order
    of emission."""
    emitted = defaultdict[int, list[int]](list)
    for thread, moment, *_ in emissions:
        emitted[thread].append(moment)
    return [
        there - moment for thread, moments in arrived for moment, there in zip(emitted[thread], moments, strict=False)
    ]
