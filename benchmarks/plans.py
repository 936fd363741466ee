"""The quick plan (about a minute) and the full plan: the measured stacks, and the length of each measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from benchmarks.measures.growth import FULL_BACKGROUND, BackgroundLoad, steps
from benchmarks.peers import PEERS
from benchmarks.targets import (
    ASGI,
    BROADCAST,
    CHANNELS_REDIS,
    NATIVE,
    PICOWS,
    REDIS,
    SOCKETIO_REDIS,
    STARLETTE,
)
from benchmarks.workload import BURST, RUN, YIELDING

__all__ = ["FULL", "QUICK", "Plan"]

COMPARED: Final = (
    PICOWS,
    BROADCAST,
    "websockets send",
    STARLETTE,
    ASGI,
    NATIVE,
    SOCKETIO_REDIS,
    CHANNELS_REDIS,
    REDIS,
)
"""The stacks that the targets compare."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The extent of a benchmark run."""

    name: str
    stacks: tuple[str, ...]
    rounds: int
    runs: int
    """Runs of each thread in each wave."""
    kinds: tuple[str, ...]
    bridgekit_kinds: tuple[str, ...]
    """Kinds of agents for bridgekit's stacks."""
    fresh: bool
    """Whether each round starts new processes."""
    latency_rounds: int
    latency_seconds: float
    latency_stacks: tuple[str, ...]
    rates: tuple[float, ...] = (500.0,)
    stall_seconds: float = 0.0
    """Duration of the stall measurement in seconds, or 0 to skip it."""
    subscribers: int = 0
    """Number of subscribers in the fan-out measurement, or 0 to skip it."""
    idle_stacks: tuple[str, ...]
    """Stacks whose idle connections, fan-out and stall are measured."""
    idle_connections: int
    idle_rounds: int
    idle_seconds: float = 0.0
    """Duration, in seconds, of the measurement of CPU time on idle connections, or 0 to skip it."""
    own_rounds: int
    mappings: int
    background_loads: tuple[BackgroundLoad, ...]
    growth_rounds: int
    growth_runs: int
    flat_events: int
    import_rounds: int


QUICK: Final = Plan(
    name="quick",
    stacks=COMPARED,
    rounds=3,
    runs=20,
    kinds=(BURST, YIELDING),
    bridgekit_kinds=(BURST, YIELDING),
    fresh=False,
    latency_rounds=2,
    latency_seconds=1.0,
    latency_stacks=COMPARED,
    idle_stacks=("websockets send", STARLETTE, ASGI, NATIVE),
    idle_connections=500,
    idle_rounds=1,
    own_rounds=1,
    mappings=50_000,
    background_loads=(FULL_BACKGROUND,),
    growth_rounds=3,
    growth_runs=100,
    flat_events=20_000,
    import_rounds=3,
)

FULL: Final = Plan(
    name="full",
    stacks=tuple(each.name for each in PEERS),
    rounds=7,
    runs=40,
    kinds=(BURST, RUN, YIELDING),
    bridgekit_kinds=(BURST, RUN, YIELDING),
    fresh=True,
    latency_rounds=7,
    latency_seconds=2.0,
    latency_stacks=tuple(each.name for each in PEERS if not each.whole_runs),
    stall_seconds=3.0,
    subscribers=100,
    idle_stacks=tuple(each.name for each in PEERS if not each.whole_runs and not each.broker),
    idle_connections=1_000,
    idle_rounds=3,
    idle_seconds=41.0,
    own_rounds=7,
    mappings=200_000,
    background_loads=(
        *steps(
            {
                "threads": (10, 100, 1_000, 10_000),
                "mappings": (10, 1_000, 100_000, 1_000_000),
                "sockets": (10, 100, 1_000, 10_000),
            }
        ),
        FULL_BACKGROUND,
    ),
    growth_rounds=7,
    growth_runs=150,
    flat_events=10_000_000,
    import_rounds=5,
)
