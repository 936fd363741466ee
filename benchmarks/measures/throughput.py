"""Measure events/s and CPU time per event, for agents that never yield, yield after runs, or yield after events."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.interleaving import log_progress
from benchmarks.peers import Peer
from benchmarks.stack_session import Session, session

__all__ = ["fan_out", "throughput"]


async def throughput(series: Series, opened: Session, *, runs: int, kinds: Sequence[str]) -> None:
    """Measure one round of one stack: a wave for each kind of agents."""
    peer = opened.peer
    for kind in kinds:
        report = await opened.run_load(kind, max(1, round(runs * peer.share)))
        series.add(SeriesKey("events/s", peer.name, kind), report.per_second)
        series.add(SeriesKey("CPU µs/event", peer.name, kind), report.cpu_us)
        series.add(SeriesKey("client busy", peer.name, kind), report.client_busy)
        series.add(SeriesKey("bytes/event", peer.name, kind), report.event_bytes)
        log_progress(f"  {peer.name}, {kind}: {report.per_second:,.0f} events/s, {report.cpu_us:.1f} µs CPU each")


async def fan_out(series: Series, peer: Peer, *, subscribers: int, runs: int) -> None:
    """Measure one round of one stack with many subscribers of one thread: deliveries/s and CPU time per delivery."""
    async with session(peer, threads=1, subscribers=subscribers) as opened:
        await opened.warm_up()
        report = await opened.run_load("run", max(1, round(runs * peer.share)))
    kind = f"{subscribers} subscribers"
    series.add(SeriesKey("deliveries/s", peer.name, kind), report.per_second)
    series.add(SeriesKey("CPU µs/delivery", peer.name, kind), report.cpu_us)
    log_progress(f"  {peer.name}: {report.per_second:,.0f} deliveries/s, {report.cpu_us:.1f} µs CPU each")
