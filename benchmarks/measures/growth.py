"""Measure CPU time per event under background load (threads, runs, idle sockets), and memory over many events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from benchmarks.measured_values import Series, SeriesKey
from benchmarks.measures.interleaving import log_progress
from benchmarks.peers import Peer
from benchmarks.process_messages import FillStack
from benchmarks.stack_session import Session, session, start_load_client
from benchmarks.workload import EVENTS
from bridgekit.transport.log import DEFAULT_RETENTION
from bridgekit_verify.harness.child_side import Done

__all__ = ["FULL_BACKGROUND", "NO_BACKGROUND", "BackgroundLoad", "flatness", "growth", "steps"]

THREADS: Final = 10
"""Number of measured threads, with one socket each."""
FILL_SECONDS: Final = 120.0
QUIET_SECONDS: Final = 3_600.0
POINTS: Final = 100
"""Limit on the number of memory values in the figure. The target applies to the memory after every wave."""
SETTLED_RUNS: Final = 5 * DEFAULT_RETENTION.events // EVENTS
"""Runs of each thread before the baseline: five times the number that fills the thread's log. Memory grows by about 5 %
while the logs fill and shortly afterwards, and then remains constant."""


@dataclass(frozen=True, slots=True)
class BackgroundLoad:
    """The threads, mapped runs and idle sockets in addition to the measured threads."""

    threads: int = 0
    mappings: int = 0
    sockets: int = 0

    def __str__(self) -> str:
        counts = {"live threads": self.threads, "mappings": self.mappings, "idle sockets": self.sockets}
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing besides"


NO_BACKGROUND: Final = BackgroundLoad()
FULL_BACKGROUND: Final = BackgroundLoad(threads=10_000, mappings=1_000_000, sockets=10_000)


def steps(sizes: Mapping[str, Sequence[int]]) -> list[BackgroundLoad]:
    """Return one background load for each kind and size."""
    return [BackgroundLoad(**{what: size}) for what, each in sizes.items() for size in each]


@asynccontextmanager
async def _with_background(peer: Peer, background: BackgroundLoad) -> AsyncIterator[Session]:
    """Run a session with this background load. A second load client opens the idle sockets, so the first one is not
    affected."""
    async with AsyncExitStack() as stack:
        # Pings take CPU time per second and not per event, so only `idle_work` measures their cost.
        opened = await stack.enter_async_context(session(peer, threads=THREADS, keepalive_seconds=QUIET_SECONDS))
        if background.threads or background.mappings:
            await opened.sockets.request(FillStack(background.threads, background.mappings), Done, within=FILL_SECONDS)
        if background.sockets:
            idle = await stack.enter_async_context(start_load_client("the idle clients"))
            await opened.connect(THREADS, THREADS + background.sockets, load=idle)
        await opened.warm_up()
        yield opened


async def growth(
    series: Series, peer: Peer, background_loads: Sequence[BackgroundLoad], *, rounds: int, runs: int
) -> None:
    """Measure CPU time per event without background load and with each background load, in turn. All sessions stay
    open."""
    async with AsyncExitStack() as stack:
        backgrounds = (NO_BACKGROUND, *background_loads)
        opened = [await stack.enter_async_context(_with_background(peer, background)) for background in backgrounds]
        for _ in range(rounds):
            for background, each in zip(backgrounds, opened, strict=True):
                report = await each.run_load("run", runs)
                series.add(SeriesKey("CPU µs/event", peer.name, str(background)), report.cpu_us)
                log_progress(f"  {peer.name}, {background}: {report.cpu_us:.1f} µs CPU an event")


async def flatness(series: Series, peer: Peer, *, events: int) -> None:
    """Measure memory over many events, as a multiple of the memory at the baseline with full logs."""
    runs = 200
    async with session(peer, threads=THREADS) as opened:
        for _ in range(-(-SETTLED_RUNS // runs)):
            await opened.run_load("run", runs)
        begin = await opened.memory_kib()
        emitted, recorded_at = 0, 0
        shares: list[float] = []
        while emitted < events:
            emitted += (await opened.run_load("run", runs)).events
            shares.append(await opened.memory_kib() / begin)
            if (emitted - recorded_at) * POINTS >= events:
                recorded_at = emitted
                series.add(SeriesKey("memory, share of the settled", peer.name), shares[-1])
                series.add(SeriesKey("memory, events so far", peer.name), emitted)
    series.add(SeriesKey("memory, most beside the settled", peer.name), max(shares))
    log_progress(f"  {peer.name}: {shares[-1]:.3f} after {emitted:,} events, {max(shares):.3f} at most")
