"""What an event costs more once several workers share a broker: one worker alone keeps all of it in its memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import anyio
import pandas as pd

from bridgekit.errors import first_error
from bridgekit_verify.capacity.edges import NATIVE, Edge
from bridgekit_verify.capacity.schedule import Plan
from bridgekit_verify.capacity.site import site
from bridgekit_verify.capacity.step import Step
from bridgekit_verify.faults.redis_servers import Persistence, redis_server

__all__ = ["SharedStudy", "study_shared"]

SOCKETS: Final = 50
STUDY_SECONDS: Final = 300.0


@dataclass(frozen=True)
class SharedStudy:
    """The same load on one worker with its own memory, and on one that keeps it at a broker."""

    edge: Edge
    alone: Sequence[Step]
    shared: Sequence[Step]

    @property
    def extra_us(self) -> float:
        """CPU time an event more, in microseconds, of the worker's process: the least of the rounds of each."""
        return max(min(step.cpu_us for step in self.shared) - min(step.cpu_us for step in self.alone), 0.0)

    @property
    def steps(self) -> list[Step]:
        return [*self.alone, *self.shared]

    def table(self) -> pd.DataFrame:
        """One row a store: what an event costs the worker, and how late it comes."""
        return pd.DataFrame(
            {
                "store": name,
                "events/s": round(steps[0].events_per_second),
                "CPU µs/event": round(min(step.cpu_us for step in steps), 1),
                "late p50 ms": round(1_000 * min(step.heard.late_p50 for step in steps), 1),
                "late p99 ms": round(1_000 * min(step.heard.late_p99 for step in steps), 1),
                "lost": sum(step.heard.lost for step in steps),
            }
            for name, steps in (("the worker's memory", self.alone), ("a broker, Redis protocol", self.shared))
        )


async def study_shared(
    plan: Plan | None = None, *, events_per_second: float = 2_000.0, rounds: int = 1, edge: Edge = NATIVE
) -> SharedStudy:
    """Let both carry this load, in turns."""
    plan = plan or Plan(seconds=0.5, pause_seconds=0.05)
    alone, shared = list[Step](), list[Step]()
    with first_error(), anyio.fail_after(STUDY_SECONDS):
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(redis_server(Persistence.EVERYSEC))
            ours = await stack.enter_async_context(site(edge))
            theirs = await stack.enter_async_context(site(edge, store=broker.url))
            await ours.connect(SOCKETS)
            await theirs.connect(SOCKETS)
            for _ in range(rounds):
                alone.append(await ours.wave(events_per_second, plan, first=0, threads=SOCKETS))
                shared.append(await theirs.wave(events_per_second, plan, first=0, threads=SOCKETS))
    return SharedStudy(edge, alone, shared)
