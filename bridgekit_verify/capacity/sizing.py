"""Compute the workers and memory that an application's load needs, and measure a shared store's cost per event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import anyio
import pandas as pd

from bridgekit.errors import unwrap_single_error
from bridgekit.transport.log import DEFAULT_RETENTION
from bridgekit_verify.capacity.capacity import CapacityStudy
from bridgekit_verify.capacity.load_search import NATIVE, Edge, StepResult
from bridgekit_verify.capacity.memory_scaling import RUNS, SOCKETS, THREADS, MemoryStudy
from bridgekit_verify.capacity.queueing import ONE_SERVICE
from bridgekit_verify.capacity.schedule import LoadPlan
from bridgekit_verify.capacity.testbed import start_testbed
from bridgekit_verify.faults.redis_servers import Persistence, redis_server

__all__ = ["Costs", "Demand", "SharedStudy", "Sizing", "costs_of", "size", "sizing_table", "study_shared"]

HOUR_SECONDS: Final = 3_600.0
SHARED_SOCKETS: Final = 50
STUDY_SECONDS: Final = 300.0


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The load that the users of an application cause."""

    users_online: int
    """Concurrent users, each with one socket and one thread."""
    runs_per_user_hour: float
    events_per_run: int
    run_seconds: float
    """Duration of a run, which determines the number of concurrent runs."""
    peak_factor: float = 1.0
    """The load of the busiest minute as a multiple of the usual load."""
    workers_lost: int = 0
    """Number of workers that may be down, because of a deployment or a fault, without an effect on users."""

    @property
    def runs_per_second(self) -> float:
        return self.users_online * self.runs_per_user_hour / HOUR_SECONDS * self.peak_factor

    @property
    def events_per_second(self) -> float:
        return self.runs_per_second * self.events_per_run

    @property
    def runs_at_once(self) -> float:
        """Mean number of concurrent runs (Little's law)."""
        return self.runs_per_second * self.run_seconds

    @property
    def runs_in_logs(self) -> float:
        """Number of runs in a thread's log: the runs within the retention time, but at least one."""
        return max(self.runs_per_user_hour * self.peak_factor * DEFAULT_RETENTION.seconds / HOUR_SECONDS, 1.0)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Measured costs of one worker with one edge, as CPU time in µs and memory in KiB."""

    edge: str
    event_us: float
    shared_us: float
    """Extra CPU time per event if workers share a broker."""
    base_kib: float
    socket_kib: float
    thread_kib: float
    """Memory of a thread with `run_events` events in its log."""
    run_kib: float
    """Memory of a waiting run."""
    run_events: int


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The number of workers, and the CPU share and memory of each."""

    edge: str
    shared: bool
    """Whether the workers share a broker, which is required for more than one worker."""
    workers: int
    core_share: float
    """Share of a core that each worker uses when all workers are up."""
    core_share_lost: float
    """Share of a core that each worker uses when `workers_lost` workers are down."""
    mib: float
    """Memory of each worker when `workers_lost` workers are down."""

    @property
    def fits(self) -> bool:
        """Whether each worker uses at most two thirds of a core, even with `workers_lost` workers down."""
        return self.core_share_lost <= ONE_SERVICE


def costs_of(capacity: CapacityStudy, memory: MemoryStudy, shared: SharedStudy) -> list[Costs]:
    """Return the measured costs of each edge. An edge that carried no load is left out."""
    return [
        Costs(
            edge=search.edge.name,
            event_us=search.best.cpu_us,
            shared_us=shared.extra_us,
            base_kib=memory.of(search.edge).base_kib,
            socket_kib=memory.of(search.edge).of(SOCKETS).kib,
            thread_kib=memory.of(search.edge).of(THREADS).kib,
            run_kib=memory.of(search.edge).of(RUNS).kib,
            run_events=LoadPlan().events,
        )
        for search in capacity.searches
        if search.best is not None
    ]


def size(demand: Demand, costs: Costs, *, max_utilisation: float = ONE_SERVICE) -> Sizing:
    """Return the sizing with the fewest workers that use at most `max_utilisation` each when `workers_lost` workers are
    down.

    A single worker keeps all logs in memory. Two or more workers share a broker, which adds cost to each event.
    """
    unshared = demand.events_per_second * costs.event_us / 1e6
    if unshared <= max_utilisation and not demand.workers_lost:
        return _sizing(demand, costs, workers=1, cores=unshared, shared=False)
    cores = demand.events_per_second * (costs.event_us + costs.shared_us) / 1e6
    workers = max(math.ceil(cores / max_utilisation - 1e-9), 1) + demand.workers_lost
    return _sizing(demand, costs, workers=max(workers, 2), cores=cores, shared=True)


def _sizing(demand: Demand, costs: Costs, *, workers: int, cores: float, shared: bool) -> Sizing:
    left = workers - demand.workers_lost
    logs = 0.0 if shared else costs.thread_kib * demand.runs_in_logs * demand.events_per_run / costs.run_events
    kib = demand.users_online * (costs.socket_kib + logs) + demand.runs_at_once * costs.run_kib
    return Sizing(
        edge=costs.edge,
        shared=shared,
        workers=workers,
        core_share=cores / workers,
        core_share_lost=cores / left,
        mib=(costs.base_kib + kib / left) / 1_024,
    )


def sizing_table(demand: Demand, costs: Sequence[Costs]) -> pd.DataFrame:
    """Return one row for each edge: load, concurrent runs, workers, store, core shares and memory of each worker."""
    return pd.DataFrame(
        {
            "edge": sizing.edge,
            "events/s": round(demand.events_per_second),
            "runs at once": round(demand.runs_at_once),
            "workers": sizing.workers,
            "store": "a shared broker" if sizing.shared else "its own memory",
            "core % each": round(100 * sizing.core_share),
            f"core % each, {demand.workers_lost} down": round(100 * sizing.core_share_lost),
            "MiB each": round(sizing.mib),
        }
        for sizing in (size(demand, each) for each in costs)
    )


@dataclass(frozen=True)
class SharedStudy:
    """Measurements of the same load on a worker with the memory store, and on a worker with a broker as its store."""

    edge: Edge
    unshared: Sequence[StepResult]
    shared: Sequence[StepResult]

    @property
    def extra_us(self) -> float:
        """Extra CPU time per event with a broker, in µs: the difference between the cheapest rounds, but at least 0."""
        return max(min(step.cpu_us for step in self.shared) - min(step.cpu_us for step in self.unshared), 0.0)

    @property
    def steps(self) -> list[StepResult]:
        return [*self.unshared, *self.shared]

    def table(self) -> pd.DataFrame:
        """Return one row for each store: load, CPU time per event, lateness, and lost events."""
        return pd.DataFrame(
            {
                "store": name,
                "events/s": round(steps[0].events_per_second),
                "CPU µs/event": round(min(step.cpu_us for step in steps), 1),
                "late p50 ms": round(1_000 * min(step.client.late_p50 for step in steps), 1),
                "late p99 ms": round(1_000 * min(step.client.late_p99 for step in steps), 1),
                "lost": sum(step.client.lost for step in steps),
            }
            for name, steps in (("the worker's memory", self.unshared), ("a broker, Redis protocol", self.shared))
        )


async def study_shared(
    plan: LoadPlan | None = None, *, events_per_second: float = 2_000.0, rounds: int = 1, edge: Edge = NATIVE
) -> SharedStudy:
    """Measure a load in turn with the memory store and with Redis. Raises TimeoutError if the study takes too long."""
    plan = plan or LoadPlan(seconds=0.5, pause_seconds=0.05)
    unshared, shared = list[StepResult](), list[StepResult]()
    with unwrap_single_error(), anyio.fail_after(STUDY_SECONDS):
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(redis_server(Persistence.EVERYSEC))
            ours = await stack.enter_async_context(start_testbed(edge))
            theirs = await stack.enter_async_context(start_testbed(edge, store=broker.url))
            await ours.connect(SHARED_SOCKETS)
            await theirs.connect(SHARED_SOCKETS)
            for _ in range(rounds):
                unshared.append(await ours.wave(events_per_second, plan, first=0, threads=SHARED_SOCKETS))
                shared.append(await theirs.wave(events_per_second, plan, first=0, threads=SHARED_SOCKETS))
    return SharedStudy(edge, unshared, shared)
