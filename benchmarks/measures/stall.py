"""Measure how a subscriber that stops reading affects the emitter, the other subscribers, and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.measured_values import Series, SeriesKey, quantile
from benchmarks.measures.interleaving import log_progress
from benchmarks.measures.latency import latencies
from benchmarks.peers import Peer
from benchmarks.process_messages import ClosedSockets, ResumeReading, StallOne
from benchmarks.stack_session import Session, session
from benchmarks.verification import WrongAnswer
from benchmarks.workload import EVENTS
from bridgekit_verify.harness.child_side import Done

__all__ = ["stall"]

THREADS: Final = 2
SUBSCRIBERS: Final = 5
"""Number of subscribers of each thread. One subscriber of the first thread stops reading."""
BUFFER_BYTES: Final = 16_384
"""Socket buffers are small, so that a client that stops reading causes backpressure immediately, and not after
megabytes."""
PADDING_BYTES: Final = 8_192
GRACE_SECONDS: Final = 2.0


async def stall(series: Series, peer: Peer, *, per_second: float, seconds: float) -> None:
    """Measure one stack with two threads of five sockets each: first all sockets read, then one socket stops
    reading."""
    async with session(peer, threads=THREADS, subscribers=SUBSCRIBERS, buffer_bytes=BUFFER_BYTES) as opened:
        await _measure_wave(opened, per_second, seconds)
        await opened.load.request(StallOne(), Done)
        found = await _measure_wave(opened, per_second, seconds)
        found["cut off"] = (await opened.load.request(ResumeReading(), ClosedSockets)).closed
    for what, value in found.items():
        series.add(SeriesKey(f"stall: {what}", peer.name), value)
    log_progress(f"  {peer.name}: {', '.join(f'{what} {value:,.0f}' for what, value in found.items())}")


async def _measure_wave(opened: Session, per_second: float, seconds: float) -> dict[str, float]:
    """Measure one wave. Raises WrongAnswer if an event that arrived is wrong. Events may be missing."""
    wave = opened.next_wave(max(1, round(per_second * seconds / EVENTS / THREADS)), padding_bytes=PADDING_BYTES)
    before, within = await opened.memory_kib(), seconds + GRACE_SECONDS
    emitted, received = await opened.run_paced_load(wave, per_second, within)
    verdict = await opened.verdict(wave)
    if not replace(verdict, lost=0).sound:
        raise WrongAnswer(f"{opened.peer.name}: {verdict}")
    ms = [each / 1e6 for each in latencies(emitted.emissions, await opened.read_times())]
    return {
        "events said, %": 100 * len(emitted.emissions) / wave.events,
        "neighbours' events, %": 100 * received.events / verdict.expected,
        "neighbours' p99, ms": quantile(ms, 0.99),
        "emitter held up at most, ms": max(each[2] for each in emitted.emissions) / 1e6,
        "piled up, KiB": await opened.memory_kib() - before,
    }
