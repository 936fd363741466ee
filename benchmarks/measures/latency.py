"""How long a lone event takes, from its emission to the client's read, at a fixed rate; one clock for both ends."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

from benchmarks.load.verification import WrongAnswer
from benchmarks.measures.rounds import say
from benchmarks.series import Key, Series, quantile
from benchmarks.session import Session
from benchmarks.workload import EVENTS

__all__ = ["latencies", "latency"]

QUANTILES: Final = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
PATIENCE_SECONDS: Final = 30.0


async def latency(series: Series, opened: Session, *, per_second: float, seconds: float) -> None:
    """One round of one stack: threads in turn, one emitter."""
    wave = opened.next_wave(max(1, round(per_second * seconds / EVENTS / opened.threads)))
    within = seconds + PATIENCE_SECONDS
    await opened.load.ask("expect", events=wave.runs * EVENTS)
    said, received = await asyncio.gather(
        opened.agents.ask("speak in time", wave=asdict(wave), per_second=per_second, within=within, seconds=within + 5),
        opened.load.ask("receive", within=within, seconds=within + 5),
    )
    verdict = await opened.verdict(wave)
    if not (verdict.sound and received["complete"]):
        raise WrongAnswer(f"{opened.peer.name}: {verdict}")
    arrived = (await opened.load.ask("arrivals"))["arrivals"]
    us = [each / 1_000 for each in latencies(said["told"], arrived)]
    name, rate = opened.peer.name, f"{per_second:.0f}/s"
    for share in QUANTILES:
        series.add(Key(f"latency p{100 * share:g}, µs", name, rate), quantile(us, share))
    say(f"  {name}, {rate}: p50 {quantile(us, 0.5):,.0f} µs, p99 {quantile(us, 0.99):,.0f} µs")


def latencies(told: Sequence[Sequence[int]], arrived: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
    """In nanoseconds, one an event that arrived. `told` has the thread and the moment of each, as they were said."""
    emitted = defaultdict[int, list[int]](list)
    for thread, moment, *_ in told:
        emitted[thread].append(moment)
    return [
        there - moment for thread, moments in arrived for moment, there in zip(emitted[thread], moments, strict=False)
    ]
