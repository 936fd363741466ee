"""Measure the memory of idle connections in the stack's processes, and the CPU time that keeps the connections alive.

The memory of kernel buffers is not included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.interleaving import log_progress
from benchmarks.peers import Peer
from benchmarks.stack_session import session

__all__ = ["idle_connections", "idle_work"]

WARM_UP: Final = 50
"""Number of connections that are opened before the measured connections, so that shared code and buffers are loaded."""


async def idle_connections(series: Series, peer: Peer, *, connections: int) -> None:
    """Measure one round of one stack: resident memory without and with idle sockets, one in each thread."""
    async with session(peer, threads=WARM_UP) as opened:
        await opened.prepare(WARM_UP, WARM_UP + connections)
        before = await opened.memory_kib()
        await opened.connect(WARM_UP, WARM_UP + connections)
        each = (await opened.memory_kib() - before) / connections
    series.add(SeriesKey("KiB/idle connection", peer.name), each)
    log_progress(f"  {peer.name}: {each:.1f} KiB an idle connection")


async def idle_work(series: Series, peers: Sequence[Peer], *, connections: int, seconds: float) -> None:
    """Measure CPU time per connection (µs per second) of all stacks concurrently.

    `seconds` should exceed the ping interval.
    """
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(session(peer, threads=connections)) for peer in peers]
        before = [await each.cpu_seconds() for each in sessions]
        await asyncio.sleep(seconds)
        for each, was in zip(sessions, before, strict=True):
            us = 1e6 * (await each.cpu_seconds() - was) / seconds / connections
            series.add(SeriesKey("CPU µs/s an idle connection", each.peer.name), us)
            log_progress(f"  {each.peer.name}: {us:.1f} µs CPU a second for each idle connection")
